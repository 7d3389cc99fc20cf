"""Options of levels; no numba, composing a config stays light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tian.errors import InvalidInput


@dataclass(frozen=True)
class OracleOptions:
    """Options of `LevelOracle`."""

    limit: Literal["exact", "multiplier"] = "exact"  # too many enemies: solve by HiGHS, or price them until it is met
    max_triples: int = 5_000  # placements of player, key and door looked at before HiGHS takes over

    def __post_init__(self) -> None:
        if self.limit not in ("exact", "multiplier"):
            raise InvalidInput(f"limit must be exact or multiplier, got {self.limit!r}", hint="set solver.limit=exact")
        if self.max_triples < 1:
            raise InvalidInput(f"max_triples must be >= 1, got {self.max_triples}", hint="set solver.max_triples=5000")


@dataclass(frozen=True)
class LevelSpec:
    """What the levels of `make_levels` look like. Distances are counted in rows plus columns."""

    height: int = 9  # rows, border included
    width: int = 13  # columns, border included
    least_walls: float = 0.13  # share of the interior that is wall, at least
    most_walls: float = 0.3  # and at most; the number is uniform between the two
    segment: int = 4  # longest wall segment, in cells
    at_border: float = 0.5  # share of the segments that start beside the border
    key_distance: int = 5  # least distance of player and key
    door_distance: int = 5  # least distance of player and door
    enemies: float = 2.2  # mean number of enemies, a Poisson variable
    enemy_distance: int = 3  # least distance of player and enemies
    enemy_share: float = 0.6  # most enemies per empty cell

    def __post_init__(self) -> None:
        _check_range("height", self.height, 3, 256)
        _check_range("width", self.width, 3, 256)
        _check_range("least_walls", self.least_walls, 0, 1)
        _check_range("most_walls", self.most_walls, self.least_walls, 1)
        _check_range("segment", self.segment, 1, 256)
        _check_range("at_border", self.at_border, 0, 1)
        farthest = self.height + self.width - 6
        _check_range("key_distance", self.key_distance, 1, farthest)
        _check_range("door_distance", self.door_distance, 1, farthest)
        _check_range("enemies", self.enemies, 0, 1000)
        _check_range("enemy_distance", self.enemy_distance, 1, 512)
        _check_range("enemy_share", self.enemy_share, 0, 1000)


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InvalidInput(f"{name} must be {low:g} to {high:g}, got {value}", hint=f"set {name} within that range")
