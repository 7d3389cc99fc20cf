"""Tiles of a level and its three forms: grid of tile numbers, one-hot vector, lines of text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tian.errors import InvalidInput

Grid = NDArray[np.uint8]

TILES = "w.+g123A"
NAMES = ("wall", "empty", "key", "door", "enemy1", "enemy2", "enemy3", "player")
WALL, EMPTY, KEY, DOOR, ENEMY1, ENEMY2, ENEMY3, PLAYER = range(8)
ENEMIES = (ENEMY1, ENEMY2, ENEMY3)


def to_x(grids: Grid, *, tiles: int = len(TILES)) -> NDArray[np.float64]:
    """One-hot vectors of grids.

    Args:
        grids: `[..., H, W]` uint8 tile numbers.
        tiles: T, how many there are.

    Returns:
        `[..., T*H*W]` float64; tile t of row r, column c is entry `t*H*W + r*W + c`.

    Raises:
        InvalidInput: a number that is no tile.
    """
    grids = np.asarray(grids)
    if grids.size and not 0 <= int(grids.min()) <= int(grids.max()) < tiles:
        raise InvalidInput(f"tile numbers are 0 to {tiles - 1}, got {grids.min()} to {grids.max()}")
    hot = (grids[..., None, :, :] == np.arange(tiles)[:, None, None]).astype(np.float64)
    x: NDArray[np.float64] = hot.reshape(*grids.shape[:-2], tiles * grids.shape[-2] * grids.shape[-1])
    return x


def to_grid(x: NDArray[np.floating], height: int, width: int, *, tiles: int = len(TILES)) -> Grid:
    """Grids of vectors: in each cell the tile of the largest entry, the first one of equals.

    Args:
        x: `[..., T*H*W]` float, one-hot or scores.
        height: H.
        width: W.
        tiles: T.

    Returns:
        `[..., H, W]` uint8.

    Raises:
        InvalidInput: x has another length.
    """
    n = tiles * height * width
    if x.shape[-1] != n:
        raise InvalidInput(f"a level of {height} x {width} cells has {n} entries, got {x.shape[-1]}")
    best: NDArray[np.intp] = x.reshape(*x.shape[:-1], tiles, height, width).argmax(axis=-3)
    return best.astype(np.uint8)


def to_lines(grid: Grid) -> tuple[str, ...]:
    """The rows of a grid `[H, W]` as text."""
    return tuple("".join(TILES[t] for t in row) for row in np.asarray(grid).tolist())


def from_lines(lines: Sequence[str]) -> Grid:
    """The grid `[H, W]` of rows of text.

    Raises:
        InvalidInput: no rows, rows of several lengths, or an unknown character.
    """
    if not lines or not lines[0]:
        raise InvalidInput("a level without rows", hint=f"give rows of the characters {TILES}")
    out = np.zeros((len(lines), len(lines[0])), np.uint8)
    for r, line in enumerate(lines):
        if len(line) != out.shape[1]:
            raise InvalidInput(f"row {r} has {len(line)} characters, row 0 has {out.shape[1]}")
        for c, char in enumerate(line):
            if char not in TILES:
                raise InvalidInput(f"row {r}, column {c}: unknown tile {char!r}", hint=f"the tiles are {TILES}")
            out[r, c] = TILES.index(char)
    return out
