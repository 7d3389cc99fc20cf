"""Levels drawn at random, without end: data whose distribution can be sampled again."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tian.errors import InvalidInput
from tian_genco.levels.options import LevelSpec
from tian_genco.levels.tiles import DOOR, EMPTY, ENEMY1, KEY, PLAYER, WALL, Grid

VERSION = 1  # of the levels that a seed gives
_TRIES = 10_000  # plans drawn for one level before the spec is called too tight

Ints = NDArray[np.int64]


def make_levels(n: int, *, seed: int, spec: LevelSpec | None = None) -> Grid:
    """Playable levels `[n, H, W]` uint8; level i depends on the spec, the seed and i alone.

    Wall segments are drawn until their share is reached; a plan whose floor is in pieces is drawn again, as is one in
    which the door stands between player and key. Player, key, door and enemies stand on random floor, at the least
    distances of the spec.

    Raises:
        InvalidInput: n or seed negative, or a spec that (almost) no level meets.
    """
    spec = spec or LevelSpec()
    if n < 0 or seed < 0:
        raise InvalidInput(f"n and seed must be >= 0, got n={n}, seed={seed}")
    inside = (spec.height - 2) * (spec.width - 2)
    walls = round(spec.least_walls * inside), round(spec.most_walls * inside)
    out = np.zeros((n, spec.height, spec.width), np.uint8)
    none = math.exp(-spec.enemies)  # probability of no enemy
    for i in range(n):
        made = _make(
            np.random.default_rng((seed, i)),
            out[i],
            *walls,
            spec.segment,
            float(spec.at_border),
            spec.key_distance,
            spec.door_distance,
            none,
            spec.enemy_distance,
            float(spec.enemy_share),
        )
        if not made:
            raise InvalidInput(
                f"no level in {_TRIES} tries for {spec}", hint="lower the share of walls or the distances"
            )
    return out


@njit(cache=True)
def _make(
    rng: np.random.Generator,
    grid: Grid,
    least_walls: int,
    most_walls: int,
    segment: int,
    at_border: float,
    key_distance: int,
    door_distance: int,
    no_enemy: float,
    enemy_distance: int,
    enemy_share: float,
) -> bool:
    """Draw one level into `grid [H, W]`; False when none was found."""
    height, width = grid.shape
    floor = np.empty((height * width, 2), np.int64)
    seen = np.empty((height, width), np.bool_)
    for _ in range(_TRIES):
        _draw_walls(rng, grid, least_walls + _below(rng, most_walls - least_walls + 1), segment, at_border)
        count = 0
        for r in range(height):
            for c in range(width):
                if grid[r, c] != WALL:
                    floor[count, 0], floor[count, 1] = r, c
                    count += 1
        if count < 3:
            continue
        player, key, door = floor[_below(rng, count)], floor[_below(rng, count)], floor[_below(rng, count)]
        if _apart(player, key) < key_distance or _apart(player, door) < door_distance or _apart(key, door) == 0:
            continue
        if _flood(grid, player, seen) < count:
            continue
        grid[door[0], door[1]] = WALL  # for the way to the key the door is shut
        _flood(grid, player, seen)
        if not seen[key[0], key[1]]:
            continue
        grid[player[0], player[1]], grid[key[0], key[1]], grid[door[0], door[1]] = PLAYER, KEY, DOOR
        _draw_enemies(rng, grid, floor[:count], player, no_enemy, enemy_distance, enemy_share)
        return True
    return False


@njit(cache=True)
def _draw_walls(rng: np.random.Generator, grid: Grid, walls: int, segment: int, at_border: float) -> None:
    """Fill the grid with a border, floor, and straight wall segments until `walls` interior cells are wall."""
    height, width = grid.shape
    grid[:] = WALL
    grid[1:-1, 1:-1] = EMPTY
    steps = ((1, 0), (0, 1), (-1, 0), (0, -1))
    while walls > 0:
        dr, dc = steps[_below(rng, 4)]
        r, c = 1 + _below(rng, height - 2), 1 + _below(rng, width - 2)
        if rng.random() < at_border:  # begin at the wall behind and go away from it
            r = r if dr == 0 else (1 if dr == 1 else height - 2)
            c = c if dc == 0 else (1 if dc == 1 else width - 2)
        for _ in range(1 + _below(rng, segment)):
            if walls == 0 or not (0 < r < height - 1 and 0 < c < width - 1):
                break
            walls -= grid[r, c] == EMPTY
            grid[r, c] = WALL
            r, c = r + dr, c + dc


@njit(cache=True)
def _draw_enemies(
    rng: np.random.Generator,
    grid: Grid,
    floor: Ints,
    player: Ints,
    no_enemy: float,
    distance: int,
    share: float,
) -> None:
    """Put a Poisson number of enemies on the floor away from the player, as many as the limit allows."""
    count = 0
    spots = np.empty(len(floor), np.int64)
    empty = len(floor) - 3
    for j in range(len(floor)):
        if grid[floor[j, 0], floor[j, 1]] == EMPTY and _apart(floor[j], player) >= distance:
            spots[count] = j
            count += 1
    placed, chance = 0, rng.random()  # a product of uniforms stays above exp(-mean) Poisson(mean) times
    while chance > no_enemy and count > 0 and placed + 1 <= share * (empty - placed - 1):
        j = _below(rng, count)
        r, c = floor[spots[j]]
        grid[r, c] = ENEMY1 + _below(rng, 3)
        count -= 1
        spots[j] = spots[count]
        placed += 1
        chance *= rng.random()


@njit(cache=True)
def _flood(grid: Grid, start: Ints, seen: NDArray[np.bool_]) -> int:
    """Mark the cells reached from `start` past no wall; their number."""
    seen[:] = False
    seen[start[0], start[1]] = True
    stack = np.empty((grid.size, 2), np.int64)
    stack[0] = start
    top, count = 1, 1
    while top > 0:
        top -= 1
        r, c = stack[top]
        for i, j in ((r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)):
            if grid[i, j] != WALL and not seen[i, j]:
                seen[i, j] = True
                stack[top, 0], stack[top, 1] = i, j
                top += 1
                count += 1
    return count


@njit(cache=True)
def _apart(a: Ints, b: Ints) -> int:
    return int(abs(a[0] - b[0]) + abs(a[1] - b[1]))


@njit(cache=True)
def _below(rng: np.random.Generator, n: int) -> int:
    """A number 0 to n - 1."""
    return int(rng.random() * n)
