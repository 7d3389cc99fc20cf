"""SlotCache: the one cache host. It owns keys, values, ranks and scores; a KVPolicy only says what to drop.

A layer holds C + 1 slots. A step writes the new key into the free slot, attends over all slots, adds to the scores if
the policy asks for them, and lets the policy name the victim, whose slot becomes the free one. No tensor is
concatenated, gathered or reallocated in the steady state, and nothing is read back to the host. Slot order means
nothing; `rank` (order among kept tokens) is the position inside the cache.

Source: ours; equal to the papers' "append, attend, evict to C" (StreamingLLM arXiv 2309.17453 section 3.2, H2O arXiv
2306.14048 algorithm 1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from tian.errors import InvalidInput
from tian.hf.attention import grouped_attention
from tian.spec.contract import check_kept, check_slot, check_victim

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from tian.hf.rotary import RotaryTable
    from tian.spec import KVPolicy

FIRST_SLOTS = 64  # what an unbounded layer starts with; it doubles when full
_TENSORS = ("keys", "values", "rank", "tok", "score", "free")


class SlotLayer(CacheLayerMixin):
    """One layer of the cache.

    Bookkeeping tensors have shape `[B, H_kv, N]` if the policy reads scores, else `[1, 1, N]`: without scores every
    row and head makes the same choice.
    """

    def __init__(self, policy: KVPolicy, layer: int, n_layers: int, rotary: RotaryTable) -> None:
        super().__init__()
        self.policy = policy
        self.layer = layer
        self.n_layers = n_layers
        self.rotary = rotary
        self.capacity: int | None = None
        self.count = 0  # tokens kept; known to the host without asking the device
        self.seen = 0  # tokens that ever entered
        self.prompt_len = 0  # tokens of the first chunk
        self.tried: int | None = None  # capacity at which the policy was last held to its contract
        self.pending: tuple[Tensor, Tensor] | None = None
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
        rows = (B, kv_heads) if self.policy.needs else (1, 1)
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
        """Tokens seen so far."""
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
        self.score = self.pending = None
        self.count = self.seen = 0

    def crop(self, *_args: Any) -> None:
        """Refused: an evicted token cannot come back."""
        raise InvalidInput("this cache cannot be cropped", hint="generate without assistant/speculative decoding")

    def reorder_cache(self, *_args: Any) -> None:
        """Refused for now: beams would need their bookkeeping reordered as well."""
        raise InvalidInput("beam search is not supported by this cache", hint="use num_beams=1")

    # -- attention --------------------------------------------------------------------------------------------------

    def attend(self, query: Tensor, *, scale: float, window: int | None) -> Tensor:
        """Write the pending tokens, attend, evict.

        Args:
            query: `[B, H, m, D]`, unrotated.
            scale: factor of the logits.
            window: the model's own sliding window in tokens, or None.

        Returns:
            `[B, H, m, D]`.

        Raises:
            ContractError: the policy broke its contract.
        """
        assert self.pending is not None  # noqa: S101 - update() ran just before
        key, value = self.pending
        self.pending = None
        if query.shape[2] == 1:
            return self._step(query, key, value, scale=scale, window=window)
        return self._chunk(query, key, value, scale=scale, window=window)

    def _step(self, query: Tensor, key: Tensor, value: Tensor, *, scale: float, window: int | None) -> Tensor:
        if self.count == self.keys.shape[2]:
            self._grow()
        n = self.count + 1
        B, kv_heads, _, D = self.keys.shape
        where = self.free[..., None].expand(B, kv_heads, 1, 1)
        self.keys.scatter_(2, where.expand(-1, -1, -1, D), key)
        self.values.scatter_(2, where.expand(-1, -1, -1, self.values.shape[-1]), value)
        self.rank.scatter_(2, self.free, self.count)
        self.tok.scatter_(2, self.free, self.seen)
        in_cache = self.policy.positions == "in_cache"
        position = (self.rank if in_cache else self.tok)[..., :n]
        here = self.count if in_cache else self.seen
        self.rotary.ensure(here + 1)
        q = self.rotary.rotate(query, torch.full((1, 1, 1), here, device=query.device))
        k = self.rotary.rotate(self.keys[:, :, :n], position)
        mask = (here - position < window)[..., None, :] if window is not None and here >= window else None
        out, p = grouped_attention(q, k, self.values[:, :, :n], mask=mask, scale=scale, weights=self.score is not None)
        if self.score is not None and p is not None:
            self._accumulate(self.score[..., :n], p, self.free, query.shape[1])
        self.seen += 1
        if self.capacity is None or n <= self.capacity:
            self.free = self.free + 1
            self.count = n
        else:
            self._evict(self.capacity)
        return out

    def _evict(self, capacity: int) -> None:
        victim = check_slot(self.policy, self.policy.victim(self.score, self.rank, capacity), self.rank)[..., None]
        gone = self.rank.gather(2, victim)
        self.rank -= (self.rank > gone).int()
        self.rank.scatter_(2, victim, -1)
        self.tok.scatter_(2, victim, -1)
        self.free = victim

    def _accumulate(self, score: Tensor, p: Tensor, fresh: Tensor | None, heads: int) -> None:
        if "last_row" in self.policy.needs:
            score.copy_((p[:, :, -1].sum(dim=1, keepdim=True) / heads).expand_as(score))
            return
        if fresh is not None:
            score.scatter_(2, fresh, 0.0)  # a slot's former tenant leaves its score behind
        score += p.sum(dim=2)

    def _chunk(self, query: Tensor, key: Tensor, value: Tensor, *, scale: float, window: int | None) -> Tensor:
        """M > 1 tokens: attend over the kept and the new ones in full, then evict once (the papers' prefill)."""
        m = query.shape[2]
        rows = self.rank.shape[:2]
        device = query.device
        n = self.count + m
        new = torch.arange(self.seen, self.seen + m, device=device).expand(*rows, m)
        if self.count:
            key = torch.cat([self._in_order(self.keys), key], dim=2)
            value = torch.cat([self._in_order(self.values), value], dim=2)
            tok = torch.cat([self._in_order(self.tok), new], dim=2)
        else:
            tok = new
        order = torch.arange(n, device=device)
        position = order.expand(1, 1, n) if self.policy.positions == "in_cache" else tok
        self.rotary.ensure(n if self.policy.positions == "in_cache" else self.seen + m)
        q_position = order[-m:] if self.policy.positions == "in_cache" else new[0, 0]
        q = self.rotary.rotate(query, q_position.expand(1, 1, m))
        k = self.rotary.rotate(key, position)
        mask = order <= order[-m:, None]
        if window is not None:
            mask = mask & (q_position[:, None] - position[..., None, :] < window)
        out, p = grouped_attention(q, k, value, mask=mask, scale=scale, weights=self.score is not None)
        score = None
        if self.score is not None and p is not None:
            old = self._in_order(self.score) if self.count else self.score[..., :0]
            score = torch.cat([old, self.score.new_zeros(*rows, m)], dim=2)
            self._accumulate(score, p, None, query.shape[1])
        self.seen += m
        if self.capacity is not None and n > self.capacity:
            keep = self.policy.select(score, tok, self.capacity)
            check_kept(self.policy, keep, rows=rows, n=n, capacity=self.capacity)
            key, value = _pick(key, keep), _pick(value, keep)
            tok = tok.gather(2, keep)
            score = score.gather(2, keep) if score is not None else None
        self._store(key, value, tok, score)
        return out

    def _in_order(self, x: Tensor) -> Tensor:
        """The kept entries of a slot tensor, oldest first."""
        by_rank = self.rank.masked_fill(self.rank < 0, torch.iinfo(torch.int32).max).argsort(dim=-1)
        return _pick(x, by_rank[..., : self.count])

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

    # -- inspection and persistence ---------------------------------------------------------------------------------

    def kept(self) -> Tensor:
        """`[B or 1, H_kv or 1, n]` int64: absolute indices of the kept tokens, oldest first."""
        return self._in_order(self.tok) if self.is_initialized else torch.empty(1, 1, 0, dtype=torch.int64)

    def nbytes(self) -> int:
        """Allocated bytes: keys, values and bookkeeping."""
        found = [getattr(self, name) for name in _TENSORS] if self.is_initialized else []
        return sum(x.nbytes for x in found if x is not None)


def _pick(x: Tensor, index: Tensor) -> Tensor:
    """Gather along the slot dimension of `[B, H_kv, N]` or `[B, H_kv, N, D]`, index rows possibly shared."""
    index = index.expand(*x.shape[:2], -1)
    return x.gather(2, index[..., None].expand(-1, -1, -1, x.shape[-1]) if x.dim() == 4 else index)


class SlotCache(Cache):
    """All layers; pass it as `past_key_values` inside the `attach` context that made it."""

    layers: list[SlotLayer]

    def __init__(self, policy: KVPolicy, n_layers: int, rotary: RotaryTable) -> None:
        super().__init__(layers=[SlotLayer(policy, i, n_layers, rotary) for i in range(n_layers)])
        self.policy = policy

    def kept(self, layer: int = 0) -> Tensor:
        """Absolute indices of the tokens layer `layer` keeps, oldest first: `[B or 1, H_kv or 1, n]` int64."""
        return self.layers[layer].kept()

    def nbytes(self) -> int:
        """Allocated bytes of all layers."""
        return sum(layer.nbytes() for layer in self.layers)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything needed to continue bit-identically, as flat named tensors (safetensors can hold them)."""
        out: dict[str, Tensor] = {}
        for i, layer in enumerate(self.layers):
            if not layer.is_initialized:
                continue
            capacity = -1 if layer.capacity is None else layer.capacity
            out[f"{i}.counts"] = torch.tensor([layer.count, layer.seen, capacity, layer.prompt_len])
            for name in _TENSORS:
                x = getattr(layer, name)
                if x is not None:
                    out[f"{i}.{name}"] = x.detach().clone().contiguous()
        return out

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            InvalidInput: the state is of another number of layers, policy kind or capacity.
        """
        self.reset()
        layers = {int(key.split(".")[0]) for key in state}
        if layers and layers != set(range(len(self.layers))):
            raise InvalidInput(f"the saved cache has layers {sorted(layers)}, the model has {len(self.layers)}")
        for i, layer in enumerate(self.layers):
            if f"{i}.counts" not in state:
                continue
            count, seen, capacity, prompt_len = state[f"{i}.counts"].tolist()
            expected = layer.policy.capacity(i, len(self.layers), prompt_len or None)
            scored = f"{i}.score" in state
            if (expected if expected is not None else -1) != capacity or scored != bool(layer.policy.needs):
                raise InvalidInput(
                    f"the saved cache has capacity {capacity} (scores: {scored}); policy "
                    f"{type(layer.policy).__name__} has capacity {expected} (scores: {bool(layer.policy.needs)})",
                    hint="restore with the policy and options the cache was saved with",
                )
            layer.count, layer.seen, layer.capacity, layer.prompt_len = count, seen, expected, prompt_len
            for name in _TENSORS:
                x = state.get(f"{i}.{name}")
                setattr(layer, name, None if x is None else x.clone())
            layer.is_initialized = True
