"""The archive: every level of its cells is in its cell and the best there, and empty cells are proven empty."""

import importlib.util
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from tian.errors import InvalidInput
from tian_genco.levels.checker import grid_offence
from tian_genco.levels.make import make_levels
from tian_genco.levels.rules import LevelRules
from tian_genco.levels.tiles import DOOR, EMPTY, ENEMIES, KEY, PLAYER, WALL
from tian_genco.sampling.archive import Measure, bins_of
from tian_genco.sampling.options import ArchiveOptions

spec = importlib.util.spec_from_file_location("sampling_runs", Path(__file__).with_name("sampling_runs.py"))
runs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(runs)


def where(grid, tile):
    return np.argwhere(grid == tile)[0]


def steps(grid, a, b):
    """By relaxation over the whole grid; the door lets nothing through."""
    far = np.full(grid.shape, 10**6)
    far[tuple(where(grid, a))] = 0
    for _ in range(grid.size):
        for r, c in np.argwhere(grid != WALL):
            near = [(r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)]
            far[r, c] = min([far[r, c], *(far[n] + 1 for n in near if grid[n] != DOOR)])
    return far[tuple(where(grid, b))]


READINGS = {
    "count(wall)": lambda g: (g == WALL).sum(),
    "count(enemy) - 2*count(empty) + 3": lambda g: np.isin(g, ENEMIES).sum() - 2 * (g == EMPTY).sum() + 3,
    "dist(player,key)": lambda g: np.abs(where(g, PLAYER) - where(g, KEY)).sum(),
    "dist_path(player,door)": lambda g: steps(g, PLAYER, DOOR),
}


@pytest.mark.parametrize("text", READINGS)
def test_a_measure_is_what_it_says(text):
    measure = Measure(text, LevelRules(9, 13))
    for grid in make_levels(6, seed=1):
        assert measure.of(grid) == READINGS[text](grid)


@pytest.mark.parametrize("text", ["symmetric: lr", "count(wall)*0.5", "tile(1,1)", "count(wal)", "hamming(previous)"])
def test_what_is_no_measure_is_refused(text):
    with pytest.raises(InvalidInput, match=r"measure|position"):
        Measure(text, LevelRules(9, 13))


@pytest.mark.parametrize(("low", "high", "count"), [(0, 9, 5), (3, 9, 3), (-4, 4, 4), (2, 2, 6), (0, 3, 9)])
def test_bins_cover_the_range_once(low, high, count):
    bins = bins_of(low, high, count)
    assert [v for a, b in bins for v in range(a, b + 1)] == list(range(low, high + 1))
    assert len(bins) <= count


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"measures": ["count(wall)"]}, "must be two, got 1"),
        ({"bins": [3]}, "archive.bins must be two"),
        ({"low": [1, 2]}, "two numbers each"),
        ({"low": [1, 5], "high": [2, 4]}, "low must not be above high"),
    ],
)
def test_options_out_of_range_are_named(options, said):
    with pytest.raises(InvalidInput, match=said):
        ArchiveOptions(**options)


def every_level(height, width):
    """All levels of a grid with few interior cells, without enemies."""
    inside = [(r, c) for r in range(1, height - 1) for c in range(1, width - 1)]
    for ends in itertools.permutations(inside, 3):
        rest = [i for i in inside if i not in ends]
        for tiles in itertools.product((WALL, EMPTY), repeat=len(rest)):
            grid = np.zeros((height, width), np.uint8)
            for place, tile in zip([*ends, *rest], (PLAYER, KEY, DOOR, *tiles), strict=True):
                grid[place] = tile
            if not grid_offence(grid.tolist(), enemy_share=0.6):
                yield grid


def test_cells_hold_what_they_say_and_empty_ones_are_empty(tmp_path):
    source = runs.generator_run(tmp_path / "source", height=4, width=5)
    result = runs.sample(
        source,
        tmp_path / "run",
        "n=3",
        "constraint=count(enemy) == 0",
        "archive.measures=[count(wall),dist(player,key)]",
        "archive.bins=[4,4]",
        "archive.low=[14,0]",
        "archive.high=[17,3]",
    )
    archive = json.loads((result.path / "results.json").read_text())["archive"]
    with np.load(result.path / "archive.npz") as file:
        kept = {tuple(p): g for p, g in zip(file["places"].tolist(), file["designs"], strict=True)}
    reached = {(int((g == WALL).sum()), int(READINGS["dist(player,key)"](g))) for g in every_level(4, 5)}
    states = set()
    for i, row in enumerate(archive["cells"]):
        for j, cell in enumerate(row):
            (wall, _), (dist, _) = cell["ranges"]
            states.add(cell["state"])
            assert (cell["state"] != "infeasible") == ((wall, dist) in reached)
            if (i, j) in kept:
                grid = kept[i, j]
                assert ((grid == WALL).sum(), READINGS["dist(player,key)"](grid)) == (wall, dist)
                assert grid_offence(grid.tolist(), enemy_share=0.6) == ""
                assert cell["increase"] >= -1e-9
    assert states == {"sampled", "solved", "infeasible"}
    page = (result.path / "report.html").read_text()
    assert "Archive over count(wall) and dist(player,key)" in page
    assert (result.path / "plots" / "archive.svg").is_file()


def test_without_filling_cells_are_left_open(tmp_path):
    source = runs.generator_run(tmp_path / "source", height=4, width=5)
    more = ["archive.measures=[count(wall),count(enemy)]", "archive.fill=false", "archive.bins=[9,9]"]
    result = runs.sample(source, tmp_path / "run", "n=4", *more)
    cells = json.loads((result.path / "results.json").read_text())["archive"]["cells"]
    assert {c["state"] for row in cells for c in row} <= {"sampled", "empty"}
