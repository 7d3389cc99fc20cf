"""Attention of a model that keeps everything, and what a policy would have kept and seen of it.

A trace is frozen: `A[t, j]` is what token t pays to token j when everything is kept. A policy at work on it sees the same
numbers, renewed to sum up over what is visible, as softmax does. What eviction would change in later states is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tian.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor

    from tian.spec import KVPolicy


@torch.no_grad()
def attention_by_head(model: Any, ids: Tensor) -> Tensor:
    """Attention weights of an unbounded model, by query head.

    Memory and time grow with T^2: for some thousand tokens at most.

    Args:
        model: causal LM of transformers, in eval mode.
        ids: `[T]` int64, one stream.

    Returns:
        `[L, H, T, T]` float32 on the CPU; rows are queries and sum to 1.
    """
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        found = model(input_ids=ids[None].to(model.device), output_attentions=True, use_cache=False).attentions
    finally:
        model.set_attn_implementation(before)
    return torch.stack([a[0].float().cpu() for a in found])


def attention_trace(model: Any, ids: Tensor) -> Tensor:
    """The same summed over the G query heads that share a key/value head, as a cache sees it: `[L, H_kv, T, T]`."""
    found = attention_by_head(model, ids)
    kv_heads = getattr(model.config, "num_key_value_heads", None) or model.config.num_attention_heads
    L, H, T, _ = found.shape
    return found.view(L, kv_heads, H // kv_heads, T, T).sum(dim=2)


def simulate(
    trace: Tensor, policy: KVPolicy, capacity: int | None, *, prompt: int = 0, layer: Tensor | None = None
) -> Tensor:
    """What each token still sees when `policy` keeps `capacity` tokens.

    Exact where each head has keys of its own. Of grouped heads a trace knows the sum only, and renews that.

    Args:
        trace: `[N, T, T]` float32, N independent heads; nothing above the diagonal.
        policy: whose `victim` and `select` decide.
        capacity: C; None, or at least T: everything stays visible.
        prompt: tokens read at once at the start, attended in full, then cut once by `select`.
        layer: `[N]` int64, which heads decide together under a `last_row` policy, as a layer's do; None: each alone.

    Returns:
        `[N, T, T]` bool: token j is visible to query t; the query sees itself.
    """
    N, T, _ = trace.shape
    visible = torch.ones(T, T, dtype=torch.bool).tril().expand(N, T, T).clone()
    if capacity is None or capacity >= T:
        return visible
    visible[:, prompt:] = False
    state = _Slots(trace, policy, capacity, layer)
    if prompt:
        state.prefill(prompt)
    for t in range(prompt, T):
        visible[:, t].scatter_(1, state.step(t), value=True)
    return visible


class _Slots:
    """The bookkeeping of a cache layer, without keys and values: `[1, N, C + 1]` tensors by slot."""

    def __init__(self, trace: Tensor, policy: KVPolicy, capacity: int, layer: Tensor | None) -> None:
        N = trace.shape[0]
        self.trace, self.policy, self.capacity, self.layer = trace, policy, capacity, layer
        self.kind = next(iter(policy.needs), "")
        self.decay = float(getattr(policy, "decay", 1.0))
        self.rank = torch.full((1, N, capacity + 1), -1, dtype=torch.int32)
        self.tok = torch.full((1, N, capacity + 1), -1)
        self.score = torch.zeros(1, N, capacity + 1)
        self.free = torch.zeros(1, N, 1, dtype=torch.int64)
        self.count = 0

    def prefill(self, prompt: int) -> None:
        rows = self.trace[:, :prompt, :prompt]
        if self.kind == "last_row":
            score = self._mean(rows[:, -1])
        elif self.kind == "window_sum":
            score = rows[:, -int(getattr(self.policy, "window", 1)) :].sum(dim=1)
        else:
            weight = self.decay ** torch.arange(prompt - 1, -1, -1)
            score = (rows * weight[:, None]).sum(dim=1)
        token = torch.arange(prompt).expand(1, len(rows), prompt)
        keep = token
        if prompt > self.capacity:
            keep = self.policy.select(score[None] if self.kind else None, token, self.capacity)
        K = self.count = keep.shape[-1]
        self.tok[..., :K] = keep
        self.score[..., :K] = score[None].gather(2, keep)
        self.rank[..., :K] = torch.arange(K, dtype=torch.int32)
        self.free.fill_(K)

    def _mean(self, p: Tensor) -> Tensor:
        """`p [N, n]` averaged over the heads of each layer; these choose alike, so their slots hold the same tokens."""
        if self.layer is None:
            return p
        sums = p.new_zeros(int(self.layer.max()) + 1, p.shape[1]).index_add(0, self.layer, p)
        return (sums / self.layer.bincount()[:, None])[self.layer]

    def step(self, t: int) -> Tensor:
        """Query t reads, one token goes when C + 1 are there; returns the visible tokens, `[N, n]`."""
        self.rank.scatter_(2, self.free, self.count)
        self.tok.scatter_(2, self.free, t)
        self.score.scatter_(2, self.free, 0.0)
        n = self.count + 1
        tok = self.tok[0, :, :n].clone()
        seen = self.trace[:, t].gather(1, tok)
        p = (seen / seen.sum(dim=1, keepdim=True) * self.trace[:, t].sum(dim=1, keepdim=True))[None]
        if self.kind == "last_row":
            self.score[..., :n] = self._mean(p[0])
        elif self.kind == "colsum":
            self.score[..., :n] = self.score[..., :n] * self.decay + p
        if n <= self.capacity:
            self.free += 1
            self.count = n
            return tok
        gone = self.policy.victim(self.score if self.kind else None, self.rank, self.capacity)[..., None]
        named = self.rank.gather(2, gone)
        self.rank -= (self.rank > named).int()
        self.rank.scatter_(2, gone, -1)
        self.tok.scatter_(2, gone, -1)
        self.free = gone
        return tok


def retained(trace: Tensor, visible: Tensor, *, prompt: int = 0) -> Tensor:
    """Attention on visible earlier tokens, by head: `[N]` float64. What a token pays itself is never lost, nor counted.

    Args:
        trace: `[N, T, T]`.
        visible: `[N, T, T]` bool.
        prompt: first row that counts.
    """
    earlier = torch.ones(trace.shape[1:], dtype=torch.bool).tril(-1)
    earlier[:prompt] = False
    return (trace.double() * (visible & earlier)).sum(dim=(1, 2))


def visible_global(trace: Tensor, *, heavy: int, recent: int) -> Tensor:
    """`h2o-global`: the tokens heaviest over the whole text, later queries included, and the recent ones.

    At most heavy + recent earlier tokens are visible, as in `simulate` with that capacity.

    Args:
        trace: `[N, T, T]`.
        heavy: size of the one fixed set.
        recent: earlier tokens always visible.

    Source: see `H2OGlobal`.
    """
    N, T, _ = trace.shape
    age = torch.arange(T)[:, None] - torch.arange(T)
    top = trace.sum(dim=1).topk(min(heavy, T), dim=-1).indices
    chosen = torch.zeros(N, T, dtype=torch.bool).scatter_(1, top, value=True)
    return ((age <= recent) | chosen[:, None, :]) & (age >= 0)


def visible_official(trace: Tensor, *, heavy: int, recent: int) -> Tensor:
    """What the mask of the authors' simulation file (utils_hh) makes visible: heavy + recent tokens, the query included.

    Its recent band is one column off: it covers the coming query, so the token that leaves the band is invisible to one
    query and no candidate yet; it keeps its score and may come back at the next.

    Args:
        trace: `[N, T, T]`.
        heavy: heavy hitters, >= 1.
        recent: size of the band, the query included, >= 1.

    Raises:
        InvalidInput: a size below 1 (the original treats 0 as "everything").

    Source: H2O repository, `utils_hh`; the off-by-one is described, not copied.
    """
    if heavy < 1 or recent < 1:
        raise InvalidInput(f"the official variant needs heavy >= 1 and recent >= 1, got {heavy} and {recent}")
    N, T, _ = trace.shape
    visible = torch.zeros(N, T, T, dtype=torch.bool)
    score = torch.zeros(N, T)
    now = torch.zeros(N, T, dtype=torch.bool)
    for t in range(T):
        now[:, t] = True
        visible[:, t] = now
        row = trace[:, t] * now
        score = score + row / row.sum(dim=1, keepdim=True) * trace[:, t].sum(dim=1, keepdim=True)
        n = t + 1
        if n <= heavy + recent:
            continue
        old = score[:, : n - recent].sort(dim=1, stable=True).indices[:, n - recent - heavy :]
        now = torch.zeros(N, T, dtype=torch.bool).scatter_(1, old, value=True)
        remembered = now.clone()
        remembered[:, n - recent : n] = True
        score = score * remembered
        now[:, n + 1 - recent : n] = True
    return visible
