"""Designs drawn at random, without end: wires from an input to two outputs, and stray stamps."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from tian.errors import InvalidInput
from tian_genco.devices.brush import BrushRules, Cell

if TYPE_CHECKING:
    from numpy.typing import NDArray

VERSION = 1  # of the designs that a seed gives
DETOUR = 0.4  # probability that a wire goes by way of a third row
WIDENED = 0.1  # probability that a wire is drawn twice, side by side
STRAY = 1.0  # mean number of stray stamps, a Poisson variable


def ports(height: int, width: int) -> tuple[Cell, Cell, Cell]:
    """Cells of the input (left edge, middle) and of the upper and the lower output (right edge)."""
    return (height // 2, 0), (2, width - 1), (height - 3, width - 1)


def rules_of(height: int, width: int, brush: str) -> BrushRules:
    """Rules of devices: the ports are contacts."""
    return BrushRules(height, width, brush, ports(height, width))


def make_designs(n: int, *, seed: int, rules: BrushRules) -> NDArray[np.uint8]:
    """Valid designs `[n, H, W]` uint8; design i depends on the rules, the seed and i alone.

    From the input (the first contact) a wire leads to each other contact: along its own row to a random column, there
    up or down to the row of the contact, and along it; some go by way of a third row between two columns. Some wires
    are drawn twice, one row apart, and a few stamps lie anywhere.

    Raises:
        InvalidInput: n or seed negative, or rules with fewer than two contacts.
    """
    if n < 0 or seed < 0:
        raise InvalidInput(f"n and seed must be >= 0, got n={n}, seed={seed}")
    if len(rules.contacts) < 2:
        raise InvalidInput(f"wires need two contacts, got {len(rules.contacts)}", hint="use rules_of(...)")
    stamps = dict(zip(rules.anchors(), np.array(rules.stamps()), strict=True))
    ends = [_over(cell, rules, stamps) for cell in rules.contacts]
    out = np.zeros((n, rules.n), np.uint8)
    for i in range(n):
        rng = np.random.default_rng((seed, i))
        for anchor in _anchors(rng, ends, max(stamps)):
            out[i, stamps[anchor]] = 1
    return out.reshape(n, rules.height, rules.width)


def _over(cell: Cell, rules: BrushRules, stamps: dict[Cell, NDArray[np.int64]]) -> Cell:
    """The middle one of the stamps that cover a cell."""
    covering = [a for a, cells in stamps.items() if cell[0] * rules.width + cell[1] in cells]
    return covering[len(covering) // 2]


def _anchors(rng: np.random.Generator, ends: list[Cell], last: Cell) -> list[Cell]:
    """Stamps of one design; `last` is the lower right of all places."""
    source, *sinks = ends
    out: list[Cell] = []
    for sink in sinks:
        first, second = sorted(int(v) for v in rng.integers(source[1] + 1, sink[1], 2))
        by_way = int(rng.integers(0, last[0] + 1)) if rng.random() < DETOUR else sink[0]
        corners = [source, (source[0], first), (by_way, first), (by_way, second), (sink[0], second), sink]
        wire = [cell for a, b in itertools.pairwise(corners) for cell in _line(a, b)]
        if rng.random() < WIDENED:
            shift = 1 if rng.random() < 0.5 else -1
            wire += [(min(max(r + shift, 0), last[0]), c) for r, c in wire]
        out += wire
    for _ in range(rng.poisson(STRAY)):
        out.append((int(rng.integers(last[0] + 1)), int(rng.integers(last[1] + 1))))
    return out


def _line(a: Cell, b: Cell) -> list[Cell]:
    """Cells from a to b, which share a row or a column."""
    return [
        (r, c) for r in range(min(a[0], b[0]), max(a[0], b[0]) + 1) for c in range(min(a[1], b[1]), max(a[1], b[1]) + 1)
    ]
