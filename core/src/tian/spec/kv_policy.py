"""Role kv_policy: which cached tokens a language model may forget."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from torch import Tensor


class KVPolicy(ABC):
    """Pure rules over one host-owned cache (`tian.hf.cache.SlotCache`); a policy never sees a T x T matrix.

    Contract:
        - capacity >= length equals having no policy (1e-5 on fp32 logits);
        - the newest token is always kept;
        - `victim` agrees with `select` on every state;
        - the result depends on the arguments alone: no state, no device reads in `victim`;
        - a chunk of tokens gives the same outputs as its pieces, or `chunk_invariant` is False.

    Shape letters: B batch, H_kv key/value heads, T tokens at hand, K kept, C capacity. For a policy that needs no
    score the host keeps one row of bookkeeping for all: B = H_kv = 1.

    Attributes:
        needs: the score the host accumulates in float32, at most one of `colsum` (attention received, summed over
            queries and grouped heads), `last_row` (attention from the newest query, mean over heads) and `window_sum`
            (attention from the last `window` queries of the last chunk of several tokens).
        decay: with `colsum`, what the score is multiplied by at each query before the new one is added.
        window: with `window_sum`, how many queries count.
        positions: `in_cache` (rank among the kept) or `original` (index in the stream): what rotary angles use.
        chunk_invariant: see above.
    """

    SPEC: ClassVar[int] = 1
    needs: ClassVar[frozenset[str]] = frozenset()
    positions: Literal["original", "in_cache"] = "in_cache"
    chunk_invariant: ClassVar[bool] = True
    decay: float = 1.0
    window: int = 32

    @abstractmethod
    def capacity(self, layer: int, n_layers: int, prompt_len: int | None) -> int | None:
        """Tokens kept after eviction in `layer` (0-based) of `n_layers`; None: unbounded.

        Args:
            layer: which layer.
            n_layers: how many there are.
            prompt_len: tokens of the first chunk, None when not known.
        """

    @abstractmethod
    def select(self, score: Tensor | None, token: Tensor, capacity: int) -> Tensor:
        """Which of T tokens survive a prefill or a chunk; called only when T > capacity.

        Args:
            score: `[B, H_kv, T]` float32, or None without `needs`.
            token: `[B, H_kv, T]` int64, index in the stream, ascending; larger is newer.
            capacity: C.

        Returns:
            `[B, H_kv, K]` int64 indices into T, ascending, unique, newest kept, K <= C. The host raises ContractError
            on anything else.
        """

    def victim(self, score: Tensor | None, rank: Tensor, capacity: int) -> Tensor:
        """The slot to free after one step, when C + 1 slots are full.

        This default asks `select` with the slots in order of rank, which any policy gets for free; override it with
        elementwise code for speed. It needs `select` to keep exactly C of C + 1 tokens.

        Args:
            score: `[B, H_kv, C+1]` float32 by slot, or None.
            rank: `[B, H_kv, C+1]` int32, order among the kept tokens by slot, a permutation of 0..C.
            capacity: C.

        Returns:
            `[B, H_kv]` int64 slot indices. The host looks at shape and dtype in every step, at the values only once
            per layer and capacity, before the first step: reading them back would stall the device.
        """
        order = rank.argsort(dim=-1)
        by_rank = None if score is None else score.gather(-1, order)
        token = rank.gather(-1, order).long()
        keep = self.select(by_rank, token, capacity)
        gone = token.new_ones(token.shape).scatter(-1, keep, 0).argmax(dim=-1, keepdim=True)
        return order.gather(-1, gone).squeeze(-1)
