"""Small solvers and polytopes whose optima can be seen; shared by the tests of gradients."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import numpy as np

from tian.spec import Instance, Solution, SolutionBatch, Solver
from tian_genco.problem import Milp, Row


def choose(k: int, n: int) -> Milp:
    """Exactly k of n."""
    row = Row.of(dict.fromkeys(range(n), 1.0), lower=k, upper=k, name="count")
    return Milp.of([row], n=n, lower=np.zeros(n), upper=np.ones(n), integer=np.ones(n, bool))


def vertices_of(problem: Milp) -> np.ndarray:
    """`[V, n]`: every binary x that meets the rules."""
    every = np.array(list(itertools.product([0.0, 1.0], repeat=problem.n)))
    return every[[not problem.broken(x) for x in every]]


class VertexSolver(Solver):
    """The best of listed vertices, many costs at once; rows listed in `late` time out."""

    kinds: ClassVar[frozenset[str]] = frozenset({"milp"})

    def __init__(self, vertices: np.ndarray, *, status: str = "optimal", late: Any = ()) -> None:
        self.vertices = vertices
        self.status = status
        self.late = late
        self.asked: list[np.ndarray] = []

    def solve(self, inst: Instance, *, time_limit_s: float, seed: int = 0, warm_start: Any = None) -> Solution:
        return self.solve_costs(inst, inst.cost[None], time_limit_s=time_limit_s).solution(0)

    def solve_costs(self, inst: Instance, costs: np.ndarray, *, time_limit_s: float, seed: int = 0) -> SolutionBatch:
        self.asked.append(costs.copy())
        best = (costs @ self.vertices.T).argmin(1)
        x = self.vertices[best].copy()
        objective = (x * costs).sum(1)
        found = np.full(len(costs), self.status in ("optimal", "feasible"))
        found[list(self.late)] = False
        x[~found] = 0.0
        objective[~found] = np.nan
        status = [self.status if f or self.status != "optimal" else "timeout" for f in found]
        return SolutionBatch(
            x,
            objective,
            np.full(len(costs), -np.inf),
            tuple(status),
            found,
            np.zeros(len(costs)),
            ("toy",) * len(costs),
        )
