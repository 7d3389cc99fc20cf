"""Devices as pictures: material coloured by the current that flows through it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import torch

from tian.errors import InvalidInput
from tian_genco.devices.network import Network

if TYPE_CHECKING:
    from numpy.typing import NDArray

CELL, GAP, CAPTION, SIDE = 10, 8, 14, 12  # user units; SIDE is the room for ports left and right
PLATE = "#e9edf2"
# From hardly any current to the most, in equal steps of its square root.
HEAT = ("#2b3a55", "#3c4a7c", "#5b4f99", "#8350a0", "#ad5195", "#d1567d", "#ec6a5c", "#f98c3f", "#fdb32f", "#fde04b")


def gallery_svg(
    grids: NDArray[np.uint8], network: Network, *, columns: int, captions: Sequence[str] = (), alt: str
) -> str:
    """Devices side by side as an inline `<svg>`, about 2 kB each.

    A triangle on the left is the input; those on the right grow with the current into their output. The brightest
    colour is the strongest current of all devices shown.

    Args:
        grids: `[n, H, W]` uint8, 1 is material.
        network: the simulation.
        columns: devices in a row.
        captions: a line of text under each, or none at all.
        alt: text alternative.

    Raises:
        InvalidInput: no device, columns below 1, or another number of captions than devices.
    """
    if not len(grids) or columns < 1:
        raise InvalidInput(f"a gallery needs a device and a column, got {len(grids)} and {columns}")
    if captions and len(captions) != len(grids):
        raise InvalidInput(f"{len(captions)} captions for {len(grids)} devices", hint="give one each, or none")
    columns = min(columns, len(grids))
    height, width = grids.shape[1:]
    with torch.no_grad():
        x = torch.from_numpy(np.asarray(grids)).double()
        strengths, currents = network.strengths(x).numpy(), network(x).currents.numpy()
    shade = np.sqrt(strengths / strengths.max())
    level = np.minimum((shade * len(HEAT)).astype(int), len(HEAT) - 1)
    step_x = width * CELL + 2 * SIDE + GAP
    step_y = height * CELL + GAP + (CAPTION if captions else 0)
    size_x, size_y = columns * step_x - GAP, -(-len(grids) // columns) * step_y - GAP
    parts = [
        f'<svg role="img" aria-label="{escape(alt, quote=True)}" xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="0 0 {size_x} {size_y}" style="width:100%;max-width:{2 * size_x}px">'
    ]
    contacts = [divmod(int(c), width) for c in network.contacts]
    for i, grid in enumerate(grids):
        at = f"{i % columns * step_x + SIDE} {i // columns * step_y}"
        parts.append(f'<g transform="translate({at})">')
        parts.append(f'<rect width="{width * CELL}" height="{height * CELL}" rx="3" fill="{PLATE}"/>')
        parts += [_cells((grid == 1) & (level[i] == k), colour) for k, colour in enumerate(HEAT)]
        parts.append(_arrow(-SIDE + 2, contacts[0][0], 8.0))
        parts += [
            _arrow(width * CELL + 1, row, min(11.0, 110.0 * float(current)))
            for (row, _), current in zip(contacts[1:], currents[i], strict=True)
        ]
        if captions:
            parts.append(
                f'<text x="{width * CELL / 2:g}" y="{height * CELL + 11}" text-anchor="middle" font-size="10" '
                f'font-family="sans-serif" fill="currentColor">{escape(captions[i])}</text>'
            )
        parts.append("</g>")
    return "".join(parts) + "</svg>"


def _cells(chosen: NDArray[np.bool_], colour: str) -> str:
    """One path over all cells of a colour; a hair wider than a cell, so that no seams show."""
    squares = "".join(f"M{c * CELL} {r * CELL}h10.2v10.2h-10.2z" for r, c in np.argwhere(chosen))
    return f'<path fill="{colour}" d="{squares}"/>' if squares else ""


def _arrow(x: float, row: int, size: float) -> str:
    """A triangle that points right, `size` long and high."""
    y = (row + 0.5) * CELL
    return f'<path fill="#d1567d" d="M{x:g} {y - size / 2:g}l{size:.2f} {size / 2:.2f}l{-size:.2f} {size / 2:.2f}z"/>'
