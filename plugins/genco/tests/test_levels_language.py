"""Each rule of the language means what it says: rows, plain evaluation and a third reading in these tests agree."""

import importlib.util
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_matrix

from tian.errors import InvalidInput
from tian_genco.levels import tiles
from tian_genco.levels.language import parse_rules
from tian_genco.levels.make import make_levels
from tian_genco.levels.options import LevelSpec
from tian_genco.levels.rules import LevelRules
from tian_genco.solving.highs import HighsSolver

spec = importlib.util.spec_from_file_location("levels_brute", Path(__file__).with_name("levels_brute.py"))
brute = importlib.util.module_from_spec(spec)
spec.loader.exec_module(brute)

SMALL, LIMIT = LevelRules(5, 5), 30.0


def level(lines, base=SMALL):
    return parse_rules([lines] if isinstance(lines, str) else lines, base).level


def flows_exist(program, x):
    """Whether the columns beyond x can be chosen so that all rows hold."""
    m = program
    lower, upper = m.col_lower.copy(), m.col_upper.copy()
    if (x < lower[: m.n]).any() or (x > upper[: m.n]).any():
        return False
    lower[: m.n] = upper[: m.n] = x
    matrix = csr_matrix((m.values, m.indices, m.indptr), shape=(len(m.row_lower), len(lower)))
    rows = LinearConstraint(matrix, m.row_lower, m.row_upper)
    return milp(np.zeros(len(lower)), constraints=rows, bounds=Bounds(lower, upper)).status == 0


def small_grid(seed):
    """A playable level of 5 x 5 cells, often with pieces of floor cut off and with enemies."""
    rng = np.random.default_rng(seed)
    walls, ends = brute.playable()
    k = rng.integers(len(walls))
    inside = np.where(walls[k], tiles.WALL, tiles.EMPTY)
    inside[ends[k]] = tiles.PLAYER, tiles.KEY, tiles.DOOR
    empty = np.flatnonzero(inside == tiles.EMPTY)
    if len(empty) > 2:
        inside[rng.choice(empty)] = rng.integers(tiles.ENEMY1, tiles.ENEMY3 + 1)
    grid = np.zeros((5, 5), np.uint8)
    grid[1:4, 1:4] = inside.reshape(3, 3)
    return grid


def where(grid, tile):
    return tuple(int(v) for v in np.argwhere(grid == tile)[0])


def ways(grid, start, *, through_door=False):
    """Steps by repeated relaxation, a third implementation."""
    steps = np.full(grid.shape, np.inf)
    steps[start] = 0
    for _ in range(grid.size):
        for r, c in np.argwhere(grid != tiles.WALL):
            near = [(r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)]
            past = [steps[n] + 1 for n in near if through_door or grid[n] != tiles.DOOR or n == start]
            steps[r, c] = min([steps[r, c], *past])
    return steps


def between(grid, a, b):
    first, second = where(grid, a), where(grid, b)
    return abs(first[0] - second[0]) + abs(first[1] - second[1])


def walked(grid, a, b):
    return int(ways(grid, where(grid, a))[where(grid, b)])


def total(grid, *kinds):
    return int(np.isin(grid, kinds).sum())


def walls_like(grid, image):
    return ((grid == tiles.WALL) == (image == tiles.WALL)).all()


