"""The rules of a path: against HiGHS, against brute force, and one broken after the other."""

import itertools
import re

import numpy as np
import pytest
import scipy.optimize
from scipy.sparse import csr_array

from tian.errors import InvalidInput
from tian_genco.paths.grid import GridPathSolver
from tian_genco.paths.problem import PathProblem
from tian_genco.solving.highs import HighsSolver


def highs(problem, cost, *, lazy=False):
    """Optimal x and value of the rows, with lazy rows added until none is broken."""
    milp = problem.milp()
    while True:
        rows = csr_array((milp.values, milp.indices, milp.indptr), shape=(len(milp.row_lower), len(milp.col_lower)))
        found = scipy.optimize.milp(
            np.append(cost, np.zeros(len(milp.col_lower) - problem.n)),
            constraints=scipy.optimize.LinearConstraint(rows, milp.row_lower, milp.row_upper),
            bounds=scipy.optimize.Bounds(milp.col_lower, milp.col_upper),
            integrality=milp.integer,
            options={"mip_rel_gap": 0.0},
        )
        assert found.success
        x = np.round(found.x[: problem.n])
        more = problem.lazy(x) if lazy else ()
        if not more:
            return x, found.fun
        milp = milp.with_rows(more)


def chordless_paths(height, width):
    """All of them, by growing paths and dropping those that touch themselves."""
    cells = list(itertools.product(range(height), range(width)))

    def near(a, b):
        return max(abs(a[0] - b[0]), abs(a[1] - b[1])) == 1

    def grow(path):
        if path[-1] == (height - 1, width - 1):
            yield path
            return
        for cell in cells:
            if cell not in path and near(cell, path[-1]) and not any(near(cell, p) for p in path[:-1]):
                yield from grow([*path, cell])

    return [frozenset(path) for path in grow([(0, 0)])]


@pytest.mark.parametrize("shape", [(2, 2), (3, 4), (6, 6), (1, 5)])
def test_highs_finds_what_the_solver_finds(shape):
    problem = PathProblem(*shape)
    for seed in range(4):
        cost = np.random.default_rng(seed).exponential(size=problem.n)
        x, value = highs(problem, cost)
        ours = GridPathSolver().solve(problem.instance(cost), time_limit_s=10.0)
        assert value == pytest.approx(ours.objective, abs=1e-9)
        assert np.array_equal(x, ours.x)


def test_our_general_solver_finds_the_same_paths():
    problem = PathProblem(12, 12)
    costs = np.random.default_rng(0).exponential(size=(3, problem.n))
    general = HighsSolver().solve_costs(problem.instance(), costs, time_limit_s=60.0)
    fast = GridPathSolver().solve_costs(problem.instance(), costs, time_limit_s=60.0)
    assert np.array_equal(general.x, fast.x)
    assert np.abs(general.objective - fast.objective).max() <= 1e-9


@pytest.mark.parametrize("shape", [(2, 3), (3, 3), (3, 4)])
def test_the_checker_accepts_the_chordless_paths_and_nothing_else(shape):
    problem, paths = PathProblem(*shape), set(chordless_paths(*shape))
    for bits in itertools.product((0.0, 1.0), repeat=problem.n):
        x = np.array(bits)
        marked = frozenset(divmod(int(v), shape[1]) for v in np.flatnonzero(x))
        assert (problem.broken(x) == "") == (marked in paths)


def test_with_lazy_rows_negative_costs_are_solved_too():
    problem = PathProblem(5, 5)
    paths = [np.array([(i, j) in p for i in range(5) for j in range(5)], float) for p in chordless_paths(5, 5)]
    circles = 0
    for seed in range(6):
        cost = np.random.default_rng(seed).normal(size=25)
        cost[[2, 3, 4, 7, 9, 12, 13, 14]] -= 3.0  # a ring that pays
        cost[[0, 6, 18, 24]] += 1.0
        x, value = highs(problem, cost, lazy=True)
        assert problem.broken(x) == ""
        assert value == pytest.approx(min(float(cost @ p) for p in paths), abs=1e-7)
        circles += bool(problem.broken(highs(problem, cost)[0]))
    assert circles  # without them, the docstring's warning comes true


def test_every_chordless_path_meets_all_rows_and_lazy_rows():
    problem = PathProblem(4, 4)
    milp = problem.milp()
    ring = np.zeros(16)
    ring[[0, 5, 10, 15]] = 1.0
    apart = np.zeros(25)
    apart[[0, 5, 10, 15, 21, 22, 23, 24, 3, 4, 8, 9]] = 1.0
    (row,) = PathProblem(5, 5).lazy(apart)
    for path in chordless_paths(4, 4):
        x = np.array([(i, j) in path for i in range(4) for j in range(4)], float)
        order = order_of(x, 4)
        flow = dict.fromkeys(itertools.pairwise(order), 1.0)
        arcs = [(u, v) for u in range(15) for v in problem._around(u) if v != 0]
        assert milp.residual(np.append(x, [flow.get(a, 0.0) for a in arcs])) == 0.0
        assert problem.lazy(x) == []
    assert row.value @ apart[row.index] < row.lower  # what is apart breaks the row
    for path in chordless_paths(5, 5)[::37]:
        x = np.array([(i, j) in path for i in range(5) for j in range(5)], float)
        assert row.value @ x[row.index] >= row.lower


def order_of(x, width):
    """Cells of a chordless path by distance along it."""
    left, order = set(np.flatnonzero(x).tolist()) - {0}, [0]
    while left:
        r, c = divmod(order[-1], width)
        (step,) = [v for v in left if max(abs(v // width - r), abs(v % width - c)) == 1]
        left.remove(step)
        order.append(step)
    return order


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        ("x.. .x. ..x", ""),
        ("... .x. ..x", r"start \(0, 0\) is not marked"),
        ("x.. .x. ...", r"goal \(2, 2\) is not marked"),
        ("x.. ... ..x", r"ends at \(0, 0\), before the goal \(2, 2\)"),
        ("xx. xx. ..x", r"forks at \(0, 0\), to \(0, 1\) and \(1, 0\)"),
        ("x.x .x. ..x", r"forks at \(1, 1\)"),
        ("x.... .x... ..x.. x..x. x...x", r"cell \(3, 0\) is not on the path"),
    ],
)
def test_a_broken_path_is_told_with_its_place(picture, message):
    rows = picture.split()
    x = np.array([cell == "x" for row in rows for cell in row], float)
    broken = PathProblem(len(rows), len(rows[0])).broken(x)
    assert (broken == "") if not message else re.search(message, broken)


def test_fractions_and_wrong_lengths_are_broken():
    problem = PathProblem(2, 2)
    assert "cell (0, 1) is 0.5, neither 0 nor 1" in problem.broken(np.array([1.0, 0.5, 0.0, 1.0]))
    assert "shape [3]" in problem.broken(np.ones(3))
    assert problem.broken(np.array([1.0, np.nan, 0.0, 1.0])) != ""


@pytest.mark.parametrize("shape", [(0, 3), (3, -1), (1, 1)])
def test_a_grid_without_a_way_is_refused(shape):
    with pytest.raises(InvalidInput, match="two cells or more"):
        PathProblem(*shape)
