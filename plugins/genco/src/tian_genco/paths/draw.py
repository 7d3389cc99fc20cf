"""Maps with their shortest paths, as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tian.errors import InvalidInput
from tian.plots import to_svg
from tian_genco.paths.terrain import COLOURS, NAMES, Bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PIXELS = 16  # of a cell in the embedded picture: sharp edges at any size
_INCHES = 1.45  # of a map
_LINE, _CASING = "#D55E00", "#FFFFFF"  # vermilion on white: seen on all five classes, with any colour vision


def gallery(classes: Bytes, paths: NDArray[Any], *, columns: int = 6, captions: Sequence[str] = ()) -> Any:
    """A matplotlib figure of maps with their paths and the legend of the terrain.

    Args:
        classes: `[n, H, W]` uint8, n >= 1.
        paths: `[n, H, W]`, not 0 on the path, which is chordless as those of `PathProblem` are.
        columns: maps in a row, >= 1.
        captions: n lines to stand above the maps, or none.

    Raises:
        InvalidInput: no maps, shapes that differ, or another number of captions.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    n, H, W = classes.shape
    if not n or paths.shape != classes.shape or columns < 1 or len(captions) not in (0, n):
        raise InvalidInput(
            f"a gallery needs maps, as many paths, columns >= 1 and a caption for each or none; got maps "
            f"{list(classes.shape)}, paths {list(paths.shape)}, columns {columns}, {len(captions)} captions"
        )
    columns = min(columns, n)
    rows = -(-n // columns)
    names = 5 if columns > 2 else 3
    height = rows * (_INCHES * H / W + (0.22 if captions else 0.06)) + (0.3 if names == 5 else 0.5)
    size = (max(columns, 2) * _INCHES, height)
    figure: Any = Figure(figsize=size, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for i, axes in zip(range(n), grid.flat, strict=False):
        picture = COLOURS[classes[i]].repeat(_PIXELS, axis=0).repeat(_PIXELS, axis=1)
        axes.imshow(picture, extent=(-0.5, W - 0.5, H - 0.5, -0.5), interpolation="none")
        y, x = zip(*walk(paths[i]), strict=True)
        for colour, width in ((_CASING, 4.2), (_LINE, 2.2)):
            axes.plot(x, y, color=colour, linewidth=width, solid_capstyle="round", solid_joinstyle="round")
        axes.plot(x[0], y[0], "o", x[-1], y[-1], "s", color=_LINE, markeredgecolor=_CASING, markersize=6)
        if captions:
            axes.set_title(captions[i], fontsize=8, pad=3)
    patches = [Patch(color=c / 255, label=name) for c, name in zip(COLOURS, NAMES, strict=True)]
    style = {"frameon": False, "fontsize": 8, "handlelength": 1.2, "handleheight": 1.0, "columnspacing": 1.2}
    figure.legend(handles=patches, loc="outside lower center", ncols=names, **style)
    return figure


def walk(path: NDArray[Any]) -> list[tuple[int, int]]:
    """The cells (row, column) of a chordless path `[H, W]` in order from the top left cell on."""
    left = {(int(r), int(c)) for r, c in np.argwhere(path)}
    here = (0, 0)
    cells = [here]
    left.discard(here)
    while near := [cell for cell in left if max(abs(cell[0] - here[0]), abs(cell[1] - here[1])) == 1]:
        here = min(near)
        left.remove(here)
        cells.append(here)
    return cells


def gallery_svg(
    classes: Bytes, paths: NDArray[Any], *, columns: int = 6, captions: Sequence[str] = (), alt: str
) -> str:
    """The gallery as an inline `<svg>` with `alt` as its text alternative; arguments and errors as in `gallery`."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": alt}):  # the same text every time
        return to_svg(gallery(classes, paths, columns=columns, captions=captions), alt=alt)


def gallery_png(
    classes: Bytes, paths: NDArray[Any], path: Path, *, columns: int = 6, captions: Sequence[str] = ()
) -> None:
    """The gallery as a PNG file at `path`; arguments and errors as in `gallery`."""
    figure = gallery(classes, paths, columns=columns, captions=captions)
    figure.savefig(path, dpi=200, metadata={"Software": None})
