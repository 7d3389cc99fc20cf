"""The part of the solver that runs in every process: compiled problems, and answers from them."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from dataclasses import replace
from typing import NamedTuple

from tian.spec import Solution
from tian_genco.problem import TOLERANCE, Floats, Problem
from tian_genco.solving.engine import Engine, Outcome, rounded, solve_lazily
from tian_genco.solving.options import HighsOptions

KEPT = 8  # problems kept compiled; the one that was not asked for longest goes first


class Answer(NamedTuple):
    """A solution and its route, `lp` or `mip`."""

    solution: Solution
    route: str


class Kept:
    """Answers questions about problems, each compiled once."""

    def __init__(self, options: HighsOptions) -> None:
        self._options = options
        self._engines: OrderedDict[Problem, list[Engine]] = OrderedDict()

    def answer(
        self, problem: Problem, cost: Floats, *, time_limit_s: float, seed: int, start: Floats | None = None
    ) -> Answer:
        """Minimise cost . x; the limit does not count the one compilation of a problem."""
        engines = self._compiled(problem)
        begin = time.perf_counter()
        outcome = None
        if len(engines) > 1:
            outcome = _integral(engines[1].solve(cost, time_limit_s=time_limit_s), problem, engines[0], cost)
        if outcome is None:
            rest = time_limit_s - (time.perf_counter() - begin)
            outcome = solve_lazily(engines[0], problem, cost, time_limit_s=rest, seed=seed, start=start)
        seconds = time.perf_counter() - begin
        if outcome.y is None:
            return Answer(Solution(None, math.nan, outcome.bound, outcome.status, seconds), outcome.route)
        x = outcome.y[: problem.n].copy()
        return Answer(Solution(x, float(cost @ x), outcome.bound, outcome.status, seconds), outcome.route)

    def _compiled(self, problem: Problem) -> list[Engine]:
        """The program, and its relaxation when the cascade is on and it differs."""
        engines = self._engines.get(problem)
        if engines is None:
            milp = problem.milp()
            engines = [Engine(milp, self._options)]
            if self._options.cascade and milp.integer.any():
                engines.append(Engine(milp, self._options, relaxed=True))
            self._engines[problem] = engines
            if len(self._engines) > KEPT:
                self._engines.popitem(last=False)
        self._engines.move_to_end(problem)
        return engines


def _integral(outcome: Outcome, problem: Problem, engine: Engine, cost: Floats) -> Outcome | None:
    """The outcome of a relaxation as that of the program, None when rounding it breaks a rule or costs anything."""
    if outcome.status != "optimal" or outcome.y is None:
        return None
    y = rounded(engine.milp, outcome.y)
    value = float(cost @ y[: problem.n])
    unit = min(1.0, float(abs(cost).max(initial=0.0)))  # costs may be tiny as a whole
    tight = value - outcome.bound <= TOLERANCE * max(unit, abs(value))
    if not (tight and engine.milp.residual(y) <= TOLERANCE) or problem.lazy(y[: problem.n]):
        return None
    return replace(outcome, y=y, bound=min(outcome.bound, value))
