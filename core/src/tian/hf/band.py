"""Many tokens at once, each seeing exactly what it would have seen had they come one by one.

For a contiguous policy that is known beforehand: the first S tokens and the last C - S before each. So a chunk is one
pass of attention under a band instead of m steps, with the same outputs and the same kept tokens.
Source: ours; the two positions of a query (one towards the recent tokens, one towards the sinks) follow from arXiv
2309.17453 section 3.2, where a full cache always puts the query at rank C.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tian.hf.attention import grouped_logits

if TYPE_CHECKING:
    from torch import Tensor

    from tian.hf.attention import Logits
    from tian.hf.slots import SlotLayer


def obstacle(layer: SlotLayer, how: Logits) -> str:
    """Why this layer cannot read a chunk as if by steps; empty when it can."""
    name = type(layer.policy).__name__
    if layer.capacity is None:
        return ""
    if not layer.policy.contiguous:
        return f"{name} decides after each token what to keep"
    if layer.pads is not None:
        return "rows of the batch are padded"
    if not layer.turned:
        return "the fused kernel keeps its keys unrotated: attach with kernel=torch"
    if how.window is not None and how.window <= layer.capacity:
        return f"the model's own sliding window of {how.window} tokens cuts into the cache"
    return ""


def banded(
    layer: SlotLayer,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    how: Logits,
) -> Tensor:
    """Attend over a full layer (C kept tokens), then keep the first S and the last C - S.

    Args:
        layer: full, contiguous, keys turned.
        query: `[B, H, m, D]`, unrotated.
        key: `[B, H_kv, m, D]`, unrotated.
        value: `[B, H_kv, m, D]`.
        how: what the model does to the logits.

    Returns:
        `[B, H, m, D]`.
    """
    assert layer.capacity is not None  # noqa: S101 - only a bounded layer has a band
    ranks = layer.policy.victim_ranks(layer.capacity)
    S = 0 if ranks is None else ranks[0]
    C, m, seen, rotary = layer.capacity, query.shape[2], layer.seen, layer.rotary
    R = C - S
    device = query.device
    keys, values = layer.in_order(layer.keys), layer.in_order(layer.values)
    recent = torch.cat([keys[:, :, S:], rotary.turn(key, rotary.span(seen, m))], dim=2)
    recent_values = torch.cat([values[:, :, S:], value], dim=2)
    entry, row = torch.arange(R + m, device=device), torch.arange(m, device=device)[:, None]
    hidden = (entry < row) | (entry > row + R)  # row i sees its R predecessors and itself
    q = rotary.turn(query, rotary.span(seen, m))
    logits = grouped_logits(q, recent, scale=how.scale)
    if how.slopes is not None:
        logits = logits + _slope(how.slopes, logits, (entry - row - R).float())
    logits = logits.masked_fill(hidden, -torch.inf)
    if S:
        if layer.policy.positions == "in_cache":
            firsts = keys[:, :, :S] if layer.firsts is None else rotary.turn(layer.firsts, rotary.span(0, S))
            q, distance = rotary.turn(query, rotary.span(C, 1)), torch.arange(S, device=device)[None] - C
        else:
            firsts, distance = keys[:, :, :S], torch.arange(S, device=device)[None] - seen - row
        towards = grouped_logits(q, firsts, scale=how.scale)
        if how.slopes is not None:
            towards = towards + _slope(how.slopes, towards, distance.float())
        logits = torch.cat([towards, logits], dim=-1)
    p = logits.softmax(dim=-1)
    if how.sink is not None:
        extra = how.sink.float().view(1, *logits.shape[1:3], 1, 1)
        p = p * torch.sigmoid(logits.logsumexp(dim=-1, keepdim=True) - extra)
    B, kv_heads, G, _, n = p.shape
    every = torch.cat([values[:, :, :S], recent_values], dim=2)
    out = p.to(value.dtype).reshape(B, kv_heads, G * m, n) @ every
    layer.seen += m
    layer.evicted = layer.seen
    last = torch.arange(layer.seen - R, layer.seen, device=device)
    tok = torch.cat([torch.arange(S, device=device), last])
    layer.store(
        torch.cat([keys[:, :, :S], recent[:, :, m:]], dim=2),
        torch.cat([values[:, :, :S], recent_values[:, :, m:]], dim=2),
        tok.expand(*layer.tok.shape[:2], C),
        None,
    )
    return out.view(B, kv_heads * G, m, -1)


def _slope(slopes: Tensor, logits: Tensor, distance: Tensor) -> Tensor:
    """ALiBi for logits `[B, H_kv, G, m, n]`; `distance` `[m or 1, n]`, not positive."""
    return slopes.view(1, *logits.shape[1:3], 1, 1) * distance
