"""What is solved: a mixed-integer program in plain arrays, and the problems that know their own rules.

A problem is the payload of an `Instance`; the cost is the instance's. Costs belong to the first n columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tian.errors import InvalidInput
from tian.spec import Instance

Floats = NDArray[np.float64]
TOLERANCE = 1e-6  # how far a row or an integer column may be off and still count as met


@dataclass(frozen=True, eq=False)
class Row:
    """A linear row `lower <= sum(value * column[index]) <= upper`.

    Attributes:
        index: `[k]` int64 columns, each at most once.
        value: `[k]` float64 coefficients.
        lower: -inf for none.
        upper: inf for none.
        name: what an error or a list of conflicting rules calls it.
    """

    index: NDArray[np.int64]
    value: Floats
    lower: float
    upper: float
    name: str = ""

    @classmethod
    def of(cls, terms: dict[int, float], *, lower: float = -np.inf, upper: float = np.inf, name: str = "") -> Row:
        """A row from `{column: coefficient}`."""
        index = np.fromiter(terms.keys(), dtype=np.int64, count=len(terms))
        value = np.fromiter(terms.values(), dtype=np.float64, count=len(terms))
        return cls(index, value, lower, upper, name)


class Problem(ABC):
    """Rules for x `[n]`; immutable, hashable and picklable, so that solvers can keep what they compiled of it.

    Attributes:
        kind: kind of instance.
    """

    kind: ClassVar[str]

    @property
    @abstractmethod
    def n(self) -> int:
        """Length of cost and x."""

    @abstractmethod
    def milp(self) -> Milp:
        """The rules as rows and columns; the first n columns are x."""

    @abstractmethod
    def broken(self, x: Floats) -> str:
        """The first rule that `x [n]` breaks, with its place; empty when x is valid.

        Written without sharing code with `milp`, so that an error in one of them is seen.
        """

    def lazy(self, x: Floats) -> Sequence[Row]:
        """Rows that `x`, a solution of `milp`, breaks and that are too many to be written down beforehand."""
        return ()

    def instance(self, cost: Floats | None = None) -> Instance:
        """The instance with `cost [n]`, by default zeros."""
        return Instance(self.kind, np.zeros(self.n) if cost is None else np.asarray(cost, np.float64), self)


@dataclass(frozen=True, eq=False)
class Milp(Problem):
    """Rows `row_lower <= A y <= row_upper`, columns y `[m]` within bounds, some of them integer; x = y[:n].

    Attributes:
        cost_columns: n.
        indptr: `[R+1]` int64, row i of A has the entries `indptr[i]:indptr[i+1]` (CSR).
        indices: `[nnz]` int64 columns.
        values: `[nnz]` float64 coefficients.
        row_lower: `[R]`, -inf for none.
        row_upper: `[R]`, inf for none.
        col_lower: `[m]`.
        col_upper: `[m]`.
        integer: `[m]` bool.
        row_names: R names, or none.
    """

    kind: ClassVar[str] = "milp"
    cost_columns: int
    indptr: NDArray[np.int64]
    indices: NDArray[np.int64]
    values: Floats
    row_lower: Floats
    row_upper: Floats
    col_lower: Floats
    col_upper: Floats
    integer: NDArray[np.bool_]
    row_names: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        rows, columns = len(self.row_lower), len(self.col_lower)
        if len(self.indptr) != rows + 1 or len(self.row_upper) != rows:
            raise InvalidInput(f"{rows} rows need {rows + 1} entries of indptr, got {len(self.indptr)}")
        if len(self.col_upper) != columns or len(self.integer) != columns or not 0 < self.cost_columns <= columns:
            raise InvalidInput(f"{self.cost_columns} of {columns} columns cannot carry the cost")
        if self.row_names and len(self.row_names) != rows:
            raise InvalidInput(f"{len(self.row_names)} names for {rows} rows")

    @classmethod
    def of(
        cls,
        rows: Sequence[Row],
        *,
        n: int,
        lower: Floats,
        upper: Floats,
        integer: NDArray[np.bool_],
    ) -> Milp:
        """From a list of rows; `lower`, `upper` and `integer` `[m]` describe the columns, the first n carry the cost."""
        indptr = np.cumsum([0, *(len(r.index) for r in rows)]).astype(np.int64)
        return cls(
            cost_columns=n,
            indptr=indptr,
            indices=np.concatenate([r.index for r in rows]) if rows else np.zeros(0, np.int64),
            values=np.concatenate([r.value for r in rows]) if rows else np.zeros(0),
            row_lower=np.array([r.lower for r in rows], np.float64),
            row_upper=np.array([r.upper for r in rows], np.float64),
            col_lower=np.asarray(lower, np.float64),
            col_upper=np.asarray(upper, np.float64),
            integer=np.asarray(integer, bool),
            row_names=tuple(r.name for r in rows),
        )

    @property
    def n(self) -> int:
        """Columns that carry the cost."""
        return self.cost_columns

    def milp(self) -> Milp:
        """Itself."""
        return self

    def rows(self) -> list[Row]:
        """The rows, one by one."""
        names = self.row_names or ("",) * len(self.row_lower)
        cuts = zip(self.indptr[:-1], self.indptr[1:], strict=True)
        return [
            Row(self.indices[a:b], self.values[a:b], float(self.row_lower[i]), float(self.row_upper[i]), names[i])
            for i, (a, b) in enumerate(cuts)
        ]

    def with_rows(self, extra: Sequence[Row]) -> Milp:
        """The same with further rows."""
        return Milp.of(
            [*self.rows(), *extra], n=self.n, lower=self.col_lower, upper=self.col_upper, integer=self.integer
        )

    def residual(self, y: Floats) -> float:
        """How far the columns `y [m]` are from meeting rows, bounds and integrality at worst; 0 is exact."""
        terms = self.values * y[self.indices]
        activity = np.add.reduceat(np.append(terms, 0.0), self.indptr[:-1]) if len(self.row_lower) else np.zeros(0)
        activity[np.diff(self.indptr) == 0] = 0.0  # reduceat gives the next entry for an empty row
        gaps = [
            self.row_lower - activity,
            activity - self.row_upper,
            self.col_lower - y,
            y - self.col_upper,
            np.abs(y - np.round(y))[self.integer],
        ]
        return float(max((g.max(initial=0.0) for g in gaps), default=0.0))

    def broken(self, x: Floats) -> str:
        """The first row or bound that x breaks; of rows with further columns nothing can be said and nothing is."""
        n = self.n
        for i in range(n):
            if not self.col_lower[i] - TOLERANCE <= x[i] <= self.col_upper[i] + TOLERANCE:
                return f"column {i} is {x[i]:g}, outside {self.col_lower[i]:g} to {self.col_upper[i]:g}"
            if self.integer[i] and abs(x[i] - round(x[i])) > TOLERANCE:
                return f"column {i} is {x[i]:g}, not an integer"
        for k, row in enumerate(self.rows()):
            if len(row.index) and row.index.max() >= n:
                continue
            activity = float(row.value @ x[row.index])
            if not row.lower - TOLERANCE <= activity <= row.upper + TOLERANCE:
                name = row.name or f"row {k}"
                return f"{name}: {activity:g} is not within {row.lower:g} to {row.upper:g}"
        return ""

    def equalities(self) -> Floats:
        """`[G, n]` float64: combinations of x that are constant over all solutions.

        These are the equality rows without further columns, and a unit row for each fixed column. Adding multiples of
        them to the cost shifts every objective by a constant, so it never changes the optimum: costs and gradients are
        determined up to their span only.
        """
        out = []
        for row in self.rows():
            if row.lower == row.upper and len(row.index) and row.index.max() < self.n:
                dense = np.zeros(self.n)
                dense[row.index] = row.value
                out.append(dense)
        fixed = np.flatnonzero(self.col_lower[: self.n] == self.col_upper[: self.n])
        out.extend(np.eye(self.n)[fixed])
        return np.array(out, np.float64).reshape(-1, self.n)
