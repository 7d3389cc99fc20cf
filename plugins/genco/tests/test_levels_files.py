"""Loaders name what is wrong, and where; rooms of the corpus obey rules of their own."""

import numpy as np
import pytest

from tian.errors import DataError
from tian_genco.levels import tiles
from tian_genco.levels.files import LEGEND, load_levels
from tian_genco.levels.make import make_levels
from tian_genco.levels.room import RoomRules
from tian_genco.levels.vglc import ROOM_TILES, load_rooms

GOOD = ["wwwww", "wA.+w", "w.g.w", "wwwww"]


def write(folder, name, lines, end="\n"):
    (folder / name).write_text(end.join(lines) + end)


def test_a_folder_is_read_by_name(tmp_path):
    grids = make_levels(4, seed=0)
    for i, grid in enumerate(grids):
        write(tmp_path, f"{3 - i}.txt", tiles.to_lines(grid), end="\r\n" if i == 2 else "\n")
    (tmp_path / "notes.md").write_text("none of them")
    found = load_levels(tmp_path)
    assert (found.grids == grids[::-1]).all()
    assert found.names == ("0.txt", "1.txt", "2.txt", "3.txt")
    assert found.skipped == ()
    assert (load_levels(tmp_path / "1.txt").grids[0] == grids[2]).all()


def test_a_legend_gives_other_characters(tmp_path):
    write(tmp_path, "a.txt", [line.replace("w", "#").replace("A", "@") for line in GOOD])
    found = load_levels(tmp_path, legend={**LEGEND, "#": "wall", "@": "player"})
    assert tiles.to_lines(found.grids[0]) == tuple(GOOD)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["wwwww", "wA.+w", "w?g.w", "wwwww"], r"row 3, column 2: unknown character '\?'"),
        (["wwwww", "wA.+", "w.g.w", "wwwww"], "row 2 has 4 characters, row 1 has 5"),
        (["wwwww", "w..+w", "w.g.w", "wwwww"], "no player"),
        (["wwwww", "wA..w", "w.g.w", "wwwww"], "no key"),
        (["wwwww", "wA.+w", "w...w", "wwwww"], "no door"),
        (["wwwww", "wAw+w", "w.g.w", "wwwww"], "without crossing the door"),
        (["wwwwww", "wA..+w", "w..g.w", "wwwwww"], "4 x 6 cells, a.txt has 4 x 5"),
        ([""], "empty"),
    ],
)
def test_a_bad_file_is_named_or_skipped(tmp_path, lines, message):
    write(tmp_path, "a.txt", GOOD)
    write(tmp_path, "b.txt", lines)
    with pytest.raises(DataError, match=message) as caught:
        load_levels(tmp_path)
    assert "b.txt" in caught.value.where
    found = load_levels(tmp_path, skip_bad=True)
    assert found.names == ("a.txt",)
    assert len(found.skipped) == 1
    assert "b.txt" in found.skipped[0]


