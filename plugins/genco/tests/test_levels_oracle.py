"""The oracle is exact: against every level of 5 x 5 cells, and against branch and bound on the rows."""

import importlib.util
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tian.errors import InvalidInput
from tian.spec import Instance
from tian.testing import conformance
from tian_genco.levels import tiles
from tian_genco.levels.options import OracleOptions
from tian_genco.levels.oracle import LevelOracle
from tian_genco.levels.rules import LevelRules
from tian_genco.levels.steiner import OPTIMAL, OUT_OF_BUDGET, solve_rows
from tian_genco.solving.highs import HighsSolver

spec = importlib.util.spec_from_file_location("levels_brute", Path(__file__).with_name("levels_brute.py"))
brute = importlib.util.module_from_spec(spec)
spec.loader.exec_module(brute)

SMALL, LIMIT = LevelRules(5, 5), 30.0
FREE = float("inf")  # enemies per empty cell: no limit


def soft(rng, batch, height, width, *, empty=2.0):
    """Minus probabilities of random logits, in which floor and wall are common."""
    logits = rng.normal(size=(batch, 8, height, width))
    logits[:, tiles.EMPTY] += empty
    logits[:, tiles.WALL] += empty
    p = np.exp(logits)
    return -(p / p.sum(axis=1, keepdims=True)).reshape(batch, -1)


def one_hot(rng, batch, height, width, *, jitter=1e-6):
    """Minus random levels, tile by tile, and one field that breaks ties."""
    share = np.array([0.35, 0.55, 0.01, 0.01, 0.03, 0.02, 0.02, 0.01])
    grids = rng.choice(8, size=(batch, height, width), p=share).astype(np.uint8)
    return jitter * rng.random(8 * height * width) - tiles.to_x(grids)


def gaussian(rng, batch, height, width):
    return rng.normal(size=(batch, 8 * height * width))


def by_rows(rules, costs):
    """Minima by branch and bound."""
    found = HighsSolver().solve_costs(rules.instance(), costs, time_limit_s=LIMIT)
    assert set(found.status) <= {"optimal"}
    return found.objective


def solved(rules, costs, **options):
    oracle = LevelOracle(OracleOptions(**options))
    return oracle.solve_costs(rules.instance(), costs, time_limit_s=LIMIT)


@pytest.mark.parametrize("make", [soft, one_hot, gaussian])
def test_the_oracle_is_the_minimum_over_all_levels_of_5_by_5_cells(make):
    costs = make(np.random.default_rng(1), 30, 5, 5)
    _, objective, verdict, _ = solve_rows(costs, 5, 5, 0.6, 10**6)
    assert np.abs(objective - [brute.minimum(c, FREE) for c in costs]).max() <= 1e-12
    slack = verdict == OPTIMAL
    assert slack.any()
    assert np.abs(objective[slack] - [brute.minimum(c, 0.6) for c in costs[slack]]).max() <= 1e-12


def test_degenerate_costs_are_solved_too():
    rng = np.random.default_rng(2)
    costs = np.concatenate([np.zeros((1, 200)), rng.integers(0, 2, size=(30, 200)), one_hot(rng, 20, 5, 5, jitter=0)])
    objective = solve_rows(costs, 5, 5, 0.6, 10**6)[1]
    assert (objective == [brute.minimum(c, FREE) for c in costs]).all()


@pytest.mark.parametrize(("height", "width"), [(3, 5), (5, 3), (3, 8), (4, 4)])
def test_corridors_where_the_door_can_cut_the_way(height, width):
    rules = LevelRules(height, width)
    costs = gaussian(np.random.default_rng(3), 10, height, width)
    found = solved(rules, costs)
    assert all(rules.broken(x) == "" for x in found.x)
    assert found.objective == pytest.approx(by_rows(rules, costs), abs=1e-6)


