"""Several designs that differ in at least h places, and the proof that there are no more."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tian.errors import InvalidInput
from tian.spec import Solution, Solver
from tian_genco.problem import TOLERANCE, Floats, Milp, Problem, Row

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Extended(Problem):
    """A problem with further rows.

    Attributes:
        base: the problem.
        program: `base.milp()` with the rows.
        rows: the further rows.
    """

    kind: ClassVar[str] = "milp"
    base: Problem
    program: Milp
    rows: tuple[Row, ...] = ()

    @classmethod
    def of(cls, base: Problem, rows: Sequence[Row] = ()) -> Extended:
        """`base` with the rows."""
        return cls(base, base.milp()).and_rows(rows)

    def and_rows(self, rows: Sequence[Row]) -> Extended:
        """The same with these rows, too."""
        return replace(self, program=self.program.with_rows(rows), rows=(*self.rows, *rows)) if rows else self

    @property
    def n(self) -> int:
        """As of the base."""
        return self.base.n

    def milp(self) -> Milp:
        """Program of the base and the rows."""
        return self.program

    def lazy(self, x: Floats) -> Sequence[Row]:
        """As of the base."""
        return self.base.lazy(x)

    def broken(self, x: Floats) -> str:
        """What the base says, then the first further row, over x alone, that x breaks."""
        verdict = self.base.broken(x)
        for row in () if verdict else self.rows:
            if len(row.index) and row.index.max() >= self.n:
                continue
            activity = float(row.value @ x[row.index])
            if not row.lower - TOLERANCE <= activity <= row.upper + TOLERANCE:
                return f"{row.name or 'a further row'}: {activity:g} is not within {row.lower:g} to {row.upper:g}"
        return verdict


@dataclass(frozen=True)
class Diverse:
    """Designs that differ pairwise.

    Attributes:
        solutions: in the order found; under one cost their objectives do not decrease.
        reason: why there are no more: `complete` (k were found), `exhausted` (proven: nothing else is that far from all
            of them), or the status of the solve that found none: `timeout`, `unbounded`, `error`.
    """

    solutions: tuple[Solution, ...]
    reason: str


def hamming_row(x: Floats, cells: NDArray[np.int64] | None, h: int) -> Row:
    """The row that keeps a design at least `h` places away from `x`.

    With cells, which hold one of T tiles each, places are cells: sum over cells of (1 - x_chosen) >= h. Without, every
    entry is a place: sum of (1 - x_i) where x is 1, plus sum of x_i where it is 0, >= h.

    Args:
        x: `[n]` float64, zeros and ones.
        cells: `[C, T]` columns of the tiles of each cell, or None.
        h: places, 1 or more.

    Raises:
        InvalidInput: x is not binary, a cell holds no tile or several, or h is more than there are places.
    """
    if (np.abs(x - np.round(x)) > TOLERANCE).any() or np.round(x).min() < 0 or np.round(x).max() > 1:
        raise InvalidInput("distances in places need an x of zeros and ones", hint="use a problem with binary columns")
    one = np.round(x) == 1.0
    places = len(x) if cells is None else len(cells)
    if not 1 <= h <= places:
        raise InvalidInput(f"min_hamming must be 1 to {places}, the number of places; got {h}")
    name = f"at least {h} places away"
    if cells is None:
        return Row(np.arange(len(x)), np.where(one, -1.0, 1.0), float(h - one.sum()), np.inf, name)
    held = one[cells].sum(axis=1)
    if (held != 1).any():
        cell = int(np.flatnonzero(held != 1)[0])
        raise InvalidInput(f"cell {cell} holds {held[cell]} tiles, not one", hint="check the columns given as cells")
    chosen = np.asarray(cells, np.int64)[one[cells]]
    return Row(chosen, np.ones(places), -np.inf, float(places - h), name)


def diverse(
    solver: Solver,
    problem: Problem,
    costs: Floats,
    *,
    k: int,
    min_hamming: int,
    time_limit_s: float,
    cells: NDArray[np.int64] | None = None,
    seed: int = 0,
) -> Diverse:
    """Find k designs that differ pairwise in at least `min_hamming` places, one solve each.

    Args:
        solver: one that takes instances of kind `milp`.
        problem: with binary x.
        costs: `[n]` for all designs, or `[k, n]`: the i-th design is the best under the i-th cost.
        k: designs wanted.
        min_hamming: places, as in `hamming_row`; 1 asks for distinct designs. Above 1 the set is grown greedily: once
            it is exhausted no design can be added, but another set might have been larger.
        time_limit_s: seconds in all.
        cells: as in `hamming_row`.
        seed: passed to the solver.

    Raises:
        InvalidInput: k or the shape of costs does not fit, or x is not binary.
    """
    costs = np.asarray(costs, np.float64)
    if k < 1 or costs.shape not in ((problem.n,), (k, problem.n)):
        raise InvalidInput(
            f"{k} designs need costs of shape [{problem.n}] or [{k}, {problem.n}], got {list(costs.shape)}"
        )
    deadline = time.perf_counter() + time_limit_s
    extended = Extended.of(problem)
    found: list[Solution] = []
    for cost in np.broadcast_to(costs, (k, problem.n)):
        rest = deadline - time.perf_counter()
        solution = solver.solve(extended.instance(cost), time_limit_s=max(rest, 0.0), seed=seed)
        if solution.x is None:
            reason = "exhausted" if solution.status == "infeasible" else solution.status
            return Diverse(tuple(found), reason)
        found.append(solution)
        extended = extended.and_rows([hamming_row(solution.x, cells, min_hamming)])
    return Diverse(tuple(found), "complete")
