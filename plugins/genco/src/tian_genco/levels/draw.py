"""Levels as pictures: one set of shapes, drawn as SVG for reports and as PNG for elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tian.errors import InvalidInput
from tian.plots import COLOURS
from tian_genco.levels.tiles import DOOR, ENEMY1, ENEMY2, ENEMY3, KEY, NAMES, PLAYER, WALL, Grid

_BLUE, _RED, _GREEN, _PINK, _ORANGE, _SKY, _BLACK = COLOURS
_FLOOR, _STONE, _MORTAR, _WHITE = "#f3efe4", "#5a6068", "#474c53", "#ffffff"
_CELL = 10  # user units
_GAP = 6  # between levels
_CAPTION = 12  # height of a line of text


class _Disc(NamedTuple):
    colour: str
    x: float
    y: float
    radius: float


class _Polygon(NamedTuple):
    colour: str
    points: tuple[tuple[float, float], ...]


_Shape = _Disc | _Polygon


def _box(colour: str, x: float, y: float, width: float, height: float) -> _Polygon:
    return _Polygon(colour, ((x, y), (x + width, y), (x + width, y + height), (x, y + height)))


def _eyes(y: float) -> tuple[_Shape, ...]:
    return tuple(_Disc(c, x, y, r) for x in (3.7, 6.3) for c, r in ((_WHITE, 1.1), (_BLACK, 0.5)))


# In a cell of 10 x 10, y downwards; told apart by outline as well as by colour.
_SHAPES: dict[int, tuple[_Shape, ...]] = {
    WALL: (
        _box(_MORTAR, 0, 0, 10, 10),
        *(_box(_STONE, x, y, w, 4.4) for x, y, w in ((0.3, 0.3, 9.4), (0, 5.3, 4.7), (5.3, 5.3, 4.7))),
    ),
    KEY: (
        _Disc(_ORANGE, 3.3, 5, 2.3),
        _Disc(_FLOOR, 3.3, 5, 1.0),
        _box(_ORANGE, 5.2, 4.3, 3.9, 1.4),
        _box(_ORANGE, 6.3, 5.4, 1.0, 1.7),
        _box(_ORANGE, 8.1, 5.4, 1.0, 1.7),
    ),
    DOOR: (
        _Disc(_GREEN, 5, 4.2, 3.2),
        _box(_GREEN, 1.8, 4.2, 6.4, 5.3),
        _box(_WHITE, 4.75, 1.4, 0.5, 8.1),
        _Disc(_WHITE, 3.9, 5.8, 0.55),
        _Disc(_WHITE, 6.1, 5.8, 0.55),
    ),
    ENEMY1: (
        _Polygon(_RED, ((1, 1), (3.6, 2.4), (5, 1.2), (6.4, 2.4), (9, 1), (8.4, 6), (5, 9.3), (1.6, 6))),
        *_eyes(4.6),
    ),
    ENEMY2: (
        _Disc(_PINK, 5, 4.6, 3.6),
        _Polygon(_PINK, ((1.4, 4.6), (8.6, 4.6), (8.6, 9.2), (6.8, 7.7), (5, 9.2), (3.2, 7.7), (1.4, 9.2))),
        *_eyes(4.5),
    ),
    ENEMY3: (
        _Polygon(_SKY, ((0.3, 3), (2.6, 4.2), (7.4, 4.2), (9.7, 3), (9.2, 7.2), (7.2, 6.4), (2.8, 6.4), (0.8, 7.2))),
        _Disc(_SKY, 5, 5.2, 2.9),
        *_eyes(5.0),
    ),
    PLAYER: (
        _Disc(_BLUE, 5, 2.9, 2.1),
        _Polygon(_BLUE, ((5, 4.6), (8.2, 6.2), (8.2, 9.5), (1.8, 9.5), (1.8, 6.2))),
        _Polygon(_WHITE, ((5, 5.9), (6.1, 7.2), (5, 8.5), (3.9, 7.2))),
    ),
}


def gallery_svg(grids: Grid, *, columns: int, captions: Sequence[str] = (), alt: str) -> str:
    """Levels side by side as an inline `<svg>`, about 3 kB a level.

    Args:
        grids: `[n, H, W]` uint8.
        columns: levels in a row.
        captions: a line of text under each level, or none at all.
        alt: text alternative.

    Raises:
        InvalidInput: grids of another shape, columns below 1, or another number of captions than levels.
    """
    columns = _check(grids, columns, captions)
    n, height, width = grids.shape
    step_x = width * _CELL + _GAP
    step_y = height * _CELL + _GAP + (_CAPTION if captions else 0)
    size_x, size_y = columns * step_x - _GAP, -(-n // columns) * step_y - _GAP
    present = sorted(set(np.unique(grids).tolist()) & set(_SHAPES))
    parts = [
        f'<svg role="img" aria-label="{escape(alt, quote=True)}" xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="0 0 {size_x} {size_y}" style="width:100%;max-width:{2 * size_x}px">',
        "<defs>",
        *(f'<g id="tile-{NAMES[t]}">{"".join(map(_svg_shape, _SHAPES[t]))}</g>' for t in present),
        "</defs>",
    ]
    for i, grid in enumerate(grids):
        at = f"{i % columns * step_x} {i // columns * step_y}"
        parts.append(
            f'<g transform="translate({at})"><rect width="{width * _CELL}" height="{height * _CELL}" fill="{_FLOOR}"/>'
        )
        parts += [
            f'<use href="#tile-{NAMES[t]}" x="{c * _CELL}" y="{r * _CELL}"/>'
            for (r, c), t in np.ndenumerate(grid)
            if t in _SHAPES
        ]
        if captions:
            parts.append(
                f'<text x="{width * _CELL / 2:g}" y="{height * _CELL + 9}" text-anchor="middle" font-size="8" '
                f'font-family="sans-serif" fill="currentColor">{escape(captions[i])}</text>'
            )
        parts.append("</g>")
    return "".join(parts) + "</svg>"


def save_png(grids: Grid, path: Path, columns: int) -> None:
    """Write levels `[n, H, W]` side by side as a PNG, 20 pixels a cell.

    Raises:
        InvalidInput: grids of another shape, or columns below 1.
    """
    from matplotlib.collections import PatchCollection
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle, Patch, Polygon, Rectangle

    columns = _check(grids, columns, ())
    n, height, width = grids.shape
    step_x, step_y = width * _CELL + _GAP, height * _CELL + _GAP
    size_x, size_y = columns * step_x - _GAP, -(-n // columns) * step_y - _GAP
    figure = Figure(figsize=(size_x / 50, size_y / 50), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, size_x), ylim=(size_y, 0))
    axes.axis("off")
    patches: list[Patch] = []
    for i, grid in enumerate(grids):
        left, top = i % columns * step_x, i // columns * step_y
        patches.append(Rectangle((left, top), width * _CELL, height * _CELL, color=_FLOOR))
        for (r, c), tile in np.ndenumerate(grid):
            x, y = left + c * _CELL, top + r * _CELL
            for shape in _SHAPES.get(int(tile), ()):
                if isinstance(shape, _Disc):
                    patches.append(Circle((x + shape.x, y + shape.y), shape.radius, color=shape.colour))
                else:
                    patches.append(Polygon([(x + a, y + b) for a, b in shape.points], color=shape.colour))
    axes.add_collection(PatchCollection(patches, match_original=True, linewidth=0))
    figure.savefig(path, metadata={"Software": None})


def _svg_shape(shape: _Shape) -> str:
    if isinstance(shape, _Disc):
        return f'<circle cx="{shape.x:g}" cy="{shape.y:g}" r="{shape.radius:g}" fill="{shape.colour}"/>'
    points = " ".join(f"{x:g},{y:g}" for x, y in shape.points)
    return f'<polygon points="{points}" fill="{shape.colour}"/>'


def _check(grids: Grid, columns: int, captions: Sequence[str]) -> int:
    """Columns, no more than levels."""
    if grids.ndim != 3 or not grids.size:
        raise InvalidInput(f"grids must be [n, H, W] with at least one level, got shape {grids.shape}")
    if columns < 1:
        raise InvalidInput(f"columns must be >= 1, got {columns}")
    if captions and len(captions) != len(grids):
        raise InvalidInput(f"{len(captions)} captions for {len(grids)} levels", hint="give one each, or none")
    return min(columns, len(grids))
