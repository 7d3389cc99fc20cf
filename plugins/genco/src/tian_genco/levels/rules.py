"""Rules of a playable level as a mixed-integer program: two commodities flow from the player, to key and to door."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tian.errors import InvalidInput
from tian_genco.levels import checker
from tian_genco.levels.tiles import DOOR, EMPTY, ENEMIES, KEY, NAMES, PLAYER, TILES, WALL
from tian_genco.problem import Floats, Milp, Problem, Row


@dataclass(frozen=True)
class LevelRules(Problem):
    """A level of `height x width` cells that can be played; x `[8*height*width]` as in `tiles.to_x`.

    Every cell holds one tile, the border is wall; there is one player, one key and one door; the player reaches the
    key without crossing the door, and reaches the door; enemies are at most `enemy_share` times the empty cells.
    Source: rules of the GVGAI game "zelda" as used by arXiv 2310.02442.

    Raises:
        InvalidInput: fewer than three interior cells, or a share that is negative or not finite.
    """

    kind: ClassVar[str] = "level"
    height: int
    width: int
    enemy_share: float = 0.6

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 3 or (self.height - 2) * (self.width - 2) < 3:
            raise InvalidInput(
                f"{self.height} x {self.width} cells leave no room for player, key and door inside the border",
                hint="make it 3 x 5 or larger",
            )
        if not 0.0 <= self.enemy_share < np.inf:
            raise InvalidInput(f"enemy_share must be >= 0 and finite, got {self.enemy_share}", hint="set 0.6")

    @property
    def cells(self) -> int:
        """Cells, border included."""
        return self.height * self.width

    @property
    def n(self) -> int:
        """Tiles times cells."""
        return len(TILES) * self.cells

    def column(self, tile: int, row: int, column: int) -> int:
        """Index in x of a tile in a cell."""
        return tile * self.cells + row * self.width + column

    def interior(self) -> list[int]:
        """Numbers `row*width + column` of the cells inside the border, ascending."""
        return [r * self.width + c for r in range(1, self.height - 1) for c in range(1, self.width - 1)]

    def arcs(self) -> list[tuple[int, int]]:
        """Steps from an interior cell to an interior cell beside it."""
        inside = set(self.interior())
        return [(i, j) for i in sorted(inside) for j in (i - self.width, i - 1, i + 1, i + self.width) if j in inside]

    def milp(self) -> Milp:
        """x, then the flow to the key and the flow to the door on each arc between interior cells, continuous.

        A cell lets flow in only while it is no wall, nor, on the way to the key, the door. With x integral a flow
        exists just when a path does, so flows need not be integral.
        """
        inside, arcs = self.interior(), self.arcs()
        to_key, to_door = self.flow(PLAYER, KEY, self.n), self.flow(PLAYER, DOOR, self.n + len(arcs))
        rows = [*self._counts(), *to_key, *to_door]
        lower, upper = np.zeros(self.n + 2 * len(arcs)), np.ones(self.n + 2 * len(arcs))
        border = np.setdiff1d(np.arange(self.cells), inside)
        upper[: self.n].reshape(len(TILES), -1)[:, border] = 0.0
        lower[border] = upper[border] = 1.0
        return Milp.of(rows, n=self.n, lower=lower, upper=upper, integer=np.arange(len(lower)) < self.n)

    def broken(self, x: Floats) -> str:
        """The first rule that `x` breaks, with its row and column."""
        return checker.offence(x.tolist(), height=self.height, width=self.width, enemy_share=self.enemy_share)

    def _counts(self) -> list[Row]:
        cells = self.cells
        out = []
        for i in range(cells):
            name = f"one tile at ({i // self.width},{i % self.width})"
            out.append(Row.of({t * cells + i: 1.0 for t in range(len(TILES))}, lower=1, upper=1, name=name))
        out += [
            Row.of({t * cells + i: 1.0 for i in range(cells)}, lower=1, upper=1, name=f"one {NAMES[t]}")
            for t in (KEY, DOOR, PLAYER)
        ]
        limit = {t * cells + i: 1.0 for t in ENEMIES for i in range(cells)}
        if self.enemy_share:
            limit |= {EMPTY * cells + i: -self.enemy_share for i in range(cells)}
        return [*out, Row.of(limit, upper=0, name="enemies")]

    def flow(self, source: int, sink: int, first: int) -> list[Row]:
        """Rows of one unit that flows from the tile `source` to the tile `sink`, past neither walls nor the door.

        Args:
            source: tile that occurs once.
            sink: tile that occurs once.
            first: column of the first of `arcs()`.
        """
        cells, out = self.cells, []
        into: dict[int, list[int]] = {i: [] for i in self.interior()}
        off: dict[int, list[int]] = {i: [] for i in into}
        for a, (i, j) in enumerate(self.arcs(), first):
            off[i].append(a)
            into[j].append(a)
        for i in self.interior():
            at = f"at ({i // self.width},{i % self.width})"
            inflow, outflow = dict.fromkeys(into[i], 1.0), dict.fromkeys(off[i], -1.0)
            ends = {source * cells + i: 1.0, sink * cells + i: -1.0}
            name = f"way from {NAMES[source]} to {NAMES[sink]}"
            out.append(Row.of(inflow | outflow | ends, lower=0, upper=0, name=f"{name} {at}"))
            shut = {WALL * cells + i: 1.0} | ({DOOR * cells + i: 1.0} if sink != DOOR else {})
            out.append(Row.of(inflow | shut, upper=1, name=f"{name} blocked {at}"))
        return out
