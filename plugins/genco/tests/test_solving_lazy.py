"""Rows that a problem tells on demand, and equal costs that are solved once."""

import dataclasses
import itertools

import numpy as np
import pytest

from tian.errors import RunError
from tian_genco.problem import Milp, Problem, Row
from tian_genco.solving.engine import Engine, solve_lazily
from tian_genco.solving.highs import HighsSolver
from tian_genco.solving.options import HighsOptions


def key(s):
    return (s.status, s.objective, s.bound, None if s.x is None else s.x.tobytes())


@dataclasses.dataclass(frozen=True, eq=False)
class Spread(Problem):
    """Choose four of n in a ring, no two neighbours; the second rule is told on demand."""

    kind = "milp"
    size: int = 9
    useless: bool = False

    @property
    def n(self):
        return self.size

    def milp(self):
        rows = [Row(np.arange(self.size), np.ones(self.size), 4.0, 4.0, "four")]
        return Milp.of(rows, n=self.n, lower=np.zeros(self.n), upper=np.ones(self.n), integer=np.ones(self.n, bool))

    def lazy(self, x):
        pairs = [(i, (i + 1) % self.n) for i in range(self.n)]
        rows = [Row(np.array(p), np.ones(2), -np.inf, 1.0, f"pair {p}") for p in pairs if x[list(p)].sum() > 1.5]
        return [dataclasses.replace(r, upper=2.0) for r in rows] if self.useless else rows

    def broken(self, x):
        return "neighbours" if any(x[i] + x[i - 1] > 1.5 for i in range(self.n)) else ""


@pytest.mark.parametrize("cascade", [False, True])
def test_lazy_rows_are_met_and_forgotten(cascade):
    problem, solver = Spread(), HighsSolver(HighsOptions(cascade=cascade))
    allowed = [
        x
        for c in itertools.combinations(range(9), 4)
        if problem.broken(x := np.isin(np.arange(9), c).astype(float)) == ""
    ]
    for cost in np.random.default_rng(0).normal(size=(8, 9)):
        got = solver.solve(problem.instance(cost), time_limit_s=30)
        assert got.status == "optimal"
        assert got.objective == pytest.approx(min(cost @ x for x in allowed), abs=1e-9)
        assert got.bound <= got.objective
        assert key(got) == key(HighsSolver(solver.options).solve(problem.instance(cost), time_limit_s=30))
    assert solver.solve(Spread(7).instance(), time_limit_s=30).status == "infeasible"
    engine = Engine(problem.milp())
    solve_lazily(engine, problem, np.arange(9.0), time_limit_s=9)
    assert engine._highs.getNumRow() == 1


def test_a_lazy_row_that_cuts_nothing_off_is_an_error_and_no_endless_loop():
    with pytest.raises(RunError, match="are met by the x"):
        HighsSolver().solve(Spread(useless=True).instance(np.arange(9.0)), time_limit_s=9)


def test_equal_costs_are_solved_once_and_share_no_memory():
    problem, asked = Spread(), []

    class Counting(Spread):
        def lazy(self, x):
            asked.append(1)
            return ()

    problem = Counting()
    cost = np.arange(9.0)
    got = HighsSolver().solve_batch(
        [problem.instance(c) for c in (cost, np.where(cost == 0, -0.0, cost), -cost, cost)], time_limit_s=9
    )
    assert len(asked) == 2
    got[0].x[:] = 7.0
    assert got[3].x.max() == 1.0
