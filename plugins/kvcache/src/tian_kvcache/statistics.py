"""What the attention of a text looks like: how uneven it is, what goes with it, and what a token is worth to an output."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor


def damage(p: Tensor, o: Tensor, v: Tensor) -> Tensor:
    """Exact change of a head's output when one token is dropped and the others' weights are renewed.

    `o_without_j - o = p_j (o - v_j) / (1 - p_j)`.

    Args:
        p: `[..., N]` attention weights, sum 1.
        o: `[..., D]` output, `sum_j p_j v_j`.
        v: `[..., N, D]` values.

    Returns:
        `[..., N, D]`. Without a token that has all the weight nothing is left; there the change is very large.

    Source:
        ours.

    Example:
        >>> damage(torch.tensor([0.5, 0.5]), torch.tensor([1.0]), torch.tensor([[0.0], [2.0]])).flatten().tolist()
        [1.0, -1.0]
    """
    left = (1 - p).clamp(min=torch.finfo(p.dtype).tiny)
    return (p / left)[..., None] * (o[..., None, :] - v)


def uniform_mass(tokens: int) -> Tensor:
    """`[T]` float64: attention each position would receive if every query looked at all it can see alike."""
    return (1.0 / torch.arange(1, tokens + 1, dtype=torch.float64)).flip(0).cumsum(0).flip(0)


def share_of(mass: Tensor, chosen: Tensor) -> Tensor:
    """Share of the mass on the chosen tokens, `[...]`; `mass [..., T]`, `chosen [..., K]` int64."""
    return mass.gather(-1, chosen).sum(dim=-1) / mass.sum(dim=-1)


def heaviest(score: Tensor, share: float) -> Tensor:
    """Indices of the top `share` of T tokens, at least one: `[..., K]` int64."""
    return score.topk(max(1, round(share * score.shape[-1])), dim=-1).indices


def power_law(mass: Tensor) -> tuple[Tensor, Tensor]:
    """Least-squares line through log mass against log rank.

    Args:
        mass: `[..., T]`, > 0.

    Returns:
        Exponent (slope) and R^2, `[...]` each.
    """
    y = mass.double().sort(dim=-1, descending=True).values.clamp(min=1e-12).log()
    x = torch.arange(1, y.shape[-1] + 1, dtype=torch.float64).log()
    x = x - x.mean()
    y = y - y.mean(dim=-1, keepdim=True)
    slope = (x * y).sum(dim=-1) / (x * x).sum()
    left = ((y - slope[..., None] * x) ** 2).sum(dim=-1)
    total = (y * y).sum(dim=-1)
    return slope, torch.where(total > 0, 1 - left / total.clamp(min=1e-30), 0.0)


def cooccurrence(streams: Sequence[Sequence[int]], *, window: int) -> Counter[int]:
    """How often each kind of token stands within `window` of a token of another kind, over all streams.

    Example:
        >>> sorted(cooccurrence([[1, 2, 1, 1]], window=1).items())
        [(1, 2), (2, 2)]
    """
    out: Counter[int] = Counter()
    for ids in streams:
        for i, a in enumerate(ids):
            out[a] += sum(b != a for b in ids[max(0, i - window) : i]) + sum(
                b != a for b in ids[i + 1 : i + 1 + window]
            )
    return out


def ranks(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 0, equals share their mean."""
    _, place, count = np.unique(x, return_inverse=True, return_counts=True)
    upto = np.cumsum(count)
    return ((upto - count + upto - 1) / 2.0)[place]


def rank_correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Spearman's; 0 when one of them is constant."""
    a, b = ranks(x), ranks(y)
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > 0 else 0.0


def permuted(x: NDArray[np.float64], y: NDArray[np.float64], *, times: int, seed: int) -> NDArray[np.float64]:
    """Correlations after random pairings of x and y, `[times]`: what chance gives."""
    rng = np.random.default_rng(seed)
    return np.array([rank_correlation(x, rng.permutation(y)) for _ in range(times)])


def masked_mask(chosen: Sequence[int], tokens: int, dtype: torch.dtype) -> Tensor:
    """`[1, 1, T, T]` additive causal mask in which nobody but itself sees a chosen token."""
    blocked = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
    blocked[:, list(chosen)] = True
    blocked.fill_diagonal_(False)  # noqa: FBT003 - torch's signature
    return torch.zeros(tokens, tokens, dtype=dtype).masked_fill(blocked, torch.finfo(dtype).min)[None, None]


@torch.no_grad()
def loss_without(model: Any, ids: Tensor, chosen: Sequence[int]) -> float:
    """Mean negative log-likelihood (nats) of a stream when nobody may look at the chosen tokens.

    Args:
        model: causal LM of transformers, in eval mode.
        ids: `[T]` int64.
        chosen: positions to mask.
    """
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        mask = masked_mask(chosen, len(ids), next(model.parameters()).dtype).to(model.device)
        logits = model(input_ids=ids[None].to(model.device), attention_mask=mask, use_cache=False).logits[0, :-1]
    finally:
        model.set_attn_implementation(before)
    return float(torch.nn.functional.cross_entropy(logits.float().cpu(), ids[1:]))
