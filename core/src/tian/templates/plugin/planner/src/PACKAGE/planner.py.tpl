"""The planner: the cross-entropy method."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from tian.errors import InvalidInput
from tian.spec import Budget, Plan, Planner, RewardModel, TrajectoryItem

if TYPE_CHECKING:
    from torch import Tensor

    from @@package@@.options import @@Class@@Options


class @@Class@@(Planner):
    """Draw action sequences, keep the best, draw around those, and so on; actions lie within -1..1.

    It has no model of the dynamics: the objective sees the observation, repeated, as the states.
    Source: Rubinstein's cross-entropy method, in its common form with a normal distribution a step.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, options: @@Class@@Options) -> None:
        self.options = options

    def reset(self, *, seed: int, batch: int) -> Any:
        """The state: seed, number of plans so far, mean of the distribution `[B, T, A]`."""
        return (seed, 0, torch.zeros(batch, self.options.horizon, self.options.actions))

    def plan(
        self, obs: Tensor, state: Any, *, objective: RewardModel, budget: Budget, sim_state: Tensor | None = None
    ) -> tuple[Plan, Any]:
        """The best sequence found for `obs [B, S]` float32; the next call starts from it, moved on by one step.

        Raises:
            InvalidInput: the observation holds NaN or infinity, or is of another batch than the state.
        """
        seed, calls, mean = state
        if obs.dim() != 2 or len(obs) != len(mean) or not bool(torch.isfinite(obs).all()):
            raise InvalidInput(
                f"the observation must be finite and [{len(mean)}, S], it is {list(obs.shape)}",
                hint="call reset(batch=...) for another batch, and look where NaN comes from",
            )
        o, end = self.options, time.monotonic() + budget.max_seconds
        generator = torch.Generator().manual_seed(seed * 100_003 + calls)
        best, best_score = mean.clone(), torch.full((len(obs),), -torch.inf)
        evals, spread, status = 0, torch.ones_like(mean), "ok"
        for i in range(o.iterations):
            n = min(o.population, budget.max_evals - evals)
            if n < 1 or (i > 0 and time.monotonic() >= end):
                status = "budget"
                break
            noise = torch.randn(len(obs), n, *mean.shape[1:], generator=generator)
            candidates = (mean[:, None] + spread[:, None] * noise).clamp(-1, 1)
            candidates[:, 0] = mean  # what is known already is a candidate too
            scores = self._score(candidates, obs, objective)
            evals += n
            top = scores.topk(min(o.elites, n), dim=1)
            improved = top.values[:, 0] > best_score
            best = torch.where(improved[:, None, None], _rows(candidates, top.indices[:, :1])[:, 0], best)
            best_score = torch.where(improved, top.values[:, 0], best_score)
            elites = _rows(candidates, top.indices)
            usable = torch.isfinite(top.values).all(dim=1)[:, None, None]  # else too few are finite to learn from
            mean = torch.where(usable, elites.mean(dim=1), mean)
            spread = torch.where(usable, elites.std(dim=1, correction=0).clamp(min=0.05), spread)
        if bool((best_score == -torch.inf).any()):
            status = "fallback"
        ahead = torch.cat([best[:, 1:], torch.zeros_like(best[:, :1])], dim=1)
        return Plan(best, None, best_score, status, evals), (seed, calls + 1, ahead)

    def _score(self, candidates: Tensor, obs: Tensor, objective: RewardModel) -> Tensor:
        """`[B, n]` float32; what is not finite becomes -inf and is never chosen."""
        B, n, T, _ = candidates.shape
        items = [TrajectoryItem(obs[b].expand(T, -1), candidates[b, i]) for b in range(B) for i in range(n)]
        scores = objective.score(items)[:, 0].reshape(B, n)
        return torch.where(torch.isfinite(scores), scores, -torch.inf)


def _rows(candidates: Tensor, index: Tensor) -> Tensor:
    """`candidates [B, n, T, A]`, `index [B, k]` -> `[B, k, T, A]`."""
    return candidates.gather(1, index[:, :, None, None].expand(-1, -1, *candidates.shape[2:]))
