"""Answers of HiGHS: exact, the same every time, honest about time, and no bad question is answered."""

import dataclasses
import itertools
import math
import time

import highspy
import numpy as np
import pytest

from tian.errors import InvalidInput, RunError
from tian.spec import Instance
from tian_genco.problem import Milp, Row
from tian_genco.solving.engine import complete
from tian_genco.solving.highs import HighsSolver
from tian_genco.solving.options import HighsOptions


def mixed(seed, n=12, further=6):
    """Integers that carry the cost and continuous columns, bound together by rows of every sort."""
    rng = np.random.default_rng(seed)
    m = n + further
    rows = [Row(np.arange(m), rng.normal(size=m), -0.3, 0.3, f"band {i}") for i in range(5)]
    rows.append(Row(np.arange(n), np.ones(n), float(n // 2), float(n // 2), "half"))
    integer = np.arange(m) < n
    return Milp.of(rows, n=n, lower=np.where(integer, 0.0, -1.0), upper=np.ones(m), integer=integer)


def packing(seed, n=12):
    """Relaxed, its optimum can often be rounded to a solution, rarely to the best."""
    rng = np.random.default_rng(seed)
    rows = [Row(np.arange(n), rng.integers(1, 9, n).astype(float), -np.inf, 20.0) for _ in range(3)]
    return Milp.of(rows, n=n, lower=np.zeros(n), upper=np.full(n, 3.0), integer=np.ones(n, bool))


def knapsack(n=60):
    rng = np.random.default_rng(0)
    rows = [Row(np.arange(n), w, -np.inf, w.sum() / 3) for w in rng.integers(1, 40, (8, n)).astype(float)]
    milp = Milp.of(rows, n=n, lower=np.zeros(n), upper=np.ones(n), integer=np.ones(n, bool))
    return milp.instance(-rng.integers(10, 30, n).astype(float))


def key(s):
    return (s.status, s.objective, s.bound, None if s.x is None else s.x.tobytes())


def test_many_costs_on_a_used_solver_get_the_answers_of_fresh_ones():
    problem, used = mixed(0), HighsSolver()
    for cost in np.random.default_rng(1).normal(size=(20, 12)):
        warm = used.solve(problem.instance(cost), time_limit_s=30)
        cold = HighsSolver().solve(problem.instance(cost), time_limit_s=30)
        assert key(warm) == key(cold)
        assert warm.status == "optimal"
        assert warm.objective == cost @ warm.x
        assert warm.objective - 1e-6 <= warm.bound <= warm.objective
        assert np.array_equal(warm.x, np.round(warm.x))


@pytest.mark.parametrize("options", [{"cascade": True}, {"presolve": False}, {"mip_gap": 1e-5}])
def test_every_route_finds_the_same_optimum(options):
    solver, plain = HighsSolver(HighsOptions(**options)), HighsSolver()
    for seed in range(6):
        problem = mixed(seed) if seed < 3 else packing(seed)
        costs = np.random.default_rng(seed).normal(size=(6, 12))
        got = solver.solve_costs(problem.instance(), costs, time_limit_s=30)
        want = plain.solve_costs(problem.instance(), costs, time_limit_s=30)
        assert got.status == want.status
        np.testing.assert_allclose(got.objective, want.objective, atol=1e-4, rtol=0)


def assignment(n, *, integer=True):
    """Its relaxation is integral."""
    rows = [Row(np.arange(n) + n * i, np.ones(n), 1.0, 1.0) for i in range(n)]
    rows += [Row(np.arange(n) * n + i, np.ones(n), 1.0, 1.0) for i in range(n)]
    return Milp.of(rows, n=n * n, lower=np.zeros(n * n), upper=np.ones(n * n), integer=np.full(n * n, integer))


def test_the_cascade_takes_an_integral_relaxation_and_leaves_another():
    costs = np.random.default_rng(0).normal(size=(5, 25))
    solver = HighsSolver(HighsOptions(cascade=True))
    got = solver.solve_costs(assignment(5).instance(), costs, time_limit_s=30)
    assert got.route == ("lp",) * 5
    best = [min(sum(c[5 * i + p[i]] for i in range(5)) for p in itertools.permutations(range(5))) for c in costs]
    np.testing.assert_allclose(got.objective, best, atol=1e-9)
    assert HighsSolver().solve_costs(assignment(5).instance(), costs[:1], time_limit_s=30).route == ("mip",)
    assert "mip" in solver.solve_costs(mixed(0).instance(), costs[:, :12], time_limit_s=30).route


@pytest.mark.parametrize("integer", [False, True])
def test_of_many_optima_the_same_one_is_found_whatever_was_asked_before(integer):
    problem = assignment(5, integer=integer)
    for options in ({}, {"cascade": True}):
        used = HighsSolver(HighsOptions(**options))
        for cost in np.random.default_rng(4).integers(0, 2, (12, 25)).astype(float):
            fresh = HighsSolver(used.options).solve(problem.instance(cost), time_limit_s=30)
            assert key(used.solve(problem.instance(cost), time_limit_s=30)) == key(fresh)


@pytest.mark.parametrize("cascade", [False, True])
def test_tiny_costs_are_not_swallowed_by_the_absolute_gap(cascade):
    for seed in range(6):
        problem = mixed(seed) if seed < 2 else packing(seed)
        cost = -np.abs(np.random.default_rng(seed).normal(size=12))
        want = HighsSolver().solve(problem.instance(cost), time_limit_s=30)
        tiny = HighsSolver(HighsOptions(cascade=cascade)).solve(problem.instance(cost * 2.0**-60), time_limit_s=30)
        assert np.array_equal(tiny.x, want.x)
        assert tiny.objective == pytest.approx(want.objective * 2.0**-60, rel=1e-12)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_cost_that_is_not_finite_is_named_by_place(bad):
    problem, costs = mixed(0), np.zeros((4, 12))
    costs[2, 7] = bad
    with pytest.raises(InvalidInput, match=f"cost 2: entry 7 is {bad}"):
        HighsSolver().solve_costs(problem.instance(), costs, time_limit_s=1)
    with pytest.raises(InvalidInput, match="cost 2: entry 7"):
        HighsSolver().solve_batch([problem.instance(c) for c in costs], time_limit_s=1)
    with pytest.raises(InvalidInput, match="the cost: entry 7"):
        HighsSolver().solve(problem.instance(costs[2]), time_limit_s=1)


def test_other_payloads_kinds_shapes_and_limits_are_refused():
    problem, solver = mixed(0), HighsSolver()
    for inst, why in (
        (Instance("milp", np.zeros(12), None), "not a Problem"),
        (Instance("brush", np.zeros(12), problem), "does not fit its payload"),
        (Instance("milp", np.zeros(11), problem), "needs \\[12\\]"),
    ):
        with pytest.raises(InvalidInput, match=why):
            solver.solve(inst, time_limit_s=1)
    with pytest.raises(InvalidInput, match="NaN"):
        solver.solve(problem.instance(), time_limit_s=math.nan)
    with pytest.raises(InvalidInput, match="warm start"):
        solver.solve(problem.instance(), time_limit_s=1, warm_start=np.zeros(3))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_half_precision_costs_are_solved_in_double(dtype):
    cost = np.random.default_rng(5).normal(size=12).astype(dtype)
    got = HighsSolver().solve(dataclasses.replace(mixed(0).instance(), cost=cost), time_limit_s=30)
    want = HighsSolver().solve(mixed(0).instance(cost.astype(np.float64)), time_limit_s=30)
    assert key(got) == key(want)
    assert got.x.dtype == np.float64


# -- statuses ----------------------------------------------------------------------------------------------------------


def test_the_limit_leaves_an_incumbent_with_a_bound_or_nothing():
    inst, solver = knapsack(), HighsSolver()
    begin = time.perf_counter()
    some = solver.solve(inst, time_limit_s=0.1)
    assert time.perf_counter() - begin < 5
    assert some.status in ("feasible", "timeout")
    none = solver.solve(inst, time_limit_s=0.0)
    assert (none.status, none.x, none.bound) == ("timeout", None, -math.inf)
    started = solver.solve(inst, time_limit_s=0.3, warm_start=np.zeros(60))
    assert started.status in ("feasible", "optimal")
    assert started.bound <= started.objective == inst.cost @ started.x
    assert inst.payload.broken(started.x) == ""


def test_infeasible_and_unbounded_are_told_apart():
    one = np.array([0])
    empty = Milp.of(
        [Row(one, np.ones(1), 2.0, 2.0)], n=1, lower=np.zeros(1), upper=np.ones(1), integer=np.ones(1, bool)
    )
    free = Milp.of([], n=1, lower=np.zeros(1), upper=np.full(1, np.inf), integer=np.ones(1, bool))
    even = Row(np.arange(3), np.full(3, 2.0), 3.0, 3.0)
    odd = Milp.of(
        [even, Row(np.array([0, 3]), np.array([1.0, -1.0]), -np.inf, 2.0)],
        n=4,
        lower=np.zeros(4),
        upper=np.array([9.0, 9.0, 9.0, np.inf]),
        integer=np.ones(4, bool),
    )
    s = HighsSolver()
    assert s.solve(empty.instance(), time_limit_s=9).status == "infeasible"
    assert s.solve(empty.instance(), time_limit_s=9).bound == math.inf
    assert s.solve(free.instance(-np.ones(1)), time_limit_s=9).status == "unbounded"
    assert s.solve(free.instance(np.ones(1)), time_limit_s=9).x.tolist() == [0.0]
    for presolve in (True, False):  # HiGHS calls it unbounded without, as its relaxation is
        got = HighsSolver(HighsOptions(presolve=presolve)).solve(odd.instance(-np.ones(4)), time_limit_s=9)
        assert (got.status, got.bound) == ("infeasible", math.inf)


def test_a_wide_gap_is_not_called_optimal():
    got = HighsSolver(HighsOptions(mip_gap=0.5)).solve(knapsack(), time_limit_s=30)
    assert got.status == "feasible"
    assert got.bound < got.objective


def test_a_program_without_integers_is_solved_as_one():
    milp = Milp.of(
        [Row(np.arange(2), np.ones(2), 1.5, np.inf)],
        n=2,
        lower=np.zeros(2),
        upper=np.ones(2),
        integer=np.zeros(2, bool),
    )
    got = HighsSolver().solve_costs(milp.instance(), np.array([[1.0, 3.0]]), time_limit_s=9)
    assert got.x.tolist() == [[1.0, 0.5]]
    assert (got.status, got.route) == (("optimal",), ("lp",))


# -- columns, files, neighbours ----------------------------------------------------------------------------------------


def test_the_further_columns_of_a_solution_can_be_had():
    problem = mixed(0)
    got = HighsSolver().solve(problem.instance(np.arange(12.0)), time_limit_s=30)
    y = complete(problem, got.x)
    assert np.array_equal(y[:12], got.x)
    assert problem.residual(y) <= 1e-6
    assert complete(problem, np.ones(12)) is None
    with pytest.raises(InvalidInput, match="12 finite numbers"):
        complete(problem, np.ones(5))


def test_a_saved_instance_has_the_same_optimum(tmp_path):
    inst = mixed(2).instance(np.random.default_rng(2).normal(size=12))
    HighsSolver().save_mps(inst, tmp_path / "it.mps")
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    highs.setOptionValue("threads", 1)
    highs.readModel(str(tmp_path / "it.mps"))
    highs.setOptionValue("mip_rel_gap", 0.0)
    highs.run()
    want = HighsSolver().solve(inst, time_limit_s=30).objective
    assert highs.getInfo().objective_function_value == pytest.approx(want, abs=1e-6)
    with pytest.raises(RunError, match="cannot write"):
        HighsSolver().save_mps(inst, tmp_path / "none" / "it.mps")


def test_another_user_of_highs_with_more_threads_does_not_stop_ours():
    highspy.Highs.resetGlobalScheduler(True)
    other = highspy.Highs()
    other.setOptionValue("output_flag", False)
    other.setOptionValue("threads", 2)
    other.addVariable(lb=0, ub=1, type=highspy.HighsVarType.kInteger)
    other.run()
    assert HighsSolver().solve(mixed(0).instance(), time_limit_s=9).status == "optimal"
