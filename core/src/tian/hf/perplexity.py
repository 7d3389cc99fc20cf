"""Perplexity and bits per byte of documents, read in windows; plain or under a cache policy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from tian.errors import InvalidInput
from tian.hf.corpus import encode, first_tokens
from tian.hf.scoring import Row, score

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from tian.hf.cache import SlotCache


@dataclass(frozen=True)
class TextLoss:
    """What a model makes of documents.

    Attributes:
        nll: per document `[n]` float32, nats of each scored token.
        bytes_: per document, UTF-8 bytes of what was scored.
    """

    nll: list[Tensor]
    bytes_: list[int]

    @property
    def perplexity(self) -> float:
        """Exp of the mean over all tokens."""
        return math.exp(float(torch.cat(self.nll).double().mean()))

    @property
    def bits_per_byte(self) -> float:
        """Comparable between tokenizers: all nats in bits, over all bytes."""
        return float(torch.cat(self.nll).double().sum()) / math.log(2) / sum(self.bytes_)


def windows(ids: Sequence[int], *, first: Sequence[int], context: int) -> list[Row]:
    """Cut a document into windows without overlap, each of `context` tokens with what stands in front.

    Every window begins with `first`, so that a model which needs its first token has it everywhere. Without any, a
    window begins with the token before it, and the very first token of the document is not scored.

    Example:
        >>> [(r.prefix, r.target) for r in windows([5, 6, 7], first=[0], context=3)]
        [((0,), (5, 6)), ((0,), (7,))]
        >>> [(r.prefix, r.target) for r in windows([5, 6, 7], first=[], context=2)]
        [((5,), (6,)), ((6,), (7,))]
    """
    body = context - max(1, len(first))
    if body < 1:
        raise InvalidInput(f"context must be > {max(1, len(first))} tokens, got {context}")
    start = 0 if first else 1
    return [Row(tuple(first) or (ids[at - 1],), tuple(ids[at : at + body])) for at in range(start, len(ids), body)]


def text_loss(
    model: Any,
    tokenizer: Any,
    documents: Sequence[str],
    *,
    context: int,
    cache: SlotCache | None = None,
    batch: int = 16,
) -> TextLoss:
    """Score every token of the documents.

    Args:
        model: causal LM of transformers, in eval mode; attached if there is a cache.
        tokenizer: of the model; what it puts in front of a text stands in front of each window.
        documents: texts.
        context: window length in tokens, the first ones included.
        cache: what `attach` yielded: each window is a stream, the policy evicts from its first token on. None: one
            forward pass a window.
        batch: windows a forward.

    Raises:
        InvalidInput: a context without room for a token, or a document without a token to score.
    """
    first = first_tokens(tokenizer)
    rows: list[Row] = []
    counts, bytes_ = [], []
    for number, text in enumerate(documents):
        ids = encode(tokenizer, text).tolist()
        cut = windows(ids, first=first, context=context)
        if not cut:
            raise InvalidInput(f"document {number} has {len(ids)} tokens: none to score", hint="leave it out")
        rows += cut
        counts.append(len(cut))
        skipped = 0 if first else len(tokenizer.decode(ids[:1]).encode())
        bytes_.append(len(text.encode()) - skipped)
    found = [-s.log_prob for s in score(model, rows, cache=cache, reading="stream", batch=batch)]
    ends = torch.tensor(counts).cumsum(0).tolist()
    return TextLoss([torch.cat(found[e - n : e]) for n, e in zip(counts, ends, strict=True)], bytes_)
