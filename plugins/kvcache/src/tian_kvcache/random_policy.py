"""The random baseline: which token goes is drawn, but the draw is a pure function of what the cache holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from tian.spec.victims import lowest_slot
from tian_kvcache.heavy import H2O, given
from tian_kvcache.ranking import keep_all, keep_highest, with_recent

if TYPE_CHECKING:
    from torch import Tensor

    from tian_kvcache.policy_options import RandomOptions

# Odd 64-bit constants of a multiplicative hash, as signed numbers; products wrap.
_A, _B, _C = 0x1E3779B97F4A7C15, 0x3F58476D1CE4E5B9, 0x14D049BB133111EB


def _mix(x: Tensor) -> Tensor:
    """Scramble int64 numbers elementwise."""
    x = (x ^ (x >> 30)) * _B
    x = (x ^ (x >> 27)) * _C
    return x ^ (x >> 31)


def draw(score: Tensor, rank: Tensor, seed: int) -> Tensor:
    """A number in -2^52..2^52 for each slot, the same whatever the order of the slots.

    Args:
        score: `[B, H_kv, N]` float; the bits of all of them are what makes steps, layers and heads differ.
        rank: `[B, H_kv, N]` int32; empty slots have -1 and do not count.
        seed: of the draw.

    Returns:
        `[B, H_kv, N]` float64.
    """
    bits = score.float().contiguous().view(torch.int32).long()
    each = _mix(bits * _A + (rank.long() + 1) * _C + seed).masked_fill(rank < 0, 0)
    state = each.sum(dim=-1, keepdim=True)  # int64 sums wrap and commute: slot order does not matter
    return (_mix(state + (rank.long() + 1) * _A) >> 11).double()


class Random(H2O):
    """Any token but the sinks and the newest may go, with equal chances. Source: baseline, ours.

    A policy keeps no state and reads nothing back from the device, so the draw hashes the seed with the scores at hand:
    equal inputs give equal choices. Another number of threads may change the last bit of a score, hence the choices.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"colsum"})

    def __init__(self, options: RandomOptions) -> None:
        self.budget = options.budget
        self.layers = options.layers
        self.positions = options.positions
        self.sinks = options.sinks
        self.seed = options.seed
        self.heavy, self.recent = 1, 0

    def select(self, score: Tensor | None, token: Tensor, capacity: int) -> Tensor:
        """Sinks, the newest, and a draw of the others."""
        score, length = given(score, self), token.shape[-1]
        if length <= capacity:
            return keep_all(token)
        rank = torch.arange(length, device=token.device, dtype=torch.int32).expand_as(token)
        drawn = draw(score, rank, self.seed)[..., : length - 1]
        kept = keep_highest(drawn, sinks=self.sinks, heavy=capacity - self.sinks - 1)
        return with_recent(kept, length=length, recent=1)

    def victim_ranks(self, capacity: int) -> None:
        """None: the draw decides."""
        return

    def victim(self, score: Tensor | None, rank: Tensor, capacity: int) -> Tensor:
        """The lowest draw."""
        drawn = draw(given(score, self), rank, self.seed)
        return lowest_slot(drawn, rank, first=self.sinks, last=capacity - 1)
