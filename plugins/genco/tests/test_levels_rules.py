"""Tiles, the rows of a playable level, and the checker, which share no code."""

import pickle
import re

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_matrix

from tian.errors import InvalidInput
from tian_genco.levels import tiles
from tian_genco.levels.checker import grid_offence
from tian_genco.levels.rules import LevelRules

GOOD = (
    "wwwwwwwww",
    "w...w...w",
    "wA..w.+.w",
    "w.......w",
    "w.1.wwwww",
    "w...g...w",
    "wwwwwwwww",
)
RULES = LevelRules(7, 9)


def edited(*changes):
    """GOOD with some cells changed: (row, column, tile)."""
    rows = [list(line) for line in GOOD]
    for r, c, tile in changes:
        rows[r][c] = tile
    return tiles.from_lines(["".join(row) for row in rows])


def flows_exist(rules, x):
    """Whether the columns beyond x can be chosen so that all rows hold."""
    m = rules.milp()
    matrix = csr_matrix((m.values, m.indices, m.indptr), shape=(len(m.row_lower), len(m.col_lower)))
    lower, upper = m.col_lower.copy(), m.col_upper.copy()
    if (x < lower[: m.n]).any() or (x > upper[: m.n]).any():
        return False
    lower[: m.n] = upper[: m.n] = x
    rows = LinearConstraint(matrix, m.row_lower, m.row_upper)
    return milp(np.zeros(len(lower)), constraints=rows, bounds=Bounds(lower, upper)).status == 0


def test_grid_vector_and_text_are_three_forms_of_one_thing():
    grid = tiles.from_lines(GOOD)
    x = tiles.to_x(grid)
    assert grid.dtype == np.uint8
    assert x.dtype == np.float64
    assert x.shape == (8 * 63,)
    assert tiles.to_lines(grid) == GOOD
    assert (tiles.to_grid(x, 7, 9) == grid).all()
    assert x.reshape(8, 7, 9)[tiles.PLAYER, 2, 1] == 1.0
    assert x.sum() == 63
    assert "".join(tiles.TILES[getattr(tiles, n.upper())] for n in tiles.NAMES) == tiles.TILES


def test_batches_are_converted_like_single_grids():
    grids = np.random.default_rng(0).integers(0, 8, size=(2, 5, 6, 4)).astype(np.uint8)
    x = tiles.to_x(grids)
    assert x.shape == (2, 5, 8 * 24)
    assert (x[1, 3] == tiles.to_x(grids[1, 3])).all()
    assert (tiles.to_grid(x, 6, 4) == grids).all()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((), "without rows"),
        (("www", "ww"), "row 1 has 2 characters"),
        (("www", "w?w"), "row 1, column 1: unknown tile '\\?'"),
    ],
)
def test_bad_text_is_named(lines, message):
    with pytest.raises(InvalidInput, match=message):
        tiles.from_lines(lines)


def test_a_number_that_is_no_tile_is_refused():
    with pytest.raises(InvalidInput, match="0 to 7"):
        tiles.to_x(np.full((3, 3), 8, np.uint8))
    with pytest.raises(InvalidInput, match="has 504 entries"):
        tiles.to_grid(np.zeros(10), 7, 9)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (edited(), ""),
        (edited((0, 3, ".")), "row 0, column 3: empty on the border"),
        (edited((2, 6, ".")), "no key"),
        (edited((1, 1, "A")), "row 2, column 1: a second player"),
        (edited((5, 1, "g")), "row 5, column 4: a second door"),
        (edited((3, 4, "w")), "row 2, column 6: the player cannot reach the key"),
        (edited((3, 4, "g"), (5, 4, ".")), "row 2, column 6: .* key without crossing the door"),
        (edited((5, 3, "w"), (5, 4, "w"), (5, 6, "g")), "row 5, column 6: the player cannot reach the door"),
        (edited((2, 1, "."), (5, 7, "A")), "row 2, column 6: .* key without crossing"),
    ],
)
def test_checker_and_rows_agree_on_each_rule(grid, message):
    x = tiles.to_x(grid)
    found = RULES.broken(x)
    assert (found == "") if not message else re.match(message, found), found
    assert grid_offence(grid.tolist(), enemy_share=0.6) == found
    assert flows_exist(RULES, x) == (message == "")


def test_enemies_are_limited_by_the_empty_cells():
    grid = edited()
    empty = [tuple(cell) for cell in np.argwhere(grid == tiles.EMPTY)]
    for enemies in range(1, 15):
        x = tiles.to_x(grid)
        allowed = enemies <= 0.6 * (grid == tiles.EMPTY).sum()
        assert (RULES.broken(x) == "") == allowed == flows_exist(RULES, x)
        grid[empty[enemies]] = tiles.ENEMY1 + enemies % 3
    assert "enemies for" in RULES.broken(tiles.to_x(grid))


def test_cells_with_no_tile_two_tiles_or_half_a_tile_are_named():
    x = tiles.to_x(edited())
    for change, message in (
        ({(0, 3, 3): 1.0}, "row 3, column 3: wall and empty"),
        ({(1, 3, 3): 0.0}, "row 3, column 3: no tile"),
        ({(1, 3, 3): 0.5}, "row 3, column 3: an entry is 0.5"),
        ({(1, 3, 3): np.nan}, "row 3, column 3: an entry is nan"),
    ):
        bad = x.copy()
        for (t, r, c), value in change.items():
            bad.reshape(8, 7, 9)[t, r, c] = value
        assert RULES.broken(bad).startswith(message)
    assert RULES.broken(x[:-1]).startswith("503 entries")


def test_rows_are_named_and_columns_counted():
    m = LevelRules(11, 16).milp()
    assert (len(m.col_lower), len(m.row_lower), int(m.integer.sum())) == (2324, 684, 8 * 176)
    assert len(set(m.row_names)) == len(m.row_names)
    assert all(m.row_names)
    assert m.equalities().shape == (176 + 3 + 50 * 8, 8 * 176)


def test_rules_are_values():
    assert hash(LevelRules(7, 9)) == hash(RULES)
    assert pickle.loads(pickle.dumps(RULES)) == RULES
    assert LevelRules(7, 9, 0.5) != RULES
    for bad in ((2, 9), (3, 4), (9, 2)):
        with pytest.raises(InvalidInput, match="leave no room"):
            LevelRules(*bad)
    with pytest.raises(InvalidInput, match="enemy_share"):
        LevelRules(7, 9, float("nan"))