@pytest.mark.parametrize("make", [soft, partial(one_hot, jitter=1e-3)])  # jitter above the gap of branch and bound
@pytest.mark.parametrize(
    ("height", "width", "count"),
    [(7, 7, 12), (9, 13, 4), pytest.param(9, 13, 100, marks=pytest.mark.slow)],
)
def test_the_oracle_equals_branch_and_bound_where_the_limit_is_slack(make, height, width, count):
    rules = LevelRules(height, width)
    costs = make(np.random.default_rng(4), count, height, width)
    _, objective, verdict, _ = solve_rows(costs, height, width, rules.enemy_share, 10**6)
    exact = by_rows(rules, costs)
    assert (verdict == OPTIMAL).mean() >= 0.5
    assert (objective <= exact + 1e-9).all()
    assert objective[verdict == OPTIMAL] == pytest.approx(exact[verdict == OPTIMAL], abs=1e-9)


@pytest.mark.parametrize("make", [soft, one_hot, gaussian])
def test_every_answer_passes_the_checker(make):
    rules = LevelRules(9, 13)
    costs = make(np.random.default_rng(5), 350, 9, 13)
    found = solved(rules, costs, limit="multiplier")
    assert [rules.broken(x) for x in found.x] == [""] * 350
    assert np.abs(found.objective - (costs * found.x).sum(axis=1)).max() <= 1e-9
    assert (found.bound <= found.objective).all()
    assert found.found.all()
    assert (found.objective - found.bound).mean() <= 0.02 * np.abs(found.bound).mean()
    optimal = np.array(found.status) == "optimal"
    assert (found.bound[optimal] >= found.objective[optimal] - 1e-6).all()


def test_the_multiplier_gives_a_lower_bound_and_an_allowed_level():
    costs = np.concatenate([gaussian(np.random.default_rng(6), 30, 5, 5), soft(np.random.default_rng(6), 10, 5, 5)])
    found = solved(SMALL, costs, limit="multiplier")
    assert {"multiplier", "oracle"} == set(found.route)
    assert "feasible" in found.status
    for i, c in enumerate(costs):
        exact = brute.minimum(c, 0.6)
        assert SMALL.broken(found.x[i]) == ""
        assert found.bound[i] <= exact + 1e-12
        assert exact <= found.objective[i] + 1e-12
        assert found.status[i] == "feasible" or found.objective[i] == pytest.approx(exact, abs=1e-9)


def test_a_limit_of_no_enemies_at_all_is_met():
    rules = LevelRules(5, 5, 0.0)
    costs = gaussian(np.random.default_rng(7), 20, 5, 5)
    found = solved(rules, costs, limit="multiplier")
    assert found.x.reshape(20, 8, 25)[:, list(tiles.ENEMIES)].sum() == 0
    assert all(b <= brute.minimum(c, 0.0) + 1e-12 for b, c in zip(found.bound, costs, strict=True))


def test_an_active_limit_and_a_spent_budget_go_to_the_rows():
    rng = np.random.default_rng(8)
    costs = np.concatenate([gaussian(rng, 8, 5, 5), soft(rng, 8, 5, 5, empty=4.0)])
    exact = [brute.minimum(c, 0.6) for c in costs]
    found = solved(SMALL, costs)
    assert {"mip", "oracle"} == set(found.route)
    assert set(found.status) == {"optimal"}
    assert found.objective == pytest.approx(exact, abs=1e-6)
    spread = -0.1 * np.add.outer(np.arange(5), np.arange(5))  # player and key far apart, walls between
    far = np.zeros((8, 5, 5))
    far[tiles.WALL], far[tiles.PLAYER], far[tiles.KEY], far[tiles.DOOR] = -0.3, spread, -spread, spread.T[::-1]
    far = far.reshape(1, -1) + 1e-6 * np.random.default_rng(0).normal(size=200)
    assert solve_rows(far, 5, 5, 0.6, 1)[2][0] == OUT_OF_BUDGET
    cut = solved(SMALL, far, max_triples=1)
    assert cut.route == ("mip",)
    assert cut.status == ("optimal",)
    assert cut.objective[0] == pytest.approx(brute.minimum(far[0], 0.6), abs=1e-6)


