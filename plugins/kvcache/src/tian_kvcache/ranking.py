"""Which tokens of a chunk stay: the highest scores, the newer of equals, and the most recent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tian.spec.victims import ordered

if TYPE_CHECKING:
    from torch import Tensor


def keep_highest(score: Tensor, *, sinks: int, heavy: int) -> Tensor:
    """First `sinks`, the `heavy` highest scores of those before the recent ones, and the recent ones.

    Args:
        score: `[B, H_kv, N]` float of the tokens that may be dropped or are sinks, oldest first; the recent tokens are
            not among them.
        sinks: first tokens kept whatever their score.
        heavy: how many of the others are kept; equals: the newer stay.

    Returns:
        `[B, H_kv, sinks + heavy]` int64, ascending.
    """
    old = ordered(score)[..., sinks:]
    order = old.sort(dim=-1, stable=True).indices[..., old.shape[-1] - heavy :] + sinks
    first = torch.arange(sinks, device=score.device).expand(*score.shape[:2], sinks)
    return torch.cat([first, order.sort(dim=-1).values], dim=-1)


def with_recent(kept: Tensor, *, length: int, recent: int) -> Tensor:
    """`kept` `[B, H_kv, K]` followed by the indices of the last `recent` of `length` tokens."""
    tail = torch.arange(length - recent, length, device=kept.device).expand(*kept.shape[:2], recent)
    return torch.cat([kept, tail], dim=-1)


def keep_all(token: Tensor) -> Tensor:
    """Every index, `[B, H_kv, T]` int64 for `token [B, H_kv, T]`."""
    return torch.arange(token.shape[-1], device=token.device).expand_as(token)


def drop_one(token: Tensor, index: int) -> Tensor:
    """Every index but `index`, `[B, H_kv, T-1]` int64 for `token [B, H_kv, T]`."""
    every = torch.arange(token.shape[-1], device=token.device)
    return every[every != index].expand(*token.shape[:2], -1)