P, K, G = tiles.PLAYER, tiles.KEY, tiles.DOOR
READINGS = {
    "count(wall) <= 18": lambda g: total(g, tiles.WALL) <= 18,
    "count(enemy) == 1": lambda g: total(g, *tiles.ENEMIES) == 1,
    "count(enemy2) >= 1": lambda g: total(g, tiles.ENEMY2) >= 1,
    "count(empty) - 2*count(enemy) >= 1": lambda g: total(g, tiles.EMPTY) - 2 * total(g, *tiles.ENEMIES) >= 1,
    "3 + count(empty)*0.5 <= count(wall) - 14 + count(key)": lambda g: (
        3 + 0.5 * total(g, tiles.EMPTY) <= total(g, tiles.WALL) - 13
    ),
    "-count(wall) >= -19": lambda g: total(g, tiles.WALL) <= 19,
    "tile(1,2) == wall": lambda g: g[1, 2] == tiles.WALL,
    "tile(2,2) != wall": lambda g: g[2, 2] != tiles.WALL,
    "tile(3,1) == enemy": lambda g: g[3, 1] in tiles.ENEMIES,
    "tile(3,1) != enemy": lambda g: g[3, 1] not in tiles.ENEMIES,
    "dist(player,key) >= 3": lambda g: between(g, P, K) >= 3,
    "dist(door, key) <= 2": lambda g: between(g, K, G) <= 2,
    "dist(player,door) == 2": lambda g: between(g, P, G) == 2,
    "dist_path(player,key) >= 3": lambda g: walked(g, P, K) >= 3,
    "dist_path(player,key) <= 2": lambda g: walked(g, P, K) <= 2,
    "dist_path(key,player) == 4": lambda g: walked(g, P, K) == 4,
    "dist_path(player,door) >= 4": lambda g: walked(g, P, G) >= 4,
    "dist_path(door,player) <= 3": lambda g: walked(g, P, G) <= 3,
    "dist_path(key,door) >= 3": lambda g: walked(g, K, G) >= 3,
    "dist_path(door,key) <= 2": lambda g: walked(g, K, G) <= 2,
    "symmetric: lr": lambda g: walls_like(g, g[:, ::-1]),
    "symmetric: ud": lambda g: walls_like(g, g[::-1]),
    "symmetric: rot": lambda g: walls_like(g, g[::-1, ::-1]),
    "connected": lambda g: np.isfinite(ways(g, where(g, P), through_door=True))[g != tiles.WALL].all(),
}


@pytest.mark.parametrize("text", READINGS)
def test_plain_evaluation_and_rows_agree_with_a_third_reading(text):
    problem = level(text)
    program = problem.milp()
    seen = set()
    for seed in range(120):
        grid = small_grid(seed)
        x = tiles.to_x(grid)
        meant = bool(READINGS[text](grid))
        found = problem.broken(x)
        assert (found == "") == meant, (tiles.to_lines(grid), found)
        assert meant or found.startswith(f"rule {text!r} is broken")
        if seed < 10 or meant not in seen:
            assert flows_exist(program, x) == meant, tiles.to_lines(grid)
        seen.add(meant)
    assert seen == {True, False}


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.sets(st.sampled_from(sorted(READINGS)), min_size=1, max_size=4), st.integers(0, 10**6))
def test_several_rules_hold_together_just_when_each_does(texts, seed):
    grid = small_grid(seed)
    x, problem = tiles.to_x(grid), level(sorted(texts))
    meant = all(READINGS[t](grid) for t in texts)
    assert (problem.broken(x) == "") == meant == flows_exist(problem.milp(), x)


@pytest.mark.parametrize("seed", range(6))
def test_ways_in_larger_levels_are_exact(seed):
    base = LevelRules(7, 8)
    form = LevelSpec(height=7, width=8, least_walls=0.3, most_walls=0.45, key_distance=3, door_distance=3)
    grid = make_levels(seed + 1, seed=5, spec=form)[seed]
    x = tiles.to_x(grid)
    for a, b in ((P, K), (P, G), (K, G)):
        pair, steps = f"dist_path({tiles.NAMES[a]},{tiles.NAMES[b]})", walked(grid, a, b)
        for text, holds in (
            (f"{pair} >= {steps}", True),
            (f"{pair} >= {steps + 1}", False),
            (f"{pair} <= {steps}", True),
            (f"{pair} <= {steps - 1}", False),
        ):
            problem = level(text, base)
            assert (problem.broken(x) == "") == holds
            assert flows_exist(problem.milp(), x) == holds


@pytest.mark.parametrize(
    "texts",
    [
        ["dist_path(player,key) >= 4", "symmetric: rot"],
        ["dist_path(player,door) <= 3", "dist(player,door) >= 3", "count(wall) >= 18", "connected"],
        ["tile(1,1) == key", "count(enemy) == 0", "dist_path(key,door) >= 4"],
    ],
)
def test_the_optimum_under_rules_is_the_least_of_all_levels_that_obey_them(texts):
    problem = level(texts)
    rng = np.random.default_rng(0)
    walls, ends = brute.playable()
    cost = rng.normal(size=(8, 25))
    cost[list(tiles.ENEMIES)] += 5.0  # so that no enemy is worth it, and walls and ends are all there is to choose
    best = np.inf
    for k in rng.permutation(len(walls)):
        inside = np.where(walls[k], tiles.WALL, tiles.EMPTY)
        inside[ends[k]] = P, K, G
        grid = np.zeros((5, 5), np.uint8)
        grid[1:4, 1:4] = inside.reshape(3, 3)
        value = cost[grid.reshape(-1), np.arange(25)].sum()
        if value < best and problem.broken(tiles.to_x(grid)) == "":
            best = value
    found = HighsSolver().solve(problem.milp().instance(cost.reshape(-1)), time_limit_s=LIMIT)
    assert found.status == "optimal"
    assert found.objective == pytest.approx(best, abs=1e-6)
    assert problem.broken(found.x) == ""


