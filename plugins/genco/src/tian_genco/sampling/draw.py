"""Designs under costs and rules, each with a proof: the cheapest question first.

Whatever is optimal without some rules and happens to obey them is optimal with them. So a row is answered by the solver
of fewer rules when its design obeys all, and asked again under all of them when it does not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tian.spec import SolutionBatch
from tian_genco.learn.task import solve_all
from tian_genco.problem import TOLERANCE
from tian_genco.solving.diverse import hamming_row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tian.runs.rundir import Run
    from tian.spec import Solver
    from tian_genco.problem import Floats, Row
    from tian_genco.solving.diverse import Extended


@dataclass(frozen=True)
class Drawn:
    """Answers and what they are answers to.

    Attributes:
        costs: `[m, n]`.
        batch: the m answers.
        problems: m problems; with a least distance each has rows that the earlier designs brought.
        exhausted: proven: no further design is far enough from all of these. The last answer is the proof.
    """

    costs: Floats
    batch: SolutionBatch
    problems: tuple[Extended, ...]
    exhausted: bool = False

    def take(self, rows: NDArray[np.int64]) -> Drawn:
        """Some of the rows."""
        old = self.batch
        batch = replace(
            old,
            x=old.x[rows],
            objective=old.objective[rows],
            bound=old.bound[rows],
            found=old.found[rows],
            seconds=old.seconds[rows],
            status=tuple(old.status[i] for i in rows),
            route=tuple(old.route[i] for i in rows),
        )
        return Drawn(self.costs[rows], batch, tuple(self.problems[i] for i in rows), self.exhausted)


def draw(
    problem: Extended,
    costs: Floats,
    *,
    solver: Solver,
    time_limit_s: float,
    run: Run,
    free: SolutionBatch | None = None,
    min_hamming: int = 0,
    cells: NDArray[np.int64] | None = None,
) -> Drawn:
    """One design for each row of `costs [m, n]`, fewer when no more exist.

    Args:
        problem: all rules.
        costs: see above.
        solver: takes the kind of the problem.
        time_limit_s: of each solve; a row that ends without a design stays among the answers.
        run: for progress.
        free: answers under the same costs to fewer rules.
        min_hamming: places in which each design differs from those before it, see `hamming_row`; 0: none. The set grows
            greedily: when it is exhausted, another one might have been larger.
        cells: as in `hamming_row`.
    """
    batch = _under_rules(problem, costs, solver=solver, time_limit_s=time_limit_s, run=run, free=free)
    if not min_hamming or "infeasible" in batch.status:
        return Drawn(costs, batch, (problem,) * len(costs))
    answers, routes = [batch.solution(i) for i in range(len(batch))], list(batch.route)
    problems: list[Extended] = []
    with run.progress(len(costs), f"{min_hamming} places apart") as bar:
        for i, cost in enumerate(costs):
            x = answers[i].x
            if x is not None and not all(met(row, x) for row in problem.rows):
                again = solver.solve_costs(problem.instance(), cost[None], time_limit_s=time_limit_s)
                answers[i], routes[i] = again.solution(0), again.route[0]
                x = answers[i].x
            problems.append(problem)
            bar.advance(1)
            if answers[i].status == "infeasible":
                break
            if x is not None:
                problem = problem.and_rows([hamming_row(x, cells, min_hamming)])
    m = len(problems)
    batch = SolutionBatch.of(answers[:m], problem.n, routes[:m])
    return Drawn(costs[:m], batch, tuple(problems), exhausted=batch.status[-1] == "infeasible")


def met(row: Row, x: Floats) -> bool:
    """Whether `x [n]` meets a row over x alone."""
    return bool(row.lower - TOLERANCE <= row.value @ x[row.index] <= row.upper + TOLERANCE)


def _under_rules(
    problem: Extended, costs: Floats, *, solver: Solver, time_limit_s: float, run: Run, free: SolutionBatch | None
) -> SolutionBatch:
    known: Sequence[int] = ()
    if free is not None:
        known = [i for i, s in enumerate(free.status) if s == "optimal" and not problem.broken(free.x[i])]
    left = np.setdiff1d(np.arange(len(costs)), known)
    if free is not None and not len(left):
        return free
    asked = solve_all(solver, problem, costs[left], time_limit_s=time_limit_s, run=run, desc="designs under rules")
    if free is None:
        return asked
    place = {int(i): k for k, i in enumerate(left)}
    answers = [asked.solution(place[i]) if i in place else free.solution(i) for i in range(len(costs))]
    routes = [asked.route[place[i]] if i in place else free.route[i] for i in range(len(costs))]
    return SolutionBatch.of(answers, problem.n, routes)
