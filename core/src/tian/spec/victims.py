"""Who goes: the lowest score within a range of ranks, the oldest of equals. Elementwise, nothing is read back.

NaN counts as the lowest score, so that a broken score evicts an old token and never leaves the range.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

INF = float("inf")
NEVER = 2**31 - 1  # above every rank


def lowest_slot(score: Tensor | None, rank: Tensor, *, first: int, last: int) -> Tensor:
    """The slot with the lowest score among ranks `first`..`last`; equals: the smallest rank.

    Args:
        score: `[B, H_kv, N]` float, by slot; None: all equal, so that the token of rank `first` goes.
        rank: `[B, H_kv, N]` int32, by slot; -1: empty.
        first: lowest rank that may go.
        last: highest rank that may go, >= first.

    Returns:
        `[B, H_kv]` int64 slots.

    Example:
        >>> import torch
        >>> lowest_slot(torch.tensor([[[5.0, 1.0, 1.0, 0.0]]]), torch.tensor([[[0, 2, 1, 3]]]), first=0, last=2).item()
        2
    """
    if score is None or first == last:
        return (rank == first).int().argmax(dim=-1)
    value = ordered(score)
    eligible = (rank >= first) & (rank <= last)
    least = value.masked_fill(~eligible, INF).amin(dim=-1, keepdim=True)
    tied = eligible & (value <= least)
    return rank.masked_fill(~tied, NEVER).argmin(dim=-1)


def ordered(score: Tensor) -> Tensor:
    """Scores that compare: NaN is the lowest."""
    return score.nan_to_num(nan=-INF, posinf=INF, neginf=-INF)
