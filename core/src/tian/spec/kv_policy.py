"""Role kv_policy: which cached tokens a language model may forget."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

from tian.spec.victims import lowest_slot

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
        contiguous: what is kept is always the first few tokens, as many as `victim_ranks` spares, and the newest. The
            host then rotates each key once, when it comes, instead of all of them in every step.
    """

    SPEC: ClassVar[int] = 1
    needs: ClassVar[frozenset[str]] = frozenset()
    positions: Literal["original", "in_cache"] = "in_cache"
    chunk_invariant: ClassVar[bool] = True
    contiguous: ClassVar[bool] = False
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

    def victim_ranks(self, capacity: int) -> tuple[int, int] | None:
        """The ranks among which the lowest score goes, the oldest of equals: (first, last), 0 <= first <= last < C.

        A policy that has such a rule needs no `victim` and runs in the fused kernels: `(0, 0)` is a window, `(S, S)`
        keeps S sinks, `(0, C - R)` protects the R newest.

        Args:
            capacity: C; the new token has rank C.

        Returns:
            The range, or None: `victim` decides otherwise.
        """
        return None

    def victim(self, score: Tensor | None, rank: Tensor, capacity: int) -> Tensor:
        """The slot to free after one step, when C + 1 slots are full.

        This default follows `victim_ranks`; without them it asks `select` with the slots in order of rank, which any
        policy gets for free, and which needs `select` to keep exactly C of C + 1 tokens. Override it with elementwise
        code for speed.

        Args:
            score: `[B, H_kv, C+1]` float32 by slot, or None.
            rank: `[B, H_kv, C+1]` int32, order among the kept tokens by slot, a permutation of 0..C.
            capacity: C.

        Returns:
            `[B, H_kv]` int64 slot indices. The host looks at shape and dtype in every step, at the values only once
            per layer and capacity, before the first step: reading them back would stall the device.
        """
        ranks = self.victim_ranks(capacity)
        if ranks is not None:
            return lowest_slot(score, rank, first=ranks[0], last=ranks[1])
        order = rank.argsort(dim=-1)
        by_rank = None if score is None else score.gather(-1, order)
        token = rank.gather(-1, order).long()
        keep = self.select(by_rank, token, capacity)
        gone = token.new_ones(token.shape).scatter(-1, keep, 0).argmax(dim=-1, keepdim=True)
        return order.gather(-1, gone).squeeze(-1)
