"""Brush designs: the rules by program, checker and enumeration; the solver against both; the kit."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tian.errors import InvalidInput
from tian.testing import conformance
from tian_genco.devices.brush import BRUSHES, BrushRules, offsets
from tian_genco.devices.options import BrushOptions
from tian_genco.devices.profile import compile_profile
from tian_genco.devices.solver import BrushSolver
from tian_genco.levels.rules import LevelRules
from tian_genco.problem import Milp
from tian_genco.solving.certificate import certify
from tian_genco.solving.engine import complete
from tian_genco.solving.highs import HighsSolver

CASES = [
    BrushRules(4, 5, "plus"),
    BrushRules(5, 5, "plus", ((2, 0), (2, 4))),
    BrushRules(3, 4, "square", ((0, 0),)),
    BrushRules(4, 5, "block"),
    BrushRules(3, 4, "bar", ((2, 3),)),
]
LIMIT = 20.0


def unions(rules):
    """Every valid design, `[k, n]`, by trying every set of stamps."""
    stamps = rules.stamps()
    every = set()
    for chosen in itertools.product((False, True), repeat=len(stamps)):
        x = np.zeros(rules.n)
        for cells in itertools.compress(stamps, chosen):
            x[cells] = 1.0
        every.add(x.tobytes())
    designs = np.array([np.frombuffer(b) for b in sorted(every)])
    return designs[[all(x[r * rules.width + c] for r, c in rules.contacts) for x in designs]]


ENUMERATED = {rules: unions(rules) for rules in CASES}


@pytest.mark.parametrize("rules", CASES, ids=str)
def test_the_solver_finds_the_minimum_of_all_designs(rules):
    rng = np.random.default_rng(0)
    costs = rng.normal(size=(60, rules.n)) + rng.uniform(-0.5, 0.5, (60, 1))
    batch = BrushSolver().solve_costs(rules.instance(), costs, time_limit_s=LIMIT)
    best = (ENUMERATED[rules] @ costs.T).min(axis=0)
    assert np.allclose(batch.objective, best, rtol=0, atol=1e-12)  # sums of at most 25 numbers of size 1
    assert set(batch.route) == {"profile"}
    assert all(rules.broken(x) == "" for x in batch.x)
    assert len(np.unique(batch.x, axis=0)) > 5


@pytest.mark.parametrize("rules", CASES, ids=str)
def test_checker_and_program_accept_unions_of_stamps_and_nothing_else(rules):
    rng = np.random.default_rng(1)
    valid = {x.tobytes() for x in ENUMERATED[rules]}
    some = ENUMERATED[rules][rng.permutation(len(valid))[:25]]
    flipped = some.copy()
    flipped[np.arange(len(some)), rng.integers(rules.n, size=len(some))] += 1
    anything = (rng.random((25, rules.n)) < 0.5).astype(float)
    for x in np.concatenate([some, flipped % 2, anything]):
        good = x.tobytes() in valid
        assert (rules.broken(x) == "") == good
        y = complete(rules, x)
        assert (y is not None and rules.milp().residual(y) < 1e-6) == good


@pytest.mark.parametrize("rules", CASES, ids=str)
def test_all_designs_of_a_small_grid_pass_the_checker(rules):
    assert all(rules.broken(x) == "" for x in ENUMERATED[rules])


@pytest.mark.parametrize("brush", ["plus", "square", "block"])
def test_highs_agrees_on_a_grid_of_common_size(brush):
    rules = BrushRules(8, 10, brush, ((4, 0), (3, 9)))
    rng = np.random.default_rng(2)
    costs = np.concatenate([rng.normal(size=(2, rules.n)), rng.choice([-1.0, 1.0], (2, rules.n))])
    fast = BrushSolver().solve_costs(rules.instance(), costs, time_limit_s=LIMIT)
    slow = HighsSolver().solve_costs(rules.instance(), costs, time_limit_s=LIMIT)
    assert np.allclose(fast.objective, slow.objective, rtol=0, atol=1e-6)
    assert slow.status == fast.status == ("optimal",) * 4
    assert all(not c.verdict and c.residual < 1e-6 for c in certify(rules, costs, fast))


@given(st.integers(0, 10**6), st.sampled_from(["plus", "square", "bar"]), st.floats(0.01, 100))
def test_flips_and_scale_of_costs_carry_over_to_designs(seed, brush, scale):
    rules = BrushRules(6, 7, brush)
    cost = np.random.default_rng(seed).normal(size=(6, 7))
    asked = np.stack([c.ravel() for c in (cost, cost[::-1], cost[:, ::-1], scale * cost)])
    x = BrushSolver().solve_costs(rules.instance(), asked, time_limit_s=LIMIT).x.reshape(4, 6, 7)
    assert np.array_equal(x[1], x[0][::-1])
    assert np.array_equal(x[2], x[0][:, ::-1])
    assert np.array_equal(x[3], x[0])


def test_a_batch_is_answered_row_by_row():
    rules = BrushRules(6, 8)
    costs = np.random.default_rng(3).normal(size=(5, rules.n))
    solver = BrushSolver()
    whole = solver.solve_costs(rules.instance(), costs, time_limit_s=LIMIT)
    for i, cost in enumerate(costs):
        alone = solver.solve(rules.instance(cost), time_limit_s=LIMIT)
        assert np.array_equal(alone.x, whole.x[i])
        assert alone.objective == whole.objective[i]


def test_grids_too_tall_go_to_highs():
    rules = BrushRules(6, 8)
    costs = np.random.default_rng(4).normal(size=(2, rules.n))
    exact = BrushSolver().solve_costs(rules.instance(), costs, time_limit_s=LIMIT)
    other = BrushSolver(BrushOptions(max_states=3)).solve_costs(rules.instance(), costs, time_limit_s=LIMIT)
    assert set(other.route) == {"mip"}
    assert np.allclose(exact.objective, other.objective, rtol=0, atol=1e-6)
    assert compile_profile(40, np.array(offsets("plus")), max_states=10**6) is None  # 120 cells do not fit in 63 bits


def test_contacts_hold_whatever_they_cost():
    rules = BrushRules(5, 6, "plus", ((2, 0), (3, 5)))
    cost = np.ones(rules.n)
    cost[[12, 13]] = 1e12
    x = BrushSolver().solve(rules.instance(cost), time_limit_s=LIMIT).x
    assert x[12] == x[23] == 1
    assert rules.broken(x) == ""
    assert x.sum() == 10  # two stamps


def test_the_checker_names_the_first_offence():
    rules = BrushRules(5, 6, "plus", ((2, 0),))
    x = BrushSolver().solve(rules.instance(-np.ones(rules.n)), time_limit_s=LIMIT).x
    assert rules.broken(x) == ""
    for cell, value, said in (
        (12, 0.0, "contact (2,0) is not material"),
        (0, 1.0, "material at (0,0) is too thin"),
        (7, 0.5, "cell (1,1) is 0.5"),
        (7, float("nan"), "cell (1,1) is nan"),
    ):
        wrong = x.copy()
        wrong[cell] = value
        assert said in rules.broken(wrong)
    assert "29 numbers for 5 x 6" in rules.broken(x[1:])


def test_rows_have_names_and_corners_are_closed():
    milp = BrushRules(5, 5).milp()
    assert isinstance(milp, Milp)
    assert "stamp at (0, 0) paints (1,1)" in milp.row_names
    assert "material at (2,2) is painted" in milp.row_names
    assert milp.col_upper[: milp.n].reshape(5, 5)[[0, 0, 4, 4], [0, 4, 0, 4]].tolist() == [0.0] * 4
    assert milp.col_upper.sum() == 21 + 9


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"brush": "comb"}, "no brush 'comb'"),
        ({"height": 2, "width": 9}, "does not fit into 2 x 9"),
        ({"contacts": ((0, 0),)}, r"reaches the contact \(0, 0\)"),
        ({"contacts": ((3, 18),)}, r"reaches the contact \(3, 18\)"),
        ({"contacts": ((3, -1),)}, r"reaches the contact \(3, -1\)"),
    ],
)
def test_impossible_rules_are_refused(given_, said):
    with pytest.raises(InvalidInput, match=said):
        BrushRules(**given_)


@pytest.mark.parametrize(
    ("cost", "said"),
    [
        (np.full(20, np.nan), "is nan at row 0, column 0"),
        (np.zeros(19), r"are \[B, 20\], got \[1, 19\]"),
        (np.full(20, 1e308), "add up to infinity"),
    ],
)
def test_costs_that_cannot_be_solved_are_refused(cost, said):
    rules = BrushRules(4, 5)
    with pytest.raises(InvalidInput, match=said):
        BrushSolver().solve_costs(rules.instance(), cost[None], time_limit_s=LIMIT)


def test_other_problems_and_options_are_refused():
    with pytest.raises(InvalidInput, match="is no design of a brush"):
        BrushSolver().solve(LevelRules(5, 5).instance(), time_limit_s=LIMIT)
    with pytest.raises(InvalidInput, match="max_states must be >= 1"):
        BrushOptions(max_states=0)


def test_brushes_are_rectangles_of_text_that_touch_each_side():
    for name, lines in BRUSHES.items():
        cells = np.array(offsets(name))
        assert {len(line) for line in lines} == {cells[:, 1].max() + 1}
        assert len(lines) == cells[:, 0].max() + 1
        assert cells.min(axis=0).tolist() == [0, 0]


def kit_instances(seed):
    rng = np.random.default_rng(seed)
    return [rules.instance(rng.normal(size=rules.n)) for rules in CASES[:3]]


TestBrushSolver = conformance.solver(
    lambda **options: BrushSolver(BrushOptions(**options)),
    options=[{}, {"max_states": 3}],
    bad_options=[{"max_states": 0}],
    instances=kit_instances,
    feasible=lambda inst, x: inst.payload.broken(x) == "",
    brute=lambda inst: float((ENUMERATED[inst.payload] @ inst.cost).min()),
)
