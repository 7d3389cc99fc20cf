"""Plain attention over grouped heads, with or without the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import scaled_dot_product_attention

if TYPE_CHECKING:
    from torch import Tensor


def grouped_attention(
    query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None, scale: float, weights: bool
) -> tuple[Tensor, Tensor | None]:
    """softmax(query key^T * scale) value, each key/value head serving G = H / H_kv query heads.

    Args:
        query: `[B, H, m, D]`.
        key: `[B, H_kv, n, D]`.
        value: `[B, H_kv, n, D]`.
        mask: bool, broadcastable to `[B, H, m, n]` or `[B, H_kv, m, n]`, True where a key is visible; None: all are.
        scale: factor of the logits.
        weights: whether the attention weights are wanted; without them the fused kernel runs.

    Returns:
        Output `[B, H, m, D]`, and the weights summed over the G query heads, `[B, H_kv, m, n]` float32, or None.
    """
    if mask is not None and mask.dim() == 4 and mask.shape[1] not in (1, query.shape[1]):
        mask = mask.repeat_interleave(query.shape[1] // mask.shape[1], dim=1)
    if not weights:
        out = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale, enable_gqa=True)
        return out, None
    B, H, m, D = query.shape
    kv_heads = key.shape[1]
    q = query.view(B, kv_heads, H // kv_heads, m, D)
    logits = (q @ key[:, :, None].transpose(-1, -2)).float() * scale
    if mask is not None:
        grouped = mask.expand(B, H, *mask.shape[-2:]).view(B, kv_heads, H // kv_heads, *mask.shape[-2:])
        logits = logits.masked_fill(~grouped, -torch.inf)
    p = logits.softmax(dim=-1)
    out = p.to(value.dtype) @ value[:, :, None]
    return out.view(B, H, m, D), p.sum(dim=2)
