"""Levels drawn at random obey the rules and their spec, and a seed gives the same ones for ever."""

import hashlib

import numpy as np
import pytest

from tian.errors import InvalidInput
from tian_genco.levels import tiles
from tian_genco.levels.checker import grid_offence
from tian_genco.levels.make import VERSION, make_levels
from tian_genco.levels.options import LevelSpec

SPECS = [
    LevelSpec(),
    LevelSpec(height=11, width=16, enemies=8.0),
    LevelSpec(height=5, width=5, key_distance=1, door_distance=2, enemies=9.0),
    LevelSpec(height=3, width=6, key_distance=1, door_distance=1, most_walls=0.2),
    LevelSpec(most_walls=0.4, least_walls=0.4, segment=9, at_border=1.0, key_distance=9, enemy_distance=6),
]


def place(grid, tile):
    return np.argwhere(grid == tile)[0]


@pytest.mark.parametrize("spec", SPECS)
def test_levels_obey_the_rules_and_the_spec(spec):
    interior = (spec.height - 2) * (spec.width - 2)
    for grid in make_levels(100, seed=3, spec=spec):
        assert grid_offence(grid.tolist(), enemy_share=spec.enemy_share) == ""
        walls = (grid[1:-1, 1:-1] == tiles.WALL).sum()
        assert round(spec.least_walls * interior) <= walls <= round(spec.most_walls * interior)
        player = place(grid, tiles.PLAYER)
        assert abs(place(grid, tiles.KEY) - player).sum() >= spec.key_distance
        assert abs(place(grid, tiles.DOOR) - player).sum() >= spec.door_distance
        for enemy in np.argwhere(np.isin(grid, tiles.ENEMIES)):
            assert abs(enemy - player).sum() >= spec.enemy_distance


def test_a_level_depends_on_seed_and_number_alone():
    many = make_levels(40, seed=5)
    assert (make_levels(7, seed=5) == many[:7]).all()
    assert len({grid.tobytes() for grid in many} | {grid.tobytes() for grid in make_levels(40, seed=6)}) == 80
    assert make_levels(0, seed=0).shape == (0, 9, 13)


def test_a_version_stands_for_certain_levels():
    digest = hashlib.sha256(make_levels(50, seed=0).tobytes()).hexdigest()[:16]
    assert (VERSION, digest) == (1, "16fa400e38e5211b")


def test_walls_enemies_and_variety_are_as_told():
    grids = make_levels(2000, seed=1)
    enemies = np.isin(grids, tiles.ENEMIES).sum(axis=(1, 2))
    assert enemies.mean() == pytest.approx(2.2, abs=4 * (2.2 / 2000) ** 0.5)
    assert enemies.var() == pytest.approx(2.2, rel=0.15)
    walls = (grids == tiles.WALL).sum(axis=(1, 2))
    assert (walls.min(), walls.max()) == (50, 63)
    assert len({grid.tobytes() for grid in grids}) == 2000


def test_a_spec_that_no_level_meets_is_refused():
    with pytest.raises(InvalidInput, match="no level in 10000 tries"):
        make_levels(
            1, seed=0, spec=LevelSpec(height=5, width=5, most_walls=1, least_walls=1, door_distance=4, key_distance=1)
        )
    for bad in ({"height": 2}, {"key_distance": 99}, {"most_walls": 0.1}, {"enemies": -1.0}, {"at_border": 2.0}):
        with pytest.raises(InvalidInput, match=next(iter(bad))):
            LevelSpec(**bad)
    with pytest.raises(InvalidInput, match="n and seed"):
        make_levels(-1, seed=0)
