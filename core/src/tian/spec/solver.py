"""Role solver: combinatorial problems, minimised."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

Status = Literal["optimal", "feasible", "infeasible", "unbounded", "timeout", "error"]


@dataclass(frozen=True)
class Instance:
    """A problem: kind (`milp`, `shortest-path`, ...), cost `[n]` float64, and what the kind needs besides."""

    kind: str
    cost: NDArray[np.float64]
    payload: Any


@dataclass(frozen=True)
class Solution:
    """An answer.

    Attributes:
        x: `[n]` float64, or None when there is none.
        objective: cost . x, NaN when there is none.
        bound: proven lower bound of the minimum.
        status: infeasible and timeout are answers, not exceptions.
        seconds: time taken.
    """

    x: NDArray[np.float64] | None
    objective: float
    bound: float
    status: Status
    seconds: float


class Solver(ABC):
    """Solves instances. The host checks feasibility and objective = cost . x (1e-6) again.

    Attributes:
        kinds: kinds of instance it takes; another raises InvalidInput.
    """

    SPEC: ClassVar[int] = 1
    kinds: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def solve(self, inst: Instance, *, time_limit_s: float, seed: int = 0, warm_start: Any = None) -> Solution:
        """Solve one instance within `time_limit_s` seconds. Raises InvalidInput for a cost that is not finite."""

    def solve_batch(self, insts: Sequence[Instance], *, time_limit_s: float, seed: int = 0) -> list[Solution]:
        """Solve several, each within the limit, in order. Default: one after the other."""
        return [self.solve(inst, time_limit_s=time_limit_s, seed=seed) for inst in insts]
