"""Paths from the top left to the bottom right cell of a grid, as rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tian.errors import InvalidInput
from tian_genco.problem import Floats, Milp, Problem, Row


@dataclass(frozen=True)
class PathProblem(Problem):
    """x `[height*width]` in {0, 1}, row-major, marks the cells of a path; moves go to the 8 neighbours.

    The path leads from the top left to the bottom right cell, both marked, and is chordless: two marked cells are
    neighbours if and only if they follow each other, so x tells the order of its cells. Every shortest path is
    chordless when costs are positive, for a chord would be a cheaper way; at costs >= 0 some shortest path is.

    Attributes:
        height: rows, >= 1.
        width: columns, >= 1; at least two cells in all.
    """

    kind: ClassVar[str] = "grid-path"
    height: int
    width: int

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1 or self.n < 2:
            raise InvalidInput(f"a grid has sides >= 1 and two cells or more, got {self.height}x{self.width}")

    @property
    def n(self) -> int:
        """Number of cells."""
        return self.height * self.width

    def milp(self) -> Milp:
        """One unit of flow over directed arcs between neighbours, with the cells as indicators.

        Columns: x of the cells, then the flow on each arc, which is continuous. Rows: a marked cell has inflow 1 and
        outflow 1, another none; a marked cell has exactly two marked neighbours, an end one.

        Costs must be >= 0: circles apart from the path meet these rows, and at negative costs they pay. `lazy` has
        the rows against them.
        """
        last = self.n - 1
        around = [self._around(v) for v in range(self.n)]
        arcs = [(u, v) for u in range(last) for v in around[u] if v != 0]
        into: list[dict[int, float]] = [{v: -1.0} for v in range(self.n)]
        out: list[dict[int, float]] = [{v: -1.0} for v in range(self.n)]
        for column, (u, v) in enumerate(arcs, start=self.n):
            out[u][column] = 1.0
            into[v][column] = 1.0
        rows: list[Row] = []
        for v in range(self.n):
            at, degree, marked = self._cell(v), len(around[v]), dict.fromkeys(around[v], 1.0)
            if v != 0:
                rows.append(Row.of(into[v], lower=0.0, upper=0.0, name=f"inflow of {at}"))
            if v != last:
                rows.append(Row.of(out[v], lower=0.0, upper=0.0, name=f"outflow of {at}"))
            if v in (0, last):
                rows.append(Row.of(marked, lower=1.0, upper=1.0, name=f"one neighbour of {at}"))
            else:
                rows.append(Row.of({**marked, v: -2.0}, lower=0.0, name=f"two neighbours of {at}"))
                rows.append(Row.of({**marked, v: degree - 2.0}, upper=degree, name=f"no third neighbour of {at}"))
        columns = self.n + len(arcs)
        lower = np.zeros(columns)
        lower[[0, last]] = 1.0
        return Milp.of(rows, n=self.n, lower=lower, upper=np.ones(columns), integer=np.arange(columns) < self.n)

    def broken(self, x: Floats) -> str:
        """Follow the marked cells from the start; any fork, dead end or cell left over breaks the path."""
        x = np.asarray(x)
        if x.shape != (self.n,):
            return f"x has shape {list(x.shape)}, not [{self.n}]"
        odd = np.flatnonzero((x != 0) & (x != 1))
        if len(odd):
            return f"cell {self._cell(int(odd[0]))} is {x[odd[0]]:g}, neither 0 nor 1"
        left = {divmod(int(v), self.width) for v in np.flatnonzero(x)}
        here, goal = (0, 0), (self.height - 1, self.width - 1)
        for end, name in ((here, "start"), (goal, "goal")):
            if end not in left:
                return f"the {name} {end} is not marked"
        left.remove(here)
        while here != goal:
            near = sorted(cell for cell in left if max(abs(cell[0] - here[0]), abs(cell[1] - here[1])) == 1)
            if not near:
                return f"the path ends at {here}, before the goal {goal}"
            if len(near) > 1:
                return f"the path forks at {here}, to {near[0]} and {near[1]}"
            here = near[0]
            left.remove(here)
        return f"cell {min(left)} is not on the path" if left else ""

    def lazy(self, x: Floats) -> Sequence[Row]:
        """For each circle of marked cells: whoever marks one of its cells marks two of the cells around it."""
        marked = set(np.flatnonzero(np.asarray(x) > 0.5).tolist())
        rows, seen = [], self._reached(0, marked)
        for v in sorted(marked):
            if v in seen:
                continue
            circle = self._reached(v, marked)
            seen |= circle
            rim = {u for c in circle for u in self._around(c)} - circle
            rows.append(Row.of({**dict.fromkeys(sorted(rim), 1.0), v: -2.0}, lower=0.0, name=f"way to {self._cell(v)}"))
        return rows

    def _reached(self, v: int, marked: set[int]) -> set[int]:
        """Marked cells connected with v."""
        reached, todo = {v}, [v]
        while todo:
            new = (set(self._around(todo.pop())) & marked) - reached
            reached |= new
            todo.extend(new)
        return reached

    def _around(self, v: int) -> list[int]:
        """Neighbours of cell v, ascending."""
        r, c = divmod(v, self.width)
        rows, columns = range(max(r - 1, 0), min(r + 2, self.height)), range(max(c - 1, 0), min(c + 2, self.width))
        return [i * self.width + j for i in rows for j in columns if (i, j) != (r, c)]

    def _cell(self, v: int) -> tuple[int, int]:
        return divmod(v, self.width)
