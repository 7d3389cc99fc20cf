"""Conflicting rows: a conflict indeed, and none of them can be spared."""

import dataclasses

import numpy as np
import pytest

from tian_genco.problem import Milp, Problem, Row
from tian_genco.solving import infeasible
from tian_genco.solving.highs import HighsSolver
from tian_genco.solving.infeasible import conflict

N = 8


def milp(rows):
    return Milp.of(rows, n=N, lower=np.zeros(N), upper=np.ones(N), integer=np.ones(N, bool))


def status(rows):
    return HighsSolver().solve(milp(rows).instance(), time_limit_s=30).status


def crowd(rng, count=24):
    """Random rows, infeasible together."""
    rows = []
    while True:
        w = rng.integers(-2, 3, N).astype(float)
        lower = float(rng.integers(-1, 4))
        rows.append(Row(np.arange(N), w, lower, lower + 1.5, f"rule {len(rows)}"))
        if len(rows) >= count and status(rows) == "infeasible":
            return rows


@pytest.mark.parametrize("seed", range(6))
def test_the_conflict_is_one_and_every_row_of_it_is_needed(seed):
    rows = crowd(np.random.default_rng(seed))
    got = conflict(milp(rows), time_limit_s=60)
    assert got.status == "minimal"
    core = [r for r in rows if r.name in got.rows]
    assert len(core) == len(got.rows)
    assert status(core) == "infeasible"
    for left_out in core:
        assert status([r for r in core if r is not left_out]) == "optimal"


def test_a_planted_conflict_is_found_by_name():
    rng = np.random.default_rng(0)
    rows = [Row(np.arange(N), rng.random(N), -np.inf, 99.0, f"slack {i}") for i in range(40)]
    rows.insert(11, Row(np.arange(4), np.ones(4), 3.0, np.inf, "three of the left"))
    rows.insert(30, Row(np.arange(N), np.ones(N), -np.inf, 2.0, "two in all"))
    assert conflict(milp(rows), time_limit_s=60).rows == ("three of the left", "two in all")
    assert conflict(milp(rows), time_limit_s=60, suspects=["two in all", "slack 3"]).rows == ("two in all",)
    assert conflict(milp(rows), time_limit_s=60, suspects=["slack 3"]).rows == ()  # the others are in conflict already


def test_rows_told_on_demand_take_part():
    @dataclasses.dataclass(frozen=True, eq=False)
    class OnDemand(Problem):
        kind = "milp"
        n = N

        def milp(self):
            return milp([Row(np.arange(N), np.ones(N), 2.0, np.inf, "two"), Row(np.arange(N), np.ones(N), 0.0, 9.0)])

        def lazy(self, x):
            return [Row(np.arange(N), np.ones(N), -np.inf, 1.0, "one")] if x.sum() > 1.5 else []

        def broken(self, x):
            return ""

    got = conflict(OnDemand(), time_limit_s=60)
    assert (got.rows, got.status) == (("two", "one"), "minimal")


def test_other_outcomes_are_told():
    ok = [Row(np.arange(N), np.ones(N), 1.0, 2.0)]
    assert conflict(milp(ok), time_limit_s=60) == infeasible.Conflict((), "feasible")
    bad = [*ok, Row(np.arange(N), np.ones(N), 5.0, 6.0)]
    assert conflict(milp(bad), time_limit_s=0.0).status == "undecided"
    assert conflict(milp(bad), time_limit_s=60).rows == ("row 0", "row 1")
    bounds = Milp.of([], n=1, lower=np.array([0.2]), upper=np.array([0.8]), integer=np.ones(1, bool))
    assert conflict(bounds, time_limit_s=60) == infeasible.Conflict((), "minimal")


def test_a_limit_that_cuts_it_short_is_told(monkeypatch):
    rows = crowd(np.random.default_rng(1))
    real, calls = infeasible.Engine.solve, []

    def slow(self, cost, *, time_limit_s, **kwargs):
        calls.append(time_limit_s)
        return real(self, cost, time_limit_s=time_limit_s if len(calls) < 4 else 0.0, **kwargs)

    monkeypatch.setattr(infeasible.Engine, "solve", slow)
    got = conflict(milp(rows), time_limit_s=60)
    monkeypatch.undo()
    assert got.status == "reduced"
    assert status([r for r in rows if r.name in got.rows]) == "infeasible"
    assert calls[1] <= 15.0  # one question gets a quarter of what is left