def test_nothing_to_read_is_told(tmp_path):
    with pytest.raises(DataError, match=r"holds no \*.txt"):
        load_levels(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        load_levels(tmp_path / "none.txt")
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe\x00w")
    with pytest.raises(DataError, match="not a text file"):
        load_levels(tmp_path)
    with pytest.raises(DataError, match="none of 1 files"):
        load_levels(tmp_path, skip_bad=True)


def room(*changes):
    """A plain room with a door at the top and at the left, some cells changed: (row, column, tile)."""
    rows = ["W" * 11, "WWWWDDDWWWW"] + ["WWFFFFFFFWW"] * 12 + ["W" * 11] * 2
    rows[7] = rows[8] = "WDFFFFFFFWW"
    grid = [list(row) for row in rows]
    for r, c, tile in changes:
        grid[r][c] = tile
    return ["".join(row) for row in grid]


def as_x(lines):
    return tiles.to_x(np.array([[ROOM_TILES.index(t) for t in row] for row in lines], np.uint8), tiles=9)


def test_rooms_are_cut_from_the_lattice(tmp_path):
    void, other = ["-" * 11] * 16, room((5, 5, "M"))
    top = [a + b + c for a, b, c in zip(room(), void, other, strict=True)]
    bottom = [a + b + c for a, b, c in zip(void, other, void, strict=True)]
    write(tmp_path, "tloz1_1.txt", top + bottom)
    (tmp_path / "README.txt").write_text("F = FLOOR\n")
    found = load_rooms(tmp_path).grids
    assert found.shape == (3, 16, 11)
    assert ["".join(ROOM_TILES[t] for t in row) for row in found[2]] == other
    assert (tiles.to_grid(tiles.to_x(found, tiles=9), 16, 11, tiles=9) == found).all()
    for lines, message in (
        (top[:-1], "31 rows|15 rows"),
        ([row + "-" for row in top], "of 34 characters"),
        (void, "all is void"),
        (room((3, 3, "X")), "row 4, column 4: unknown character 'X'"),
    ):
        write(tmp_path, "tloz1_1.txt", lines)
        with pytest.raises(DataError, match=message):
            load_rooms(tmp_path)


def test_rooms_that_are_void_in_part_are_left_out_and_counted(tmp_path):
    """Rooms nobody enters are walls and doors around a void; the files of the corpus have some."""
    shell = ["WW" + "-" * 7 + "WW" if 1 < r < 14 else "WWWWDDDWWWW" for r in range(16)]
    write(tmp_path, "tloz1_1.txt", [a + b for a, b in zip(shell, room(), strict=True)])
    rooms = load_rooms(tmp_path / "tloz1_1.txt")
    assert (len(rooms.grids), rooms.incomplete) == (1, 1)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (room(), ""),
        (room((5, 5, "M"), (6, 5, "B"), (7, 5, "P"), (8, 5, "O"), (9, 5, "I"), (10, 5, "S")), ""),
        (room((0, 5, "F")), "row 0, column 5: F in the border"),
        (room((14, 5, "D"), (14, 4, "D")), "row 14, column 6: a doorway is a door in part"),
        (room((1, 7, "D")), "row 1, column 7: D in the border"),
        (room((5, 5, "D")), "row 5, column 5: a door inside"),
        (room((12, 2, "B"), (12, 3, "W"), (13, 4, "P")), "row 13, column 2: F is cut off"),
        (room(*[(2, c, "B") for c in range(2, 9)]), "row 3, column 2: F is cut off|row 2"),
        (room(*[(r, c, "W") for r in range(16) for c in range(11)]), "nothing to walk on"),
    ],
)
def test_room_rows_and_checker_agree(lines, message):
    rules, x = RoomRules(), as_x(lines)
    found = rules.broken(x)
    assert (found == "") == (message == "")
    if message:
        assert any(found.startswith(m) for m in message.split("|"))
    m = rules.milp()
    assert bool(feasible(m, x)) == (message == "")


def feasible(m, x):
    """Whether the columns beyond x can be chosen so that all rows hold."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_matrix

    if (x < m.col_lower[: m.n]).any() or (x > m.col_upper[: m.n]).any():
        return False
    lower, upper = m.col_lower.copy(), m.col_upper.copy()
    lower[: m.n] = upper[: m.n] = x
    matrix = csr_matrix((m.values, m.indices, m.indptr), shape=(len(m.row_lower), len(lower)))
    rows = LinearConstraint(matrix, m.row_lower, m.row_upper)
    return milp(np.zeros(len(lower)), integrality=m.integer, constraints=rows, bounds=Bounds(lower, upper)).status == 0


def test_the_cheapest_room_is_valid():
    from tian_genco.solving.highs import HighsSolver

    rules = RoomRules()
    cost = np.random.default_rng(0).normal(size=rules.n)
    cost.reshape(9, -1)[1] -= 2.0  # floor
    found = HighsSolver().solve(rules.milp().instance(cost), time_limit_s=60)
    assert found.status == "optimal"
    assert rules.broken(found.x) == ""
