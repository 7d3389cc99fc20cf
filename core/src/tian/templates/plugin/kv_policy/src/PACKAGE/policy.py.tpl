"""The cache policy: keep the newest tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from tian.spec import KVPolicy

if TYPE_CHECKING:
    from torch import Tensor

    from @@package@@.options import @@Class@@Options


class @@Class@@(KVPolicy):
    """Keep the newest `budget` tokens of each layer and head: a sliding window."""

    needs: ClassVar[frozenset[str]] = frozenset()
    positions: Literal["original", "in_cache"] = "in_cache"
    chunk_invariant: ClassVar[bool] = False  # a chunk attends in full before anything is dropped

    def __init__(self, options: @@Class@@Options) -> None:
        self.budget = options.budget

    def capacity(self, layer: int, n_layers: int, prompt_len: int | None) -> int:
        """The budget, in every layer."""
        return self.budget

    def select(self, score: Tensor | None, token: Tensor, capacity: int) -> Tensor:
        """The newest `capacity` tokens: `token [B, H_kv, T]` int64 -> `[B, H_kv, K]` int64, ascending."""
        return token.topk(min(capacity, token.shape[-1]), dim=-1).indices.sort(dim=-1).values

    def victim(self, score: Tensor | None, rank: Tensor, capacity: int) -> Tensor:
        """The oldest slot: `rank [B, H_kv, C+1]` int32 -> `[B, H_kv]` int64. Without it a default asks `select`."""
        return (rank == 0).int().argmax(dim=-1)
