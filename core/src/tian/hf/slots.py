"""SlotLayer: one layer of the slot cache. A layer holds C + 1 slots; a step writes, attends, scores and evicts in place.

A step writes the new key into the free slot, attends over all slots, adds to the scores if the policy asks for them,
and lets the policy name the victim, whose slot becomes the free one. No tensor is concatenated, gathered or reallocated
in the steady state, and nothing is read back to the host. Slot order means nothing; `rank` (order among kept tokens) is
the position inside the cache.

Rows of a left-padded batch hold invisible entries (`tok` is -1) of the lowest ranks, which leave first. Only relative
positions matter to rotary and ALiBi models, so that the ranks of a padded row are its own ranks plus a constant.

Source: ours; equal to the papers' "append, attend, evict to C" (StreamingLLM arXiv 2309.17453 section 3.2, H2O arXiv
2306.14048 algorithm 1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import CacheLayerMixin

from tian.errors import InvalidInput
from tian.hf.attention import attention_and_sums, grouped_attention
from tian.spec.contract import check_kept, check_slot, check_victim

if TYPE_CHECKING:
    from torch import Tensor

    from tian.hf.rotary import NoRotary, RotaryTable
    from tian.spec import KVPolicy

FIRST_SLOTS = 64  # what an unbounded layer starts with; it doubles when full
TENSORS = ("keys", "values", "rank", "tok", "score", "free", "pads")


class SlotLayer(CacheLayerMixin):
    """One layer of the cache.

    Bookkeeping tensors have shape `[B, H_kv, N]` if the policy reads scores, `[B, 1, N]` for a padded batch without
    scores, else `[1, 1, N]`: there every row and head makes the same choice.
    """

    def __init__(self, policy: KVPolicy, layer: int, n_layers: int, rotary: RotaryTable | NoRotary) -> None:
        super().__init__()
        self.policy = policy
        self.layer = layer
        self.n_layers = n_layers
        self.rotary = rotary
        self.capacity: int | None = None
        self.count = 0  # slots in use, invisible ones included; known to the host without asking the device
        self.seen = 0  # tokens that ever entered, padding included
        self.evicted = 0  # `seen` at the last eviction: what came later can still be cropped
        self.prompt_len = 0  # tokens of the first chunk
        self.tried: int | None = None  # capacity at which the policy was last held to its contract
        self.pending: tuple[Tensor, Tensor] | None = None
        self.pads: Tensor | None = None  # [B, 1, 1] int64 padding tokens in front of each row; None: there are none
        self.rank: Tensor
        self.tok: Tensor
        self.free: Tensor
        self.score: Tensor | None = None

    # -- what transformers asks of a layer --------------------------------------------------------------------------

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate slots for the batch size, heads, dtype and device of the first keys."""
        self.prompt_len = key_states.shape[2]
        self.capacity = self.policy.capacity(self.layer, self.n_layers, self.prompt_len or None)
        if self.capacity is not None and self.capacity < 1:
            raise InvalidInput(
                f"kv policy capacity must be >= 1 token, got {self.capacity} in layer {self.layer}", where="kv"
            )
        slots = FIRST_SLOTS if self.capacity is None else self.capacity + 1
        B, kv_heads, _, D = key_states.shape
        rows = (B, kv_heads) if self.policy.needs else (1, 1) if self.pads is None else (B, 1)
        self.keys = key_states.new_zeros(B, kv_heads, slots, D)
        self.values = value_states.new_zeros(B, kv_heads, slots, value_states.shape[-1])
        device = key_states.device
        self.rank = torch.full((*rows, slots), -1, dtype=torch.int32, device=device)
        self.tok = torch.full((*rows, slots), -1, dtype=torch.int64, device=device)
        self.free = torch.zeros((*rows, 1), dtype=torch.int64, device=device)
        self.score = torch.zeros((*rows, slots), device=device) if self.policy.needs else None
        self._try_policy(rows, device)
        self.is_initialized = True

    def _try_policy(self, rows: tuple[int, int], device: torch.device) -> None:
        """Hold the policy to its contract once, before the first step: a step itself must not read values back."""
        if self.capacity is None or self.capacity == self.tried:
            return
        n = self.capacity + 1
        token = torch.arange(n, device=device).expand(*rows, n)
        score = (n - token).float() if self.policy.needs else None  # the newest is the lightest, and must stay
        check_kept(self.policy, self.policy.select(score, token, self.capacity), rows=rows, n=n, capacity=self.capacity)
        rank = token.int()
        check_victim(self.policy, self.policy.victim(score, rank, self.capacity), rank)
        self.tried = self.capacity

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        """Take the new keys and values; they enter the slots in `attend`, which runs right after."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if key_states.dtype != self.keys.dtype or key_states.shape[0] != self.keys.shape[0]:
            raise InvalidInput(
                f"the cache holds batch {self.keys.shape[0]} in {self.keys.dtype}, got batch {key_states.shape[0]} in "
                f"{key_states.dtype}",
                hint="use a fresh cache (cache.reset()) after changing batch size or dtype",
            )
        self.pending = (key_states, value_states)
        return key_states, value_states

    def get_seq_length(self) -> int:
        """Tokens seen so far, padding included."""
        return self.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """The mask is made in `attend`; this only satisfies the caller."""
        return query_length, 0

    def get_max_length(self) -> int:
        """-1: the stream has no maximum."""
        return -1

    def reset(self) -> None:
        """Forget everything; equal to a fresh layer."""
        self.is_initialized = False
        self.score = self.pending = self.pads = None
        self.count = self.seen = self.evicted = 0

    def crop(self, max_length: int) -> None:
        """Take the newest tokens back, as speculative decoding does, down to `max_length` tokens seen.

        Args:
            max_length: tokens that stay seen; negative: how many to take back.

        Raises:
            InvalidInput: something was evicted for a token that would be taken back, or the policy reads scores, from
                which a query's share cannot be taken out again.
        """
        target = self.seen + max_length if max_length < 0 else max_length
        if target >= self.seen:
            return
        if self.policy.needs or target < self.evicted:
            why = "the policy's scores already count them" if self.policy.needs else "older ones were evicted for them"
            raise InvalidInput(
                f"the cache cannot go back from {self.seen} to {target} tokens: {why}",
                where="kv",
                hint="generate without assistant/speculative decoding, or use a larger capacity",
            )
        gone = self.seen - target
        self.count -= gone
        self.seen = target
        dropped = self.rank >= self.count
        self.rank.masked_fill_(dropped, -1)
        self.tok.masked_fill_(dropped, -1)
        self.free.fill_(self.count)  # nothing was evicted since the slots were last in order

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Row i continues what row `beam_idx[i]` held (beam search). `beam_idx [B]` int64."""
        if not self.is_initialized:
            return
        for name in TENSORS:
            x = getattr(self, name)
            if x is not None and (x.shape[0] > 1 or self.keys.shape[0] == 1):
                setattr(self, name, x.index_select(0, beam_idx.to(x.device)))

    # -- attention --------------------------------------------------------------------------------------------------

    def attend(self, query: Tensor, *, scale: float, window: int | None = None, slopes: Tensor | None = None) -> Tensor:
        """Write the pending tokens, attend, evict.

        Args:
            query: `[B, H, m, D]`, unrotated.
            scale: factor of the logits.
            window: the model's own sliding window in tokens, or None.
            slopes: `[H]` float32 ALiBi slopes: -slope * distance is added to the logits; or None.

        Returns:
            `[B, H, m, D]`.

        Raises:
            ContractError: the policy broke its contract.
        """
        assert self.pending is not None  # noqa: S101 - update() ran just before
        key, value = self.pending
        self.pending = None
        if query.shape[2] == 1:
            return self._step(query, key, value, scale=scale, window=window, slopes=slopes)
        return self._chunk(query, key, value, scale=scale, window=window, slopes=slopes)

    def _step(
        self, query: Tensor, key: Tensor, value: Tensor, *, scale: float, window: int | None, slopes: Tensor | None
    ) -> Tensor:
        if self.count == self.keys.shape[2]:
            self._grow()
        n = self.count + 1
        B, kv_heads, _, D = self.keys.shape
        where = self.free[..., None].expand(B, kv_heads, 1, 1)
        self.keys.scatter_(2, where.expand(-1, -1, -1, D), key)
        self.values.scatter_(2, where.expand(-1, -1, -1, self.values.shape[-1]), value)
        self.rank.scatter_(2, self.free, self.count)
        if self.pads is None:
            self.tok.scatter_(2, self.free, self.seen)
        else:
            self.tok.scatter_(2, self.free, (self.seen - self.pads).expand_as(self.free))
        tok = self.tok[..., :n]
        in_cache = self.policy.positions == "in_cache"
        position = self.rank[..., :n] if in_cache else tok.clamp_min(0)
        here = self.count if in_cache else self.seen
        self.rotary.ensure(here + 1)
        at: Tensor | int = here if in_cache or self.pads is None else (here - self.pads)
        q = self.rotary.rotate(query, torch.full((1, 1, 1), here, device=query.device) if isinstance(at, int) else at)
        k = self.rotary.rotate(self.keys[:, :, :n], position)
        mask = None if self.pads is None else (tok >= 0)[..., None, :]
        if window is not None and here >= window:
            near = (at - position < window)[..., None, :]
            mask = near if mask is None else mask & near
        bias = None if slopes is None else slopes[:, None, None] * (position - at)[..., None, :]
        v = self.values[:, :, :n]
        if self.score is None:
            out = grouped_attention(q, k, v, mask=mask, bias=bias, scale=scale)
        else:
            weight = self._row_weight(1, query)
            out, sums = attention_and_sums(q, k, v, mask=mask, bias=bias, scale=scale, weight=weight)
            self.score.scatter_(2, self.free, 0.0)  # a slot's former tenant leaves its score behind
            self._add(self.score[..., :n], sums, 1)
        self.seen += 1
        if self.capacity is None or n <= self.capacity:
            self.free = self.free + 1
            self.count = n
        else:
            self._evict(self.capacity)
        return out

    def _evict(self, capacity: int) -> None:
        self.evicted = self.seen
        victim = check_slot(self.policy, self.policy.victim(self.score, self.rank, capacity), self.rank)[..., None]
        if self.pads is not None:  # what is invisible leaves first
            oldest = (self.rank == 0).int().argmax(dim=-1, keepdim=True)
            victim = torch.where(self.tok.gather(2, oldest) < 0, oldest, victim)
        gone = self.rank.gather(2, victim)
        self.rank -= (self.rank > gone).int()
        self.rank.scatter_(2, victim, -1)
        self.tok.scatter_(2, victim, -1)
        self.free = victim

    def _row_weight(self, m: int, query: Tensor, real: Tensor | None = None) -> Tensor:
        """How much each of the last queries counts in the score: `[B or 1, 1, w]` float32.

        `real` is `[B, 1, m]` bool, False for queries that are padding.
        """
        if "last_row" in self.policy.needs:
            return torch.full((1, 1, 1), 1.0 / query.shape[1], device=query.device)
        w = min(m, self.policy.window) if "window_sum" in self.policy.needs else m
        weight = self.policy.decay ** torch.arange(w - 1, -1, -1, device=query.device, dtype=torch.float32)[None, None]
        return weight if real is None else weight * real[..., -w:]

    def _add(self, score: Tensor, sums: Tensor, m: int) -> None:
        """Bring the score up to date with what m queries gave. Both `[B, H_kv, n]`."""
        if "last_row" in self.policy.needs:
            score.copy_(sums.sum(dim=1, keepdim=True).expand_as(score))
        elif "window_sum" in self.policy.needs:
            if m > 1:  # the queries before generation decide; single steps leave the scores alone
                score.copy_(sums)
        else:
            if self.policy.decay != 1.0:
                score *= self.policy.decay**m
            score += sums

    def _chunk(
        self, query: Tensor, key: Tensor, value: Tensor, *, scale: float, window: int | None, slopes: Tensor | None
    ) -> Tensor:
        """M > 1 tokens: attend over the kept and the new ones in full, then evict once (the papers' prefill)."""
        m = query.shape[2]
        rows = self.rank.shape[:2]
        device = query.device
        n = self.count + m
        new = torch.arange(self.seen, self.seen + m, device=device).expand(*rows, m)
        if self.pads is not None:
            new = (new - self.pads).clamp_min(-1)
        if self.count:
            key = torch.cat([self.in_order(self.keys), key], dim=2)
            value = torch.cat([self.in_order(self.values), value], dim=2)
            tok = torch.cat([self.in_order(self.tok), new], dim=2)
        else:
            tok = new
        order = torch.arange(n, device=device)
        in_cache = self.policy.positions == "in_cache"
        position = order.expand(1, 1, n) if in_cache else tok.clamp_min(0)
        self.rotary.ensure(n if in_cache else self.seen + m)
        at = order[-m:].expand(1, 1, m) if in_cache else new.clamp_min(0)[:, :1]
        q = self.rotary.rotate(query, at)
        k = self.rotary.rotate(key, position)
        mask = order <= order[-m:, None]
        if self.pads is not None:  # padding sees itself only, so that its rows stay finite
            mask = (mask & (tok >= 0)[..., None, :]) | (order == order[-m:, None])
        if window is not None:
            mask = mask & (at[..., :, None] - position[..., None, :] < window)
        bias = None if slopes is None else slopes[:, None, None] * (position[..., None, :] - at[..., :, None])
        score = None
        if self.score is None:
            out = grouped_attention(q, k, value, mask=mask, bias=bias, scale=scale)
        else:
            real = None if self.pads is None else (new >= 0)[:, :1]
            weight = self._row_weight(m, query, real)
            out, sums = attention_and_sums(q, k, value, mask=mask, bias=bias, scale=scale, weight=weight)
            old = self.in_order(self.score) if self.count else self.score[..., :0]
            score = torch.cat([old, self.score.new_zeros(*rows, m)], dim=2)
            self._add(score, sums, m)
        self.seen += m
        if self.capacity is not None and n > self.capacity:
            keep = self._select(score, tok, self.capacity)
            key, value = pick(key, keep), pick(value, keep)
            tok = tok.gather(2, keep.clamp_min(0)).masked_fill(keep < 0, -1)
            score = score.gather(2, keep.clamp_min(0)) if score is not None else None
            self.evicted = self.seen
        self._store(key, value, tok, score)
        return out

    def _select(self, score: Tensor | None, tok: Tensor, capacity: int) -> Tensor:
        """What the policy keeps of a chunk, `[rows, K]`; -1 in front for entries of a padded row that stay invisible."""
        rows, n = tok.shape[:2], tok.shape[2]
        if self.pads is None:
            keep = self.policy.select(score, tok, capacity)
            check_kept(self.policy, keep, rows=rows, n=n, capacity=capacity)
            return keep
        hidden = (tok[:, 0] < 0).sum(dim=-1).tolist()
        parts: list[Tensor] = []
        for row, skip in enumerate(hidden):  # each row as if it were alone
            own, length = slice(row, row + 1), n - skip
            if length <= capacity:
                keep = torch.arange(length, device=tok.device).expand(1, rows[1], length)
            else:
                mine = None if score is None else score[own, :, skip:]
                keep = self.policy.select(mine, tok[own, :, skip:], capacity)
                check_kept(self.policy, keep, rows=(1, rows[1]), n=length, capacity=capacity)
            parts.append(keep + skip)
        longest = max(p.shape[-1] for p in parts)
        return torch.cat([torch.nn.functional.pad(p, (longest - p.shape[-1], 0), value=-1) for p in parts])

    def in_order(self, x: Tensor) -> Tensor:
        """The entries in use of a slot tensor, oldest first."""
        by_rank = self.rank.masked_fill(self.rank < 0, torch.iinfo(torch.int32).max).argsort(dim=-1)
        return pick(x, by_rank[..., : self.count])

    def _store(self, key: Tensor, value: Tensor, tok: Tensor, score: Tensor | None) -> None:
        """Refill the slots 0..K-1 in order."""
        self.count = count = key.shape[2]
        while count >= self.keys.shape[2] and self.capacity is None:
            self._grow()
        self.keys[:, :, :count] = key
        self.values[:, :, :count] = value
        self.rank.fill_(-1)
        self.tok.fill_(-1)
        self.rank[..., :count] = torch.arange(count, device=key.device, dtype=torch.int32)
        self.tok[..., :count] = tok
        if self.score is not None and score is not None:
            self.score[..., :count] = score
        self.free = torch.full_like(self.free, count)

    def _grow(self) -> None:
        """Double the slots of an unbounded layer."""
        for name in ("keys", "values", "rank", "tok", "score"):
            x = getattr(self, name)
            if x is not None:
                fill = -1 if name in ("rank", "tok") else 0
                setattr(self, name, torch.cat([x, torch.full_like(x, fill)], dim=2))

    # -- inspection -------------------------------------------------------------------------------------------------

    def kept(self) -> Tensor:
        """`[B or 1, H_kv or 1, n]` int64: absolute indices of the kept tokens, oldest first; -1 for padding."""
        return self.in_order(self.tok) if self.is_initialized else torch.empty(1, 1, 0, dtype=torch.int64)

    def nbytes(self) -> int:
        """Allocated bytes: keys, values and bookkeeping."""
        found = [getattr(self, name) for name in TENSORS] if self.is_initialized else []
        return sum(x.nbytes for x in found if x is not None)


def pick(x: Tensor, index: Tensor) -> Tensor:
    """Gather along the slot dimension of `[B, H_kv, N]` or `[B, H_kv, N, D]`, index rows possibly shared; -1 is 0."""
    index = index.clamp_min(0).expand(*x.shape[:2], -1)
    return x.gather(2, index[..., None].expand(-1, -1, -1, x.shape[-1]) if x.dim() == 4 else index)