def test_rules_that_contradict_each_other_are_infeasible():
    for texts in (["dist(player,key) >= 4", "dist_path(player,key) <= 3"], ["tile(0,2) == key"], ["count(wall) <= 15"]):
        found = HighsSolver().solve(level(texts).milp().instance(), time_limit_s=LIMIT)
        assert found.status == "infeasible"


def test_diversity_is_asked_for_beside_the_rules():
    request = parse_rules(["hamming(previous) >= 12", "connected", "hamming( previous )>=7"], SMALL)
    assert request.hamming == 12
    assert [rule.text for rule in request.level.rules] == ["connected"]
    assert parse_rules([], SMALL).hamming == 0
    assert level([]).broken(tiles.to_x(small_grid(0))) == ""


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("cuont(wall) <= 6", "position 1: unknown rule 'cuont'", "did you mean count"),
        ("count(wal) <= 6", "position 7: unknown tile 'wal'", "did you mean wall"),
        ("count(wall) < 6", "position 13: <= or >= or == is due, got '<'", ""),
        ("count(wall) <= six", "position 16: a number or count\\(tile\\) is due, got 'six'", ""),
        ("count(wall) <= 6 7", "position 18: unexpected '7' after the rule", ""),
        ("count(wall <= 6", r"position 12: '\)' is due, got '<='", ""),
        ("count(wall) - count(wall) <= 6", "position 1: no tile is counted", ""),
        ("tile(3,5) == key", "position 8: column 5 is outside the level, which has 5", ""),
        ("tile(1.5,5) == key", "position 6: a whole number is due", ""),
        ("tile(3,4) <= key", "position 11: == or != is due", ""),
        ("dist(player,enemy) >= 2", "position 13: unknown tile that occurs once 'enemy'", "player, key, door"),
        ("dist(key,key) >= 2", "position 10: the two tiles are the same", ""),
        ("symmetric: lf", "position 12: unknown symmetry 'lf'", "lr, ud, rot"),
        ("hamming(next) >= 2", "position 9: unknown set of levels 'next'", "previous"),
        ("hamming(previous) <= 2", "position 19: >= is due", ""),
        ("count(wall) ? 3", r"position 13: unexpected '\?'", ""),
        ("dist(player,key) >=", "position 20: a number is due", ""),
        ("", "position 1: a number or count", ""),
    ],
)
def test_what_is_no_rule_is_shown_with_its_place(text, message, hint):
    with pytest.raises(InvalidInput, match=message) as caught:
        parse_rules([text], SMALL)
    assert hint in caught.value.hint


def test_ruled_levels_are_values_with_named_rows():
    texts = sorted(READINGS)
    problem = level(texts)
    assert pickle.loads(pickle.dumps(problem)) == problem
    assert hash(level(texts)) == hash(problem)
    assert level(texts[:-1]) != problem
    assert problem.kind == "level-ruled"
    assert problem.n == SMALL.n
    names = problem.milp().row_names
    assert len(set(names)) == len(names)
    assert all(any(name.startswith(text) for name in names) for text in texts)


def test_a_broken_base_rule_comes_first():
    grid = small_grid(1)
    grid[grid == K] = tiles.WALL
    assert level("count(wall) <= 1").broken(tiles.to_x(grid)) == "no key; exactly one is due"


@pytest.mark.parametrize(
    "lines", [("wwwww", "wAg+w", "w...w", "w...w", "wwwww"), ("wwwww", "w+..w", "wg..w", "wA..w", "wwwww")]
)
def test_no_way_leads_through_the_door(lines):
    x = tiles.to_x(tiles.from_lines(lines))
    for text, holds in (
        ("dist_path(player,key) >= 4", True),
        ("dist_path(player,key) <= 4", True),
        ("dist_path(player,key) <= 3", False),
        ("dist_path(player,key) >= 5", False),
        ("dist_path(player,door) == 1", True),
        ("dist_path(key,door) == 1", True),
    ):
        problem = level(text)
        assert (problem.broken(x) == "") == holds == flows_exist(problem.milp(), x)
