"""The stream of StreamEval: numbered facts line by line, and every few lines a question about one some lines back.

Source: the task of arXiv 2309.17453, section 4.3 (the authors' generator was never released); wording ours.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from tian.hf.corpus import encode, first_tokens
from tian_kvcache.recall_stream import RecallStreams

if TYPE_CHECKING:
    from torch import Tensor

LINE = 23  # tokens of a line of the constructed stream, as in the paper
VALUE = 11  # which of them is the value


@dataclass(frozen=True)
class Asked:
    """One question of an encoded stream.

    Attributes:
        start: position of the answer's first token.
        length: tokens of the answer.
        distance: tokens from the line's value to `start`.
    """

    start: int
    length: int
    distance: int


def text_stream(
    tokenizer: Any, *, back: int, queries: int, every: int, rng: random.Random
) -> tuple[list[int], list[Asked]]:
    """Token ids of one stream, and its questions; the right answer follows each question.

    Args:
        tokenizer: of the model.
        back: how many lines above the newest one the answer lies; 1 is the line before it.
        queries: how many questions.
        every: lines between two questions.
        rng: draws names and numbers.
    """
    ids = first_tokens(tokenizer)
    asked: list[Asked] = []
    values: list[tuple[str, str, int]] = []  # name, number, position of the number
    while len(asked) < queries:
        name, number = f"{rng.choice(NAMES)}-{rng.randrange(1000):03d}", f"{rng.randrange(10_000, 100_000)}"
        ids += encode(tokenizer, f"The number of line {name} is").tolist()
        values.append((name, number, len(ids)))
        ids += encode(tokenizer, f" {number}.\n").tolist()
        if len(values) > back and len(values) % every == 0:
            name, number, place = values[-1 - back]
            ids += encode(tokenizer, f"Question: what is the number of line {name}? Answer:").tolist()
            answer = encode(tokenizer, f" {number}").tolist()
            asked.append(Asked(len(ids), len(answer), len(ids) - place))
            ids += [*answer, *encode(tokenizer, ".\n").tolist()]
    return ids, asked


NAMES = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "islet", "jetty", "knoll", "larch")


def constructed(*, back: int, queries: int, every: int) -> RecallStreams:
    """The same as one head in closed form (see `recall_stream`): lines of 23 tokens, asked about in their last token.

    An answer lies `back * 23 + 11` tokens before its question.
    """
    first = -(-(back + 1) // every) * every  # lines before the first question, itself included
    lines = first + (queries - 1) * every
    T = 1 + lines * LINE
    asks, pairs = torch.full((1, T), -1), torch.zeros(1, T, dtype=torch.bool)
    pairs[0, 1 + VALUE :: LINE] = True
    for line in range(first - 1, lines, every):
        asks[0, 1 + line * LINE + LINE - 1] = 1 + (line - back) * LINE + VALUE
    return RecallStreams(asks, 0, pairs)


def distance_of(back: int) -> int:
    """Tokens from a value to its question, constructed stream."""
    return back * LINE + LINE - 1 - VALUE


def right(hits: Tensor, asked: list[Asked]) -> list[bool]:
    """Which questions greedy decoding answers exactly; `hits [T-1]` bool: token t + 1 was the likeliest."""
    return [bool(hits[a.start - 1 : a.start - 1 + a.length].all()) for a in asked]
