"""One token through one layer of the slot cache: write, attend, score, evict; in place, with nothing read back.

What the host knows by itself (how many slots are in use, whether the cache is full) spares work while a step is run
directly. A recorded step (`layer.static`) uses only what the device knows, over all C + 1 slots, so that one recording
serves a cache that fills and one that is full.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tian.hf.attention import alibi, attention_and_sums, grouped_attention
from tian.hf.kernels import fused_step
from tian.spec.contract import check_slot
from tian.spec.victims import NEVER

if TYPE_CHECKING:
    from torch import Tensor

    from tian.hf.attention import Logits
    from tian.hf.slots import SlotLayer
    from tian.spec import KVPolicy


def step(
    layer: SlotLayer,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    how: Logits,
) -> Tensor:
    """Attend from one new token to what is kept and to itself, then evict if the layer is full.

    Args:
        layer: whose slots.
        query: `[B, H, 1, D]`, unrotated.
        key: `[B, H_kv, 1, D]`, unrotated.
        value: `[B, H_kv, 1, D]`.
        how: what the model does to the logits.

    Returns:
        `[B, H, 1, D]`.
    """
    if layer.count == layer.keys.shape[2]:
        layer.grow()
    if layer.turned:
        query, key = _turn_new(layer, query, key)
    done = None
    if layer.fused is not None:
        done = fused_step(layer, query, key, value, how)
    if done is None:
        done = _torch_step(layer, query, key, value, how)
    layer.clock += 1
    if not layer.static:
        layer.advance()
    return done


def _turn_new(layer: SlotLayer, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate the new query and key to their index in the stream, and the sinks to where they are seen from there."""
    rotary, S = layer.rotary, layer.sinks
    if layer.firsts is not None and layer.count < S:
        layer.firsts[:, :, layer.count] = key[:, :, 0]
    here = rotary.angles(layer.clock[0, 0]) if layer.static else rotary.span(layer.seen, 1)
    if layer.firsts is not None and (layer.static or layer.evicted):
        if layer.static:
            base = layer.clock[0, 0] - layer.used[0, 0]
            there = rotary.angles(base + torch.arange(S, device=query.device))
        else:
            there = rotary.span(layer.seen - layer.count, S)
        layer.keys[:, :, :S] = rotary.turn(layer.firsts, there)  # they came first and never leave: slots 0..S-1
    return rotary.turn(query, here), rotary.turn(key, here)


def _torch_step(
    layer: SlotLayer,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    how: Logits,
) -> Tensor:
    B, kv_heads, N, D = layer.keys.shape
    n = N if layer.static else layer.count + 1
    free = layer.free.long()[..., None]
    where = free[..., None].expand(B, kv_heads, 1, 1)
    layer.keys.scatter_(2, where.expand(-1, -1, -1, D), key)
    layer.values.scatter_(2, where.expand(-1, -1, -1, layer.values.shape[-1]), value)
    layer.rank.scatter_(2, free, layer.used[..., None])
    own = layer.clock if layer.pads is None else layer.clock - layer.pads
    layer.tok.scatter_(2, free, own.expand_as(free))
    rank, tok = layer.rank[..., :n], layer.tok[..., :n]
    q, k, v = query, layer.keys[:, :, :n], layer.values[:, :, :n]
    if not layer.turned:
        cos, sin = layer.rotary.table(N)
        here = layer.used[:1, :1].long()
        q = layer.rotary.turn(query, (_rows(cos, here), _rows(sin, here)))
        by_rank = rank.clamp_min(0).long() if layer.static else rank.long()
        k = layer.rotary.turn(k, (_rows(cos, by_rank), _rows(sin, by_rank)))
    mask = None
    if layer.pads is not None:
        mask = (tok >= 0)[..., None, :]
    elif layer.static:
        mask = (rank >= 0)[..., None, :]
    bias = None
    if how.window is not None or how.slopes is not None:
        in_cache = layer.policy.positions == "in_cache"
        position, at = (rank, layer.used[..., None]) if in_cache else (tok.clamp_min(0), own)
        if how.window is not None:
            near = (at - position < how.window)[..., None, :]
            mask = near if mask is None else mask & near
        bias = alibi(how.slopes, position, at)
    if layer.score is None:
        out = grouped_attention(q, k, v, mask=mask, bias=bias, scale=how.scale, sink=how.sink)
    else:
        weight = row_weight(layer.policy, 1, query)
        out, sums = attention_and_sums(q, k, v, mask=mask, bias=bias, scale=how.scale, weight=weight, sink=how.sink)
        layer.score.scatter_(2, free, 0.0)  # a slot's former tenant leaves its score behind
        add_scores(layer.policy, layer.score[..., :n], sums, 1)
    if layer.static:
        _settle(layer)
    elif layer.count == layer.capacity:
        victim = _victim(layer)
        gone = layer.rank.gather(2, victim)
        layer.rank -= (layer.rank > gone).int()
        layer.rank.scatter_(2, victim, -1)
        layer.tok.scatter_(2, victim, -1)
        layer.free.copy_(victim[..., 0])
    else:
        layer.free += 1
        layer.used += 1
    return out


