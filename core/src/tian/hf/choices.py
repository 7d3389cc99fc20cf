"""Multiple choice by log-probability: encode, decide; and cloze items made of any text when there are no questions."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from tian.errors import DataError
from tian.hf.corpus import encode, first_tokens
from tian.hf.scoring import Row
from tian.hf.token_cache import cached

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tian.hf.texts import Document, Question

SHOT_GAP = "\n\n"  # between the examples in front of a question


@dataclass(frozen=True)
class Item:
    """An encoded question.

    Attributes:
        rows: context and choice, for each choice.
        bytes_: UTF-8 bytes of each choice.
        gold: index of the right one.
    """

    rows: tuple[Row, ...]
    bytes_: tuple[int, ...]
    gold: int


def encode_pair(tokenizer: Any, context: str, continuation: str, *, where: str = "") -> Row:
    """Encode context and continuation together; the tokens after the context's are the target.

    White space at the end of the context moves to the continuation, where tokenizers expect it.

    Raises:
        DataError: the continuation adds no token, or there is no token to put in front of an empty context.
    """
    kept = context.rstrip()
    continuation, context = context[len(kept) :] + continuation, kept
    first = first_tokens(tokenizer)
    if not context and not first:
        own = next((i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None), None)
        if own is None:
            raise DataError(
                "the context is empty and the tokenizer has no first token", where=where, hint="add a context"
            )
        first = [own]
    before = len(tokenizer(context, add_special_tokens=False)["input_ids"]) if context else 0
    ids = tokenizer(context + continuation, add_special_tokens=False)["input_ids"]
    if len(ids) <= before:
        raise DataError(
            f"the choice {continuation!r} adds no token to its context", where=where, hint="give a longer choice"
        )
    return Row((*first, *ids[:before]), tuple(ids[before:]))


def encode_questions(tokenizer: Any, questions: Sequence[Question], *, shots: int = 0) -> list[Item]:
    """Encode questions; the first `shots` of them are solved examples in front of the others, and not scored.

    Raises:
        DataError: no question is left, or see `encode_pair`.
    """
    if shots >= len(questions):
        raise DataError(
            f"{len(questions)} questions leave none to ask behind {shots} examples",
            where="data.shots",
            hint="bring more questions",
        )
    examples = "".join(f"{q.context}{q.choices[q.gold]}{SHOT_GAP}" for q in questions[:shots])
    return [
        Item(
            tuple(encode_pair(tokenizer, examples + q.context, c, where=q.where) for c in q.choices),
            tuple(len(c.encode()) for c in q.choices),
            q.gold,
        )
        for q in questions[shots:]
    ]


def cloze(
    tokenizer: Any,
    documents: Sequence[Document],
    *,
    items: int,
    context: int = 64,
    continuation: int = 16,
    choices: int = 4,
    seed: int = 0,
) -> list[Item]:
    """Which of several pieces continues a text? The others continue other documents.

    Args:
        tokenizer: of the model.
        documents: at least two long enough for a context and a continuation.
        items: how many.
        context: tokens before the continuation, the tokenizer's own first ones included.
        continuation: tokens of each choice.
        choices: how many.
        seed: of the places.

    Raises:
        DataError: fewer than two documents are long enough.

    Source: ours.
    """
    first = tuple(first_tokens(tokenizer))
    body = context - len(first)
    texts = [ids for ids in encode_documents(tokenizer, documents) if len(ids) >= body + continuation]
    if len(texts) < 2:
        raise DataError(
            f"{len(texts)} of {len(documents)} documents have {body + continuation} tokens; two are needed, "
            "for wrong continuations come from another one",
            where="text",
            hint="give a folder of several .txt files, or shorter contexts",
        )
    rng = random.Random(seed)
    sizes = [len(ids) - body - continuation + 1 for ids in texts]
    out = []
    for _ in range(items):
        own = rng.choices(range(len(texts)), weights=sizes)[0]
        at = rng.randrange(sizes[own])
        prefix = (*first, *texts[own][at : at + body])
        targets = [tuple(texts[own][at + body : at + body + continuation])]
        while len(targets) < choices:
            other = rng.choices(range(len(texts)), weights=sizes)[0]
            if other != own:
                begin = body + rng.randrange(sizes[other])
                targets.append(tuple(texts[other][begin : begin + continuation]))
        gold = rng.randrange(choices)
        targets[0], targets[gold] = targets[gold], targets[0]
        rows = tuple(Row(prefix, t) for t in targets)
        out.append(Item(rows, tuple(max(1, len(tokenizer.decode(t).encode())) for t in targets), gold))
    return out


def encode_documents(tokenizer: Any, documents: Sequence[Document]) -> list[list[int]]:
    """Ids of each document, from the token cache when they are there (see `tian.hf.token_cache`)."""
    sha = hashlib.sha256(b"documents")
    for d in documents:
        sha.update(hashlib.sha256(d.text.encode()).digest())
    end = torch.tensor([-1])  # no token: parts the documents in the cache
    text = "".join(d.text for d in documents)
    ids = cached(
        tokenizer,
        text,
        sha.hexdigest(),
        lambda: torch.cat([x for d in documents for x in (encode(tokenizer, d.text), end)]),
    ).tolist()
    out: list[list[int]] = [[]]
    for i in ids:
        if i < 0:
            out.append([])
        else:
            out[-1].append(i)
    return out[:-1]


def choose(sums: Sequence[float], sizes: Sequence[int] | None = None) -> int:
    """Index of the most likely choice; with `sizes` (bytes), per byte. Of equals the first.

    Example:
        >>> choose([-4.0, -5.0]), choose([-4.0, -5.0], [1, 10])
        (0, 1)
    """
    values = list(sums) if sizes is None else [s / n for s, n in zip(sums, sizes, strict=True)]
    return values.index(max(values))
