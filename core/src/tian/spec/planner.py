"""Role planner: actions for a horizon, judged by an objective, within a budget."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from torch import Tensor

    from tian.spec.reward_model import RewardModel


@dataclass(frozen=True)
class Budget:
    """Limits of one `plan` call: evaluations of the objective, and seconds; whichever comes first.

    An evaluation is one trajectory for each row of the batch. The time is looked at between calls of the objective.
    """

    max_evals: int
    max_seconds: float


@dataclass(frozen=True)
class Plan:
    """A plan.

    Attributes:
        actions: `[B, T, A]` float32 within the action bounds.
        states: `[B, T, S]` float32 predicted states, or None.
        score: `[B]` float32, the objective of the plan; -inf for a row without a finite candidate.
        status: `ok`, `budget` (best found when the budget ended) or `fallback` (no finite candidate was left).
        evals: objective evaluations used.
    """

    actions: Tensor
    states: Tensor | None
    score: Tensor
    status: str
    evals: int


class Planner(ABC):
    """Plans without ever stepping the environment.

    State is passed in and out; randomness comes from the seed of `reset` alone. Non-finite candidates are dropped.

    Attributes:
        needs: of {`sim_state`}; a planner that uses true dynamics says so, and tables print it.
    """

    SPEC: ClassVar[int] = 1
    needs: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def reset(self, *, seed: int, batch: int) -> Any:
        """Initial planner state for `batch` parallel problems."""

    @abstractmethod
    def plan(
        self, obs: Tensor, state: Any, *, objective: RewardModel, budget: Budget, sim_state: Tensor | None = None
    ) -> tuple[Plan, Any]:
        """Plan from `obs [B, S]` float32.

        Args:
            obs: observation; NaN raises InvalidInput.
            state: from `reset` or the previous call; not modified.
            objective: scores `TrajectoryItem`s.
            budget: limits.
            sim_state: `[B, P]` float64 full simulator state, for planners that need it.

        Returns:
            The plan and the next state.
        """