def _rows(table: Tensor, index: Tensor) -> Tensor:
    """Rows of a table `[P, R/2]` by `index [.., n]`: `[.., n, R/2]`. One copy, faster than indexing with a tensor."""
    return table.index_select(0, index.flatten()).view(*index.shape, table.shape[1])


def _victim(layer: SlotLayer) -> Tensor:
    """`[rows, 1]` int64, the slot that is given up; what is invisible leaves first."""
    assert layer.capacity is not None  # noqa: S101 - only a bounded layer evicts
    policy = layer.policy
    victim = check_slot(policy, policy.victim(layer.score, layer.rank, layer.capacity), layer.rank)[..., None]
    if layer.pads is None:
        return victim
    oldest = (layer.rank == 0).int().argmax(dim=-1, keepdim=True)
    return torch.where(layer.tok.gather(2, oldest) < 0, oldest, victim)


def _settle(layer: SlotLayer) -> None:
    """Evict where the device finds the row full, else count up: the same program for both."""
    assert layer.capacity is not None  # noqa: S101 - only bounded layers are recorded
    full = (layer.used == layer.capacity)[..., None]
    victim = _victim(layer)
    gone = layer.rank.gather(2, victim)
    layer.rank -= (layer.rank > torch.where(full, gone, NEVER)).int()
    layer.rank.scatter_(2, victim, torch.where(full, -1, layer.rank.gather(2, victim)))
    layer.tok.scatter_(2, victim, torch.where(full, -1, layer.tok.gather(2, victim)))
    layer.free.copy_(torch.where(full, victim, layer.free[..., None] + 1)[..., 0])
    layer.used += (~full[..., 0]).int()


def row_weight(policy: KVPolicy, m: int, query: Tensor, real: Tensor | None = None) -> Tensor:
    """How much each of the last queries counts in the score: `[B or 1, 1, w]` float32.

    Args:
        policy: whose score.
        m: queries at hand.
        query: `[B, H, m, D]`.
        real: `[B, 1, m]` bool, False for queries that are padding; None: there are none.
    """
    if "last_row" in policy.needs:
        return torch.full((1, 1, 1), 1.0 / query.shape[1], device=query.device)
    w = min(m, policy.window) if "window_sum" in policy.needs else m
    weight = policy.decay ** torch.arange(w - 1, -1, -1, device=query.device, dtype=torch.float32)[None, None]
    return weight if real is None else weight * real[..., -w:]


def add_scores(policy: KVPolicy, score: Tensor, sums: Tensor, m: int) -> None:
    """Bring the score up to date, in place, with what m queries gave. Both `[B, H_kv, n]`."""
    if "last_row" in policy.needs:
        score.copy_(sums.sum(dim=1, keepdim=True).expand_as(score))
    elif "window_sum" in policy.needs:
        if m > 1:  # the queries before generation decide; single steps leave the scores alone
            score.copy_(sums)
    else:
        if policy.decay != 1.0:
            score *= policy.decay**m
        score += sums
