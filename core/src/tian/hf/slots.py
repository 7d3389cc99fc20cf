"""SlotLayer: one layer of the slot cache. A layer holds C + 1 slots; a step writes, attends, scores and evicts in place.

A step (`tian.hf.step`) writes the new key into the free slot, attends over all slots, adds to the scores if the policy
asks for them, and lets the policy name the victim, whose slot becomes the free one. No tensor is concatenated, gathered
or reallocated in the steady state, and nothing is read back to the host. Slot order means nothing; `rank` (order among
kept tokens) is the position inside the cache.

Rows of a left-padded batch hold invisible entries (`tok` is -1) of the lowest ranks, which leave first. Only relative
positions matter to rotary and ALiBi models, so that the ranks of a padded row are its own ranks plus a constant.

Keys are stored in one of two ways. *Turned*: rotated once, to their index in the stream, where distances between kept
tokens never change: with original positions, and inside the cache for a contiguous policy, whose recent tokens keep
their distances and whose few first tokens are turned anew in each step. Else unrotated, and rotated by rank when used.

Source: ours; equal to the papers' "append, attend, evict to C" (StreamingLLM arXiv 2309.17453 section 3.2, H2O arXiv
2306.14048 algorithm 1).
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import CacheLayerMixin

from tian.errors import InvalidInput
from tian.hf import band
from tian.hf.attention import Logits, alibi, attention_and_sums, grouped_attention
from tian.hf.step import add_scores, row_weight, step
from tian.spec.contract import check_kept, check_victim

if TYPE_CHECKING:
    from torch import Tensor

    from tian.hf.kernels import Fused
    from tian.hf.rotary import Rotary
    from tian.spec import KVPolicy

_log = logging.getLogger("tian")
FIRST_SLOTS = 64  # what an unbounded layer starts with; it doubles when full
TENSORS = ("keys", "values", "rank", "tok", "score", "free", "used", "clock", "firsts", "pads")


class SlotLayer(CacheLayerMixin):
    """One layer of the cache.

    Bookkeeping tensors have rows `[B, H_kv]` if the policy reads scores, `[B, 1]` for a padded batch without scores,
    else `[1, 1]`: there every row and head makes the same choice.
    """

    keys: Tensor  # [B, H_kv, N, D]
    values: Tensor  # [B, H_kv, N, D]
    rank: Tensor  # [rows, N] int32, 0 the oldest; -1: empty
    tok: Tensor  # [rows, N] int64, index in the stream; -1: empty or padding
    free: Tensor  # [rows] int32, the slot of the next token
    used: Tensor  # [rows] int32, `count` as the device knows it
    clock: Tensor  # [1, 1, 1] int64, `seen` as the device knows it

    def __init__(
        self, policy: KVPolicy, layer: int, n_layers: int, rotary: Rotary, *, fused: Fused | None = None
    ) -> None:
        super().__init__()
        self.policy = policy
        self.layer = layer
        self.n_layers = n_layers
        self.rotary = rotary
        self.fused = fused  # decode kernel of the device, None: torch
        self.capacity: int | None = None
        self.count = 0  # slots in use, invisible ones included; known to the host without asking the device
        self.seen = 0  # tokens that ever entered, padding included
        self.evicted = 0  # `seen` at the last eviction: what came later can still be cropped
        self.prompt_len = 0  # tokens of the first chunk
        self.tried: int | None = None  # capacity at which the policy was last held to its contract
        self.debug = bool(os.environ.get("TIAN_DEBUG"))  # look at scores in every step, which waits for the device
        self.stepwise = False  # True: tokens of a chunk see what they would in single steps
        self.static = False  # True while a step is recorded: it may use nothing that the host alone knows
        self.turned = False  # see above
        self.sinks = 0  # first tokens of a turned layer that change their place in every step
        self.pending: tuple[Tensor, Tensor] | None = None
        self.pads: Tensor | None = None  # [B, 1, 1] int64 padding tokens in front of each row; None: there are none
        self.score: Tensor | None = None  # [B, H_kv, N] float32
        self.firsts: Tensor | None = None  # [B, H_kv, sinks, D] unrotated keys of the sinks

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
        self.free = torch.zeros(rows, dtype=torch.int32, device=device)
        self.used = torch.zeros(rows, dtype=torch.int32, device=device)
        self.clock = torch.zeros(1, 1, 1, dtype=torch.int64, device=device)
        self.score = torch.zeros((*rows, slots), device=device) if self.policy.needs else None
        if self.layer == 0 and self.capacity is not None and self.prompt_len > self.capacity and not self.stepwise:
            _log.info(
                "a prompt of %d tokens is attended in full, then %s keeps %d (tian.hf.prefill bounds the memory)",
                self.prompt_len,
                type(self.policy).__name__,
                self.capacity,
            )
        self._try_policy(rows, device)
        self.choose_storage()
        self.firsts = key_states.new_zeros(B, kv_heads, self.sinks, D) if self.sinks else None
        self.is_initialized = True

    def choose_storage(self) -> None:
        """Turned or not, see the module's text: the kernel rotates by rank while it reads, so it has no need of it."""
        contiguous = self.capacity is None or (self.policy.contiguous and self.pads is None and self.fused is None)
        self.turned = self.policy.positions == "original" or contiguous or not self.rotary.rotates
        self.sinks = 0
        if self.rotary.rotates and contiguous and self.capacity is not None and self.policy.positions == "in_cache":
            ranks = self.policy.victim_ranks(self.capacity)
            self.sinks = ranks[0] if ranks is not None else 0

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
        self.score = self.firsts = self.pending = self.pads = None
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
        self.count -= self.seen - target
        self.seen = target
        dropped = self.rank >= self.count
        self.rank.masked_fill_(dropped, -1)
        self.tok.masked_fill_(dropped, -1)
        self.free.fill_(self.count)  # nothing was evicted since the slots were last in order
        self._tell_device()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Row i continues what row `beam_idx[i]` held (beam search). `beam_idx [B]` int64."""
        if not self.is_initialized:
            return
        shared = not self.policy.needs and self.pads is None  # one row of bookkeeping for the whole batch
        for name in ("keys", "values", "firsts", "pads") if shared else TENSORS:
            x = getattr(self, name)
            if x is not None and x is not self.clock:
                setattr(self, name, x.index_select(0, beam_idx.to(x.device)))

    def advance(self) -> None:
        """Bring the host's counts up to date with a recorded step that the device ran by itself."""
        self.seen += 1
        if self.count == self.capacity:
            self.evicted = self.seen
        else:
            self.count += 1

    # -- attention --------------------------------------------------------------------------------------------------

    def attend(
        self,
        query: Tensor,
        *,
        scale: float,
        window: int | None = None,
        slopes: Tensor | None = None,
        sink: Tensor | None = None,
    ) -> Tensor:
        """Write the pending tokens, attend, evict.

        Args:
            query: `[B, H, m, D]`, unrotated.
            scale: factor of the logits.
            window: the model's own sliding window in tokens, or None.
            slopes: `[H]` float32 ALiBi slopes: -slope * distance is added to the logits; or None.
            sink: `[H]` float32, one more logit per head whose value is zero; or None.

        Returns:
            `[B, H, m, D]`.

        Raises:
            ContractError: the policy broke its contract.
            InvalidInput: with TIAN_DEBUG set, a score is not a number.
        """
        assert self.pending is not None  # noqa: S101 - update() ran just before
        key, value = self.pending
        self.pending = None
        out = self._attend(query, key, value, Logits(scale, window, slopes, sink))
        if self.debug and self.score is not None and not bool(self.score.isfinite().all()):
            raise InvalidInput(
                f"layer {self.layer} has scores that are not numbers after token {self.seen - 1}",
                where="kv",
                hint="look for NaN or overflow in the model; without TIAN_DEBUG the oldest token goes instead",
            )
        return out

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, how: Logits) -> Tensor:
        m = query.shape[2]
        if m == 1:
            return step(self, query, key, value, how)
        if not self.stepwise or self.capacity is None or self.count + m <= self.capacity + 1:
            return _chunk(self, query, key, value, how)
        self._check_stepwise(how)
        room = self.capacity + 1 - self.count  # so many see all there is, and leave a full cache
        parts = []
        if self.count < self.capacity:
            parts.append(_chunk(self, query[:, :, :room], key[:, :, :room], value[:, :, :room], how))
            query, key, value = query[:, :, room:], key[:, :, room:], value[:, :, room:]
        return torch.cat([*parts, band.banded(self, query, key, value, how)], dim=2)

    def _check_stepwise(self, how: Logits) -> None:
        why = band.obstacle(self, how)
        if why:
            raise InvalidInput(
                f"a chunk cannot be read as if token by token: {why}",
                where="kv",
                hint="feed the tokens one by one, or leave stepwise off: the chunk is then attended in full",
            )

    def select(self, score: Tensor | None, tok: Tensor, capacity: int) -> Tensor:
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

    def store(self, key: Tensor, value: Tensor, tok: Tensor, score: Tensor | None) -> None:
        """Refill the slots 0..K-1 in order."""
        self.count = count = key.shape[2]
        while count >= self.keys.shape[2] and self.capacity is None:
            self.grow()
        self.keys[:, :, :count] = key
        self.values[:, :, :count] = value
        self.rank.fill_(-1)
        self.tok.fill_(-1)
        self.rank[..., :count] = torch.arange(count, device=key.device, dtype=torch.int32)
        self.tok[..., :count] = tok
        if self.score is not None and score is not None:
            self.score[..., :count] = score
        self.free.fill_(count)
        self._tell_device()

    def _tell_device(self) -> None:
        self.used.fill_(self.count)
        self.clock.fill_(self.seen)

    def grow(self) -> None:
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


