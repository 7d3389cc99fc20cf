"""The kinds of further rules; each keeps the text it was read from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Count:
    """`lower <= sum of coefficient * number of the tile <= upper`."""

    text: str
    terms: tuple[tuple[int, float], ...]  # tile, coefficient
    lower: float
    upper: float


@dataclass(frozen=True)
class Tile:
    """The cell holds one of the tiles, or none of them."""

    text: str
    row: int
    column: int
    tiles: tuple[int, ...]
    equal: bool


@dataclass(frozen=True)
class Distance:
    """Of two tiles that occur once; the first one is not the door."""

    text: str
    first: int
    second: int
    lower: float
    upper: float
    path: bool  # steps of the shortest way past neither walls nor the door; else rows plus columns between them


@dataclass(frozen=True)
class Symmetric:
    """Walls are mirrored: `lr`, `ud`, or turned by 180 degrees: `rot`."""

    text: str
    how: str


@dataclass(frozen=True)
class Connected:
    """The player reaches every cell that is no wall, through the door too."""

    text: str


Rule = Count | Tile | Distance | Symmetric | Connected