@pytest.mark.parametrize("options", [{}, {"limit": "multiplier"}])
def test_batch_and_single_are_bit_equal_in_any_order(options):
    rules, rng = LevelRules(7, 8), np.random.default_rng(10)
    make = gaussian if options else one_hot
    costs = make(rng, 25, 7, 8)
    oracle, inst = LevelOracle(OracleOptions(**options)), rules.instance()
    batch = oracle.solve_costs(inst, costs, time_limit_s=LIMIT)
    order = rng.permutation(25)
    mixed = oracle.solve_costs(inst, costs[order], time_limit_s=LIMIT, seed=3)
    for i in range(25):
        one = oracle.solve(rules.instance(costs[i]), time_limit_s=LIMIT)
        assert (one.x == batch.x[i]).all()
        assert (one.objective, one.bound, one.status) == (batch.objective[i], batch.bound[i], batch.status[i])
    assert (mixed.x == batch.x[order]).all()
    assert (mixed.objective == batch.objective[order]).all()


@pytest.mark.parametrize("limit", ["exact", "multiplier"])
def test_what_does_not_matter_to_the_minimum_does_not_matter_to_x(limit):
    rules, rng = LevelRules(9, 13), np.random.default_rng(11)
    costs = gaussian(rng, 30, 9, 13) if limit == "multiplier" else soft(rng, 30, 9, 13, empty=4.0)
    x = solved(rules, costs, limit=limit).x
    shift = rng.normal(size=(30, 1, 117)).repeat(8, axis=1).reshape(30, -1)
    assert (solved(rules, 37.5 * costs, limit=limit).x == x).all()
    assert (solved(rules, costs + shift, limit=limit).x == x).all()
    for axis in (2, 3):
        flipped = np.flip(costs.reshape(30, 8, 9, 13), axis).reshape(30, -1)
        assert (np.flip(solved(rules, flipped, limit=limit).x.reshape(30, 8, 9, 13), axis).reshape(30, -1) == x).all()


def test_bad_costs_are_named():
    oracle, inst = LevelOracle(), SMALL.instance()
    costs = np.zeros((3, 200))
    costs[1, tiles.DOOR * 25 + 2 * 5 + 3] = np.nan
    with pytest.raises(InvalidInput, match="cost 1 of the batch is nan for door at row 2, column 3"):
        oracle.solve_costs(inst, costs, time_limit_s=1)
    with pytest.raises(InvalidInput, match=r"needs \[B, 200\]"):
        oracle.solve_costs(inst, np.zeros((1, 199)), time_limit_s=1)
    with pytest.raises(InvalidInput, match="no plain level"):
        oracle.solve(Instance("level", np.zeros(200), {"height": 5}), time_limit_s=1)
    for bad in ({"limit": "ignore"}, {"max_triples": 0}):
        with pytest.raises(InvalidInput, match=next(iter(bad))):
            OracleOptions(**bad)


def test_half_precision_costs_are_solved_in_double():
    costs = one_hot(np.random.default_rng(12), 3, 5, 5).astype(np.float16)
    found = solved(SMALL, costs)
    assert found.objective.dtype == np.float64
    assert found.objective == pytest.approx([brute.minimum(c.astype(float), 0.6) for c in costs], abs=1e-12)


def kit_instances(seed):
    rng = np.random.default_rng(seed)
    return [SMALL.instance(make(rng, 1, 5, 5)[0]) for make in (soft, gaussian)]


TestLevelOracle = conformance.solver(
    lambda **options: LevelOracle(OracleOptions(**options)),
    options=[{"limit": "exact"}, {"limit": "multiplier"}],
    bad_options=[{"limit": "none"}, {"max_triples": 0}],
    instances=kit_instances,
    feasible=lambda inst, x: inst.payload.broken(x) == "",
    brute=lambda inst: brute.minimum(inst.cost, inst.payload.enemy_share),
)
