"""Perplexity of a causal LM on held-out text, in windows of its training length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tian.hf.corpus import first_tokens
from tian.hf.perplexity import windows
from tian.hf.scoring import score

if TYPE_CHECKING:
    from torch import Tensor

CHARS_PER_TOKEN = 8  # generous: enough characters are encoded to give the wanted number of tokens


def held_out_loss(model: Any, tokenizer: Any, text: str, *, context: int, tokens: int, rows: int = 16) -> Tensor:
    """Negative log-likelihood of each scored token, in non-overlapping windows; see `tian.hf.perplexity.windows`.

    Args:
        model: causal LM of transformers, in eval mode.
        tokenizer: its tokenizer; what it puts in front of a text stands in front of each window.
        text: the held-out text.
        context: window length in tokens, the first token included.
        tokens: about how many tokens to score (whole windows).
        rows: windows per forward.

    Returns:
        `[n]` float32, nats per token.
    """
    ids = tokenizer(text[: tokens * CHARS_PER_TOKEN], add_special_tokens=False)["input_ids"]
    first = first_tokens(tokenizer)
    width = context - max(1, len(first))
    before = 0 if first else 1  # without a first token, that of the text stands in front and is not scored
    count = max(1, min(tokens, len(ids) - before) // width)
    cut = windows(ids[: count * width + before], first=first, context=context)
    return torch.cat([-s.log_prob for s in score(model, cut, batch=rows)])
