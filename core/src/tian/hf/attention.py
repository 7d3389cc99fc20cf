"""Plain attention over grouped heads; where a policy asks, with the attention each key received."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import torch
from torch.nn.functional import scaled_dot_product_attention

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Logits:
    """What a model does to query key^T before the softmax.

    Attributes:
        scale: factor of the logits.
        window: the model's own sliding window in tokens, or None.
        slopes: `[H]` float32 ALiBi slopes: -slope * distance is added; or None.
        sink: `[H]` float32, one more logit per head whose value is zero; or None.
    """

    scale: float
    window: int | None = None
    slopes: Tensor | None = None
    sink: Tensor | None = None


BLOCK = 64  # query rows whose weights are held at once: memory stays O(B H BLOCK n), not O(B H m n)


def grouped_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Tensor | None,
    bias: Tensor | None,
    scale: float,
    sink: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    """softmax(query key^T * scale + bias) value, each key/value head serving G = H / H_kv query heads.

    Args:
        query: `[B, H, m, D]`.
        key: `[B, H_kv, n, D]`.
        value: `[B, H_kv, n, D]`.
        mask: bool, broadcastable to `[B, H, m, n]` or `[B, H_kv, m, n]`, True where a key is visible; None: all are.
        bias: float32, broadcastable to `[B, H, m, n]`, added to the logits (ALiBi), or None.
        scale: factor of the logits.
        sink: `[H]`, one more logit per head, whose value is zero (learned sink; zeros: SoftMax1), or None.
        causal: query i sees the first n - m + i + 1 keys and `mask` is None: half of the work of such a mask.

    Returns:
        `[B, H, m, D]`.
    """
    m, n = query.shape[2], key.shape[2]
    if sink is not None:
        none = torch.zeros(1, 1, m, device=query.device)
        return attention_and_sums(
            query, key, value, mask=mask, bias=bias, scale=scale, weight=none, sink=sink, causal=causal
        )[0]
    if causal and (bias is not None or m != n):  # the library's causal mask starts at the first key, and takes no bias
        mask = torch.ones(m, n, dtype=torch.bool, device=query.device).tril(n - m)
        causal = False
    mask = _per_head(mask, query.shape[1])
    if bias is not None:
        extra = bias if mask is None else bias.masked_fill(~mask, -torch.inf)
        extra = extra.to(query.dtype)
        return scaled_dot_product_attention(query, key, value, attn_mask=extra, scale=scale, enable_gqa=True)
    return scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scale, enable_gqa=True, is_causal=causal
    )


def attention_and_sums(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Tensor | None,
    bias: Tensor | None,
    scale: float,
    weight: Tensor,
    sink: Tensor | None = None,
    causal: bool = False,
) -> tuple[Tensor, Tensor]:
    """As `grouped_attention`, and what each key received: sum over queries i and grouped heads of weight_i p_ij.

    The weights p are made `BLOCK` rows at a time and only for the rows whose weight may be non-zero.

    Args:
        query: `[B, H, m, D]`.
        key: `[B, H_kv, n, D]`.
        value: `[B, H_kv, n, D]`.
        mask: as in `grouped_attention`.
        bias: as in `grouped_attention`.
        scale: factor of the logits.
        weight: `[B or 1, 1, w]` float32 for the last w <= m queries; earlier ones count as zero.
        sink: as in `grouped_attention`.
        causal: as in `grouped_attention`.

    Returns:
        Output `[B, H, m, D]` and sums `[B, H_kv, n]` float32.
    """
    B, H, m, _ = query.shape
    kv_heads, n = key.shape[1], key.shape[2]
    G = H // kv_heads
    mask = _per_head(mask, H)
    first = m - weight.shape[-1]
    sums = torch.zeros(B, kv_heads, n, device=query.device)
    out = torch.empty(B, H, m, value.shape[-1], dtype=value.dtype, device=query.device)
    extra = None if sink is None else sink.float().view(1, kv_heads, G, 1, 1)
    if first:
        known = n - m + first if causal else n
        out[:, :, :first] = grouped_attention(
            query[:, :, :first],
            key[:, :, :known],
            value[:, :, :known],
            mask=_rows(mask, 0, first, m),
            bias=None if bias is None else _rows(bias, 0, first, m)[..., :known],
            scale=scale,
            causal=causal,
        )
    for start in range(first, m, BLOCK):
        stop = min(start + BLOCK, m)
        r, near = stop - start, n - m + stop if causal else n
        logits = grouped_logits(query[:, :, start:stop], key[:, :, :near], scale=scale)
        here = _rows(bias, start, stop, m)
        if here is not None:
            logits = logits + _grouped(here, B, H, kv_heads)[..., :near]
        seen = _rows(mask, start, stop, m)
        if seen is not None:
            logits = logits.masked_fill(~_grouped(seen, B, H, kv_heads), -torch.inf)
        if causal and r > 1:
            later = torch.ones(r, r, dtype=torch.bool, device=query.device).triu(1)
            logits[..., near - r :].masked_fill_(later, -torch.inf)
        p = logits.softmax(dim=-1)
        if extra is not None:  # softmax with one more logit = softmax times the share the others have beside it
            p = p * torch.sigmoid(logits.logsumexp(dim=-1, keepdim=True) - extra)
        rows = p.view(B, kv_heads, G * r, near)
        out[:, :, start:stop] = (rows.to(value.dtype) @ value[:, :, :near]).view(B, H, r, -1)
        sums[..., :near] += (weight[..., None, start - first : stop - first].repeat(1, 1, 1, G) @ rows)[:, :, 0]
    return out, sums


def grouped_logits(query: Tensor, key: Tensor, *, scale: float) -> Tensor:
    """Query key^T * scale, `[B, H_kv, G, m, n]` float32, of `[B, H, m, D]` and `[B, H_kv, n, D]`."""
    B, H, m, D = query.shape
    kv_heads = key.shape[1]
    # The G grouped heads become rows: broadcasting over a group dimension would copy keys G times.
    rows = query.reshape(B, kv_heads, H // kv_heads * m, D)
    if rows.dtype == torch.float32:  # scaling the small factor spares a pass over the product
        return ((rows * scale) @ key.transpose(-1, -2)).view(B, kv_heads, H // kv_heads, m, -1)
    return (rows @ key.transpose(-1, -2)).view(B, kv_heads, H // kv_heads, m, -1).float() * scale


def alibi(slopes: Tensor | None, position: Tensor, at: Tensor) -> Tensor | None:
    """The bias of ALiBi, slope * (position - at), `[B, H, m, n]`; None without slopes.

    Args:
        slopes: `[H]` float32, or None.
        position: int `[B, H_kv or 1, n]`, of the keys.
        at: int `[B, H_kv or 1, m]`, of the queries.
    """
    if slopes is None:
        return None
    distance = position[..., None, :] - at[..., :, None]
    return slopes[:, None, None] * _per_head(distance, slopes.numel())


@overload
def _per_head(mask: Tensor, heads: int) -> Tensor: ...
@overload
def _per_head(mask: None, heads: int) -> None: ...
def _per_head(mask: Tensor | None, heads: int) -> Tensor | None:
    if mask is not None and mask.dim() == 4 and mask.shape[1] not in (1, heads):
        return mask.repeat_interleave(heads // mask.shape[1], dim=1)
    return mask


@overload
def _rows(x: Tensor, start: int, stop: int, m: int) -> Tensor: ...
@overload
def _rows(x: None, start: int, stop: int, m: int) -> None: ...
def _rows(x: Tensor | None, start: int, stop: int, m: int) -> Tensor | None:
    """The query rows start..stop of something broadcastable to `[.., m, n]`."""
    return x if x is None or x.shape[-2] != m or m == 1 else x[..., start:stop, :]


def _grouped(x: Tensor, batch: int, heads: int, kv_heads: int) -> Tensor:
    """`[.., H or 1, r, n]` as `[B, H_kv, G, r, n]`."""
    full = x.expand(batch, heads, *x.shape[-2:])
    return full.reshape(batch, kv_heads, heads // kv_heads, *x.shape[-2:])
