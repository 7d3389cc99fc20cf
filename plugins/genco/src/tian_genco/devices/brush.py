"""Rules of designs that a brush can draw, as a mixed-integer program."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tian.errors import InvalidInput
from tian_genco.devices import checker
from tian_genco.problem import Floats, Milp, Problem, Row

Cell = tuple[int, int]  # row, column
BRUSHES = {  # '#' is painted
    "plus": (".#.", "###", ".#."),
    "square": ("##", "##"),
    "block": ("###", "###", "###"),
    "bar": ("##",),
}


def offsets(brush: str) -> tuple[Cell, ...]:
    """Cells a named brush paints, from its upper left corner. Raises InvalidInput for an unknown name."""
    if brush not in BRUSHES:
        raise InvalidInput(f"there is no brush {brush!r}", hint=f"choose of: {', '.join(BRUSHES)}")
    return tuple((r, c) for r, line in enumerate(BRUSHES[brush]) for c, mark in enumerate(line) if mark == "#")


@dataclass(frozen=True)
class BrushRules(Problem):
    """Material (1) that is a union of stamps of a brush; x `[height*width]`, row by row.

    Stamps lie inside the grid as a whole; the void (0) is free. Contacts are material, too. Void that is a union of
    stamps as well is left out: the program then took HiGHS 2 to 16 times as long (11 x 16 cells).
    Source: the brush of arXiv 2310.02442 (after Schubert et al., 2022), without its rule for the void.

    Attributes:
        height: rows H.
        width: columns W.
        brush: name in `BRUSHES`.
        contacts: cells (row, column) that must be material.

    Raises:
        InvalidInput: an unknown brush, a grid smaller than it, or a contact no stamp can reach.
    """

    kind: ClassVar[str] = "brush"
    height: int = 10
    width: int = 18
    brush: str = "plus"
    contacts: tuple[Cell, ...] = ()

    def __post_init__(self) -> None:
        offsets(self.brush)
        pattern = BRUSHES[self.brush]
        if self.height < len(pattern) or self.width < len(pattern[0]):
            raise InvalidInput(
                f"the brush {self.brush!r} does not fit into {self.height} x {self.width} cells",
                hint=f"make the grid {len(pattern)} x {len(pattern[0])} or larger",
            )
        reached = {cell for stamp in self.stamps() for cell in stamp}
        for row, column in self.contacts:
            if row * self.width + column not in reached or not 0 <= column < self.width:
                raise InvalidInput(
                    f"no stamp of the brush {self.brush!r} reaches the contact ({row}, {column}) "
                    f"of {self.height} x {self.width} cells",
                    hint="move the contact away from the corners, or take the brush square",
                )

    @property
    def n(self) -> int:
        """Cells."""
        return self.height * self.width

    def anchors(self) -> Iterator[Cell]:
        """Upper left corners of the stamps inside the grid, row by row."""
        pattern = BRUSHES[self.brush]
        for r in range(self.height - len(pattern) + 1):
            for c in range(self.width - len(pattern[0]) + 1):
                yield r, c

    def stamps(self) -> list[list[int]]:
        """Cells `row*width + column` of each stamp, in the order of `anchors`."""
        painted = offsets(self.brush)
        return [[(r + dr) * self.width + c + dc for dr, dc in painted] for r, c in self.anchors()]

    def milp(self) -> Milp:
        """x, then one continuous column a stamp.

        A stamp is at most each of its cells, and a cell at most the sum of its stamps: with x integral some stamp over
        a 1 is positive, hence all of its cells are 1. Stamps need not be integral.
        """
        stamps, n, width = self.stamps(), self.n, self.width
        over: list[list[int]] = [[] for _ in range(n)]
        rows = []
        for j, (anchor, cells) in enumerate(zip(self.anchors(), stamps, strict=True), n):
            for i in cells:
                over[i].append(j)
                name = f"stamp at {anchor} paints ({i // width},{i % width})"
                rows.append(Row.of({j: 1.0, i: -1.0}, upper=0, name=name))
        for i, above in enumerate(over):
            if above:
                name = f"material at ({i // width},{i % width}) is painted"
                rows.append(Row.of({i: 1.0} | dict.fromkeys(above, -1.0), upper=0, name=name))
        lower, upper = np.zeros(n + len(stamps)), np.ones(n + len(stamps))
        upper[:n] = [float(bool(above)) for above in over]
        lower[[r * width + c for r, c in self.contacts]] = 1.0
        return Milp.of(rows, n=n, lower=lower, upper=upper, integer=np.arange(len(lower)) < n)

    def broken(self, x: Floats) -> str:
        """The first rule that `x` breaks, with its row and column."""
        return checker.offence(
            x.tolist(), height=self.height, width=self.width, brush=BRUSHES[self.brush], contacts=self.contacts
        )