def _chunk(
    layer: SlotLayer,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    how: Logits,
) -> Tensor:
    """M > 1 tokens: attend over the kept and the new ones in full, then evict once (the papers' prefill)."""
    m, n = query.shape[2], layer.count + query.shape[2]
    rows, device, rotary = layer.rank.shape[:2], query.device, layer.rotary
    new = torch.arange(layer.seen, layer.seen + m, device=device).expand(*rows, m)
    if layer.pads is not None:
        new = (new - layer.pads).clamp_min(-1)
    if layer.firsts is not None:  # the sinks that this chunk brings, still unrotated
        known = min(layer.count, layer.sinks)
        layer.firsts[:, :, known : known + m] = key[:, :, : layer.sinks - known]
    if layer.turned:
        key = rotary.turn(key, rotary.span(layer.seen, m))
        query = rotary.turn(query, rotary.span(layer.seen, m))
    if layer.count:
        key = torch.cat([layer.in_order(layer.keys), key], dim=2)
        value = torch.cat([layer.in_order(layer.values), value], dim=2)
        tok = torch.cat([layer.in_order(layer.tok), new], dim=2)
    else:
        tok = new
    if layer.firsts is not None:
        sinks = min(layer.sinks, n)
        key[:, :, :sinks] = rotary.turn(layer.firsts[:, :, :sinks], rotary.span(layer.seen - layer.count, sinks))
    order = torch.arange(n, device=device)
    in_cache = layer.policy.positions == "in_cache"
    position = order.expand(1, 1, n) if in_cache else tok.clamp_min(0)
    at = order[-m:].expand(1, 1, m) if in_cache else new.clamp_min(0)[:, :1]
    used = key
    if not layer.turned:
        cos, sin = rotary.table(n)
        query, used = rotary.turn(query, (cos[n - m : n], sin[n - m : n])), rotary.turn(key, (cos[:n], sin[:n]))
    causal = layer.pads is None and how.window is None
    mask = None
    if not causal:
        mask = order <= order[-m:, None]
        if layer.pads is not None:  # padding sees itself only, so that its rows stay finite
            mask = (mask & (tok >= 0)[..., None, :]) | (order == order[-m:, None])
        if how.window is not None:
            mask = mask & (at[..., :, None] - position[..., None, :] < how.window)
    bias = alibi(how.slopes, position, at)
    score = None
    if layer.score is None:
        out = grouped_attention(query, used, value, mask=mask, bias=bias, scale=how.scale, sink=how.sink, causal=causal)
    else:
        weight = row_weight(layer.policy, m, query, None if layer.pads is None else (new >= 0)[:, :1])
        out, sums = attention_and_sums(
            query, used, value, mask=mask, bias=bias, scale=how.scale, weight=weight, sink=how.sink, causal=causal
        )
        old = layer.in_order(layer.score) if layer.count else layer.score[..., :0]
        score = torch.cat([old, layer.score.new_zeros(*rows, m)], dim=2)
        add_scores(layer.policy, score, sums, m)
    layer.seen += m
    if layer.capacity is not None and n > layer.capacity:
        keep = layer.select(score, tok, layer.capacity)
        key, value = pick(key, keep), pick(value, keep)
        tok = tok.gather(2, keep.clamp_min(0)).masked_fill(keep < 0, -1)
        score = score.gather(2, keep.clamp_min(0)) if score is not None else None
        layer.evicted = layer.seen
    layer.store(key, value, tok, score)
    return out


def pick(x: Tensor, index: Tensor) -> Tensor:
    """Gather along the slot dimension of `[B, H_kv, N]` or `[B, H_kv, N, D]`, index rows possibly shared; -1 is 0."""
    index = index.clamp_min(0).expand(*x.shape[:2], -1)
    return x.gather(2, index[..., None].expand(-1, -1, -1, x.shape[-1]) if x.dim() == 4 else index)
