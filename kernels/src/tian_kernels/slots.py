"""The state of a slot cache, and the rule that names its victim.

A row of bookkeeping has N = C + 1 slots. Between steps at least one slot is empty: `free`, where the next token goes.
While a row fills, `free == count`; once it holds C tokens, each step evicts one and its slot becomes `free`. Slot order
means nothing; `rank` orders the kept tokens by age and is their position.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Slots:
    """Tensors of one layer, updated in place; all on one device. Nothing in a step reads them back to the host.

    With scores every key/value head evicts for itself: `[B, H_kv]` rows. Without, rows may be shared: B_r is B or 1,
    H_r is H_kv or 1.
    """

    keys: Tensor  # [B, H_kv, N, D], unrotated
    values: Tensor  # [B, H_kv, N, D]
    rank: Tensor  # [B_r, H_r, N] int32, 0 the oldest; -1: empty slot
    free: Tensor  # [B_r, H_r] int32, slot of the next token
    count: Tensor  # [B_r, H_r] int32, tokens kept, 0..C
    score: Tensor | None = None  # [B, H_kv, N] float32, attention received so far; None: not wanted

    @classmethod
    def empty(
        cls, rows: tuple[int, int], like: Tensor, *, capacity: int, shared: tuple[int, int] | None = None
    ) -> Slots:
        """An empty cache.

        Args:
            rows: B, H_kv.
            like: any tensor `[..., D]` of the wanted dtype and device.
            capacity: C, tokens kept.
            shared: None for scores and rows of bookkeeping per head; else (B_r, H_r), without scores.
        """
        N = capacity + 1
        book = rows if shared is None else shared
        return cls(
            keys=like.new_zeros(*rows, N, like.shape[-1]),
            values=like.new_zeros(*rows, N, like.shape[-1]),
            rank=torch.full((*book, N), -1, dtype=torch.int32, device=like.device),
            free=torch.zeros(book, dtype=torch.int32, device=like.device),
            count=torch.zeros(book, dtype=torch.int32, device=like.device),
            score=torch.zeros((*rows, N), device=like.device) if shared is None else None,
        )

    def check(self) -> None:
        """Refuse shapes and dtypes that do not belong together. Contents are not read.

        Raises:
            ValueError: naming the tensor, what it should be and what it is.
        """
        B, H_kv, N, D = self.keys.shape
        book = tuple(self.rank.shape[:2])
        if book[0] not in (1, B) or book[1] not in (1, H_kv) or (self.score is not None and book != (B, H_kv)):
            want = f"({B}, {H_kv})" if self.score is not None else f"({B} or 1, {H_kv} or 1)"
            raise ValueError(f"slots.rank must have {want} rows, got {book}")
        for name, shape, dtype in (
            ("values", (B, H_kv, N, D), self.keys.dtype),
            ("rank", (*book, N), torch.int32),
            ("free", book, torch.int32),
            ("count", book, torch.int32),
            ("score", (B, H_kv, N), torch.float32),
        ):
            x = getattr(self, name)
            if x is not None and (tuple(x.shape) != shape or x.dtype != dtype):
                raise ValueError(f"slots.{name} must be {shape} {dtype}, got {tuple(x.shape)} {x.dtype}")

    def check_token(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        """Refuse a new token that does not fit.

        Raises:
            ValueError: naming the tensor, what it should be and what it is.
        """
        B, H_kv, _, D = self.keys.shape
        if q.dim() != 3 or q.shape[0] != B or q.shape[2] != D or q.shape[1] % H_kv:
            raise ValueError(f"q must be [{B}, a multiple of {H_kv}, {D}], got {tuple(q.shape)}")
        for name, x in (("k", k), ("v", v)):
            if x.shape != (B, H_kv, D):
                raise ValueError(f"{name} must be {(B, H_kv, D)}, got {tuple(x.shape)}")
        if not q.dtype == k.dtype == v.dtype == self.keys.dtype:
            raise ValueError(
                f"q, k, v and slots need one dtype, got {q.dtype}, {k.dtype}, {v.dtype}, {self.keys.dtype}"
            )


@dataclass(frozen=True)
class Victim:
    """Which token leaves a full row: the lowest score among ranks first..last, the oldest of equals.

    Ranks are those after the new token has got rank C, so C + 1 of them. `first == last` names the victim by age alone
    and needs no scores: 0 is a window, S keeps S sinks. Heavy hitters with R recent tokens: 0..C-R. A score that is not
    a number counts as the lowest.

    Source: arXiv 2309.17453 section 3.2 (age), arXiv 2306.14048 algorithm 1 (score); the decay is ours.
    """

    first: int  # oldest rank that may go, >= 0
    last: int  # newest rank that may go, < C: the new token always stays
    decay: float = 1.0  # factor on every score before a step's attention is added

    def check(self, slots: Slots) -> None:
        """Refuse a range that does not fit the slots.

        Raises:
            ValueError: empty range, the newest token in it, a choice without scores, a negative decay.
        """
        capacity = slots.keys.shape[2] - 1
        if not 0 <= self.first <= self.last < capacity:
            raise ValueError(
                f"victim ranks must satisfy 0 <= first <= last < capacity, got first={self.first}, last={self.last}, "
                f"capacity={capacity}"
            )
        if self.first != self.last and slots.score is None:
            raise ValueError(f"a victim among ranks {self.first}..{self.last} needs slots.score, which is None")
        if not self.decay >= 0:
            raise ValueError(f"victim decay must be >= 0, got {self.decay}")


def settle_reference(slots: Slots, victim: Victim) -> None:
    """After attention: evict from full rows, count the others up. In place, no host sync.

    `slots.rank` must already hold `count` at `free`, and the scores this step's attention.
    """
    rank, capacity = slots.rank, slots.rank.shape[-1] - 1
    eligible = (rank >= victim.first) & (rank <= victim.last)
    key = torch.zeros_like(rank, dtype=torch.float32) if slots.score is None else slots.score
    key = key.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf).masked_fill(~eligible, torch.inf)
    lowest = eligible & (key == key.amin(dim=-1, keepdim=True))
    gone = rank.masked_fill(~lowest, torch.iinfo(torch.int32).max).argmin(dim=-1, keepdim=True)
    kept = (rank - (rank > rank.gather(-1, gone)).int()).scatter(-1, gone, -1)
    full = slots.count == capacity
    rank.copy_(torch.where(full[..., None], kept, rank))
    slots.free.copy_(torch.where(full, gone[..., 0].int(), slots.free + 1))
    slots.count.add_((~full).int())
