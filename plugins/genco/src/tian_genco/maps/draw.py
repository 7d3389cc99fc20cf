"""Rows of maps with their shortest paths, one row for each way they came about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tian.errors import InvalidInput
from tian.plots import to_svg
from tian_genco.paths.draw import walk

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_INCHES = 1.3  # of a map
_PIXELS = 8  # of a cell, at least: sharp edges at any size
_LINE, _CASING = "#D55E00", "#FFFFFF"  # vermilion on white: seen on all terrain, with any colour vision


@dataclass(frozen=True, eq=False)
class Row:
    """Some maps of one sort.

    Attributes:
        name: of the sort.
        pictures: `[k, P, Q, 3]` uint8, any whole number of pixels a cell.
        paths: `[k, H, W]`, not 0 on the chordless path.
        costs: `[n]` of the paths of all maps of the sort, the k shown first.
    """

    name: str
    pictures: NDArray[np.uint8]
    paths: NDArray[Any]
    costs: NDArray[np.float64]


def rows(found: Sequence[Row], *, legend: Mapping[str, NDArray[np.uint8]]) -> Any:
    """A matplotlib figure: a row of maps each, the cost of its path above every map.

    Args:
        found: rows, each with one map or more.
        legend: label -> colour `[3]`; may be empty.

    Raises:
        InvalidInput: no rows, or one without maps.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    if not found or not all(len(row.pictures) for row in found):
        raise InvalidInput("a gallery needs rows with one map or more")
    columns = max(len(row.pictures) for row in found)
    H, W = found[0].paths.shape[1:]
    tall = _INCHES * H / W + 0.2
    figure: Any = Figure(
        figsize=(columns * _INCHES + 0.1, len(found) * (tall + 0.24) + (0.3 if legend else 0.0)), layout="constrained"
    )
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, hspace=0.0, wspace=0.02)
    for part, row in zip(np.atleast_1d(figure.subfigures(len(found), 1)), found, strict=True):
        part.suptitle(
            f"{row.name}: mean path cost {row.costs.mean():.1f}", x=0.01, ha="left", fontsize=9, weight="bold"
        )
        grid = part.subplots(1, columns, squeeze=False)[0]
        for axes in grid:
            axes.set_axis_off()
        for axes, picture, path, cost in zip(grid, row.pictures, row.paths, row.costs, strict=False):
            times = max(1, -(-_PIXELS * H // len(picture)))
            sharp = picture.repeat(times, axis=0).repeat(times, axis=1)
            axes.imshow(sharp, extent=(-0.5, W - 0.5, H - 0.5, -0.5), interpolation="none")
            y, x = zip(*walk(path), strict=True)
            for colour, width in ((_CASING, 3.8), (_LINE, 2.0)):
                axes.plot(x, y, color=colour, linewidth=width, solid_capstyle="round", solid_joinstyle="round")
            axes.plot(x[0], y[0], "o", x[-1], y[-1], "s", color=_LINE, markeredgecolor=_CASING, markersize=5)
            axes.set_title(f"{cost:.1f}", fontsize=8, pad=2)
    if legend:
        patches = [Patch(color=colour / 255, label=label) for label, colour in legend.items()]
        style = {"frameon": False, "fontsize": 8, "handlelength": 1.2, "handleheight": 1.0, "columnspacing": 1.2}
        figure.legend(handles=patches, loc="outside lower center", ncols=min(len(patches), 6), **style)
    return figure


def rows_svg(found: Sequence[Row], *, legend: Mapping[str, NDArray[np.uint8]], alt: str) -> str:
    """The figure as an inline `<svg>` with `alt` as its text alternative; arguments and errors as in `rows`."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": alt}):  # the same text every time
        return to_svg(rows(found, legend=legend), alt=alt)
