"""Role solver: combinatorial problems, minimised."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class SolutionBatch:
    """Answers to the constraints of one instance under B costs; B rows of n entries.

    Attributes:
        x: `[B, n]` float64; a row of zeros where there is none.
        objective: `[B]` float64, NaN where there is no x.
        bound: `[B]` float64, proven lower bounds.
        status: B statuses, as in `Solution`.
        found: `[B]` bool: whether there is an x.
        seconds: `[B]` float64, time taken.
        route: B names of the way an answer was found, for solvers that have several; else empty strings.
    """

    x: NDArray[np.float64]
    objective: NDArray[np.float64]
    bound: NDArray[np.float64]
    status: tuple[Status, ...]
    found: NDArray[np.bool_]
    seconds: NDArray[np.float64]
    route: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.status)

    def solution(self, i: int) -> Solution:
        """Row i as a `Solution`; its x is a copy."""
        x = self.x[i].copy() if self.found[i] else None
        return Solution(x, float(self.objective[i]), float(self.bound[i]), self.status[i], float(self.seconds[i]))

    @classmethod
    def of(cls, solutions: Sequence[Solution], n: int, route: Sequence[str] = ()) -> SolutionBatch:
        """Put solutions with n entries each together; `route` defaults to empty strings."""
        import numpy as np

        x = np.zeros((len(solutions), n))
        for row, s in zip(x, solutions, strict=True):
            if s.x is not None:
                row[:] = s.x
        return cls(
            x=x,
            objective=np.array([s.objective for s in solutions], dtype=np.float64),
            bound=np.array([s.bound for s in solutions], dtype=np.float64),
            status=tuple(s.status for s in solutions),
            found=np.array([s.x is not None for s in solutions], dtype=bool),
            seconds=np.array([s.seconds for s in solutions], dtype=np.float64),
            route=tuple(route) or ("",) * len(solutions),
        )


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

    def solve_costs(
        self, inst: Instance, costs: NDArray[np.float64], *, time_limit_s: float, seed: int = 0
    ) -> SolutionBatch:
        """Solve the constraints of `inst` under each row of `costs [B, n]` float64; its own cost plays no part.

        The fast path of learning loops, where one set of constraints meets thousands of costs. Default: `solve_batch`.
        Raises InvalidInput for a cost that is not finite.
        """
        found = self.solve_batch([replace(inst, cost=c) for c in costs], time_limit_s=time_limit_s, seed=seed)
        return SolutionBatch.of(found, costs.shape[1])
