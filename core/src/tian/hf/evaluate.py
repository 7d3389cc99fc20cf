"""Perplexity of a causal LM on held-out text, in windows of its training length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

CHARS_PER_TOKEN = 8  # generous: enough characters are encoded to give the wanted number of tokens


@torch.no_grad()
def held_out_loss(model: nn.Module, tokenizer: Any, text: str, *, context: int, tokens: int, rows: int = 16) -> Tensor:
    """Negative log-likelihood of each scored token, non-overlapping windows, each behind the first token.

    Args:
        model: causal LM of transformers, in eval mode.
        tokenizer: its tokenizer; a bos token is put in front of each window if there is one.
        text: the held-out text.
        context: window length in tokens, the first token included.
        tokens: about how many tokens to score (whole windows).
        rows: windows per forward.

    Returns:
        `[n]` float32, nats per token.
    """
    ids = tokenizer(text[: tokens * CHARS_PER_TOKEN], add_special_tokens=False)["input_ids"]
    width = context - 1
    count = max(1, min(tokens, len(ids)) // width)
    body = torch.tensor(ids[: count * width], dtype=torch.int64).view(count, -1)
    bos = tokenizer.bos_token_id
    first = torch.full((count, 1), bos if bos is not None else int(body[0, 0]))
    ids_ = torch.cat([first, body], dim=1)
    out = []
    for chunk in torch.split(ids_, rows):
        logits = model(input_ids=chunk, use_cache=False).logits[:, :-1].float()
        out.append(torch.nn.functional.cross_entropy(logits.transpose(1, 2), chunk[:, 1:], reduction="none"))
    return torch.cat(out).flatten()
