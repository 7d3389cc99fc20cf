"""Rules of a dungeon room of the Video Game Level Corpus as a mixed-integer program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tian_genco.levels.room_checker import room_offence
from tian_genco.levels.vglc import HEIGHT, ROOM_NAMES, ROOM_TILES, WIDTH
from tian_genco.problem import Floats, Milp, Problem, Row

_CELLS = HEIGHT * WIDTH
_WALL, _DOOR = ROOM_TILES.index("W"), ROOM_TILES.index("D")
_WALKABLE = [ROOM_TILES.index(t) for t in "FMODS"]
_SLOTS = {
    "top": [(1, 4), (1, 5), (1, 6)],
    "bottom": [(14, 4), (14, 5), (14, 6)],
    "left": [(7, 1), (8, 1)],
    "right": [(7, 9), (8, 9)],
}
_INSIDE = [r * WIDTH + c for r in range(2, HEIGHT - 2) for c in range(2, WIDTH - 2)]
_DOORWAYS = [r * WIDTH + c for slot in _SLOTS.values() for r, c in slot]
_OPEN = sorted(_INSIDE + _DOORWAYS)


@dataclass(frozen=True)
class RoomRules(Problem):
    """A room of 16 x 11 cells; x `[9*16*11]` as in `tiles.to_x`, tiles in the order of `vglc.ROOM_TILES`.

    Every cell holds one tile; the border is two walls thick but for doors in the inner one, in the middle of a side,
    a whole doorway or none; there are no doors inside; all that can be walked on (floor, monsters, element-floor,
    stairs, doors) is connected, and there is some.
    """

    kind: ClassVar[str] = "room"

    @property
    def n(self) -> int:
        """Tiles times cells."""
        return len(ROOM_TILES) * _CELLS

    def milp(self) -> Milp:
        """x, a root cell (one binary per cell in play), its supply, and a flow that feeds every walkable cell one unit."""
        most = float(len(_OPEN))
        arcs = [(i, j) for i in _OPEN for j in (i - WIDTH, i - 1, i + 1, i + WIDTH) if j in set(_OPEN)]
        root = {i: self.n + k for k, i in enumerate(_OPEN)}
        supply = {i: self.n + len(_OPEN) + k for k, i in enumerate(_OPEN)}
        first = self.n + 2 * len(_OPEN)
        lower, upper = np.zeros(first + len(arcs)), np.ones(first + len(arcs))
        upper[self.n + len(_OPEN) :] = most
        x_upper = upper[: self.n].reshape(len(ROOM_TILES), _CELLS)
        border = np.setdiff1d(np.arange(_CELLS), _INSIDE)
        x_upper[:, border] = 0.0
        x_upper[_WALL, border] = 1.0
        x_upper[_DOOR, _DOORWAYS] = 1.0
        x_upper[_DOOR, _INSIDE] = 0.0
        integer = np.arange(len(lower)) < self.n + len(_OPEN)
        rows = [*self._tiles(), *self._connected(arcs, root, supply, first, most)]
        return Milp.of(rows, n=self.n, lower=lower, upper=upper, integer=integer)

    def broken(self, x: Floats) -> str:
        """The first rule that `x` breaks, with its row and column."""
        return room_offence(x.tolist())

    def _tiles(self) -> list[Row]:
        out = [
            Row.of(
                {t * _CELLS + i: 1.0 for t in range(len(ROOM_NAMES))}, lower=1, upper=1, name=f"one tile at {_at(i)}"
            )
            for i in range(_CELLS)
        ]
        for side, slot in _SLOTS.items():
            columns = [_DOOR * _CELLS + r * WIDTH + c for r, c in slot]
            out += [
                Row.of({a: 1.0, columns[0]: -1.0}, lower=0, upper=0, name=f"whole {side} doorway") for a in columns[1:]
            ]
        return out

    def _connected(
        self, arcs: list[tuple[int, int]], root: dict[int, int], supply: dict[int, int], first: int, most: float
    ) -> list[Row]:
        into: dict[int, list[int]] = {i: [] for i in _OPEN}
        off: dict[int, list[int]] = {i: [] for i in _OPEN}
        for a, (i, j) in enumerate(arcs, first):
            off[i].append(a)
            into[j].append(a)
        out = [Row.of(dict.fromkeys(root.values(), 1.0), lower=1, upper=1, name="one root")]
        for i in _OPEN:
            at = _at(i)
            walk = [t * _CELLS + i for t in _WALKABLE]
            inflow, outflow = dict.fromkeys(into[i], 1.0), dict.fromkeys(off[i], -1.0)
            feed = inflow | outflow | {supply[i]: 1.0} | dict.fromkeys(walk, -1.0)
            out += [
                Row.of(feed, lower=0, upper=0, name=f"connected at {at}"),
                Row.of(inflow | dict.fromkeys(walk, -most), upper=0, name=f"connected past walls at {at}"),
                Row.of({root[i]: 1.0} | dict.fromkeys(walk, -1.0), upper=0, name=f"walkable root at {at}"),
                Row.of({supply[i]: 1.0, root[i]: -most}, upper=0, name=f"supply at {at}"),
            ]
        return out


def _at(cell: int) -> str:
    return f"({cell // WIDTH},{cell % WIDTH})"
