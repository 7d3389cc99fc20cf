"""One mixed-integer program kept in HiGHS, solved under many costs."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import highspy
import numpy as np

from tian.errors import InvalidInput, RunError
from tian.spec.solver import Status
from tian_genco.problem import TOLERANCE, Floats, Milp, Problem, Row
from tian_genco.solving.options import HighsOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

ABSOLUTE_GAP = 1e-6
OPTIMAL_GAP = 1e-4  # relative; the largest that the role's contract calls optimal
_FEASIBLE = 2  # kSolutionStatusFeasible; highspy gives the plain number
_STATUS: dict[Any, Status] = {
    highspy.HighsModelStatus.kOptimal: "optimal",
    highspy.HighsModelStatus.kInfeasible: "infeasible",
    highspy.HighsModelStatus.kUnbounded: "unbounded",
    highspy.HighsModelStatus.kUnboundedOrInfeasible: "unbounded",
    highspy.HighsModelStatus.kTimeLimit: "timeout",
    highspy.HighsModelStatus.kInterrupt: "timeout",
}


@dataclass(frozen=True)
class Outcome:
    """What a solve ended with.

    Attributes:
        y: `[m]` float64, integer columns exact, or None.
        bound: proven lower bound of cost . y[:n]; inf when infeasible, -inf when nothing is proven.
        status: of the role's union.
        route: `lp` or `mip`: what found it.
    """

    y: Floats | None
    bound: float
    status: Status
    route: str


class Quiet(highspy.Highs):
    """HiGHS that says nothing."""

    def enableCallbacks(self) -> None:  # noqa: N802 - the name of highspy
        """Nothing: no callbacks are needed, and setting them up prints a banner."""
        self.setOptionValue("output_flag", False)  # noqa: FBT003


class Engine:
    """A program passed to HiGHS once; every solve starts from the same state, so that history plays no part.

    Args:
        milp: rows and columns.
        options: gap and presolve.
        relaxed: leave integrality out. Solves then start from one basis, that of a cost drawn with seed 0.
    """

    def __init__(self, milp: Milp, options: HighsOptions | None = None, *, relaxed: bool = False) -> None:
        self.milp = milp
        self.relaxed = relaxed or not milp.integer.any()
        options = options or HighsOptions()
        self._lp = as_highs(milp, relaxed=self.relaxed)
        self._columns = np.arange(milp.n, dtype=np.int32)
        self._highs = Quiet()
        for name, value in {
            "threads": 1,
            "mip_rel_gap": options.mip_gap,
            "mip_abs_gap": ABSOLUTE_GAP,
            "mip_heuristic_run_feasibility_jump": False,  # 5 ms a solve, and no use once the root LP is quick
            "presolve": "on" if options.presolve else "off",
        }.items():
            self._highs.setOptionValue(name, value)
        self._basis: Any = None
        self.reset()
        if relaxed:
            draw = np.random.default_rng(0).normal(size=milp.n)
            self._highs.changeColsCost(milp.n, self._columns, draw)
            self._run(60.0)
            basis = self._highs.getBasis()
            self._basis = basis if basis.valid else None

    def reset(self) -> None:
        """Back to the program as given. Deleting rows instead would leave the entries in another order."""
        self._highs.passModel(self._lp)

    def add(self, rows: Sequence[Row]) -> None:
        """Append rows, until `reset`."""
        for row in rows:
            self._highs.addRow(row.lower, row.upper, len(row.index), row.index.astype(np.int32), row.value)

    def change_rows(self, index: NDArray[np.int64], lower: Floats, upper: Floats) -> None:
        """Give the rows `index [k]` other bounds, until `reset`."""
        self._highs.changeRowsBounds(len(index), index.astype(np.int32), lower, upper)

    def write(self, cost: Floats, path: Path) -> None:
        """Save the program with `cost [n]` as an MPS file. Raises RunError when it cannot be written."""
        self._highs.changeColsCost(len(cost), self._columns, cost)
        if self._highs.writeModel(str(path)) == highspy.HighsStatus.kError:
            raise RunError(f"cannot write {path}", hint="name a writable file that ends in .mps")

    def solve(self, cost: Floats, *, time_limit_s: float, seed: int = 0, start: Floats | None = None) -> Outcome:
        """Minimise cost . y[:n].

        Args:
            cost: `[n]` float64, finite.
            time_limit_s: seconds; nothing is solved when none are left.
            seed: of HiGHS's heuristics.
            start: `[n]` values to begin from, ignored when no solution has them.
        """
        deadline = time.perf_counter() + time_limit_s
        route = "lp" if self.relaxed else "mip"
        # The absolute gap would swallow tiny costs; powers of two leave every digit as it is.
        largest = float(np.abs(cost).max(initial=0.0))
        scale = math.ldexp(1.0, min(1 - math.frexp(largest)[1], 1000)) if 0.0 < largest < 1.0 else 1.0
        highs = self._highs
        highs.setOptionValue("random_seed", seed % 2**31)
        highs.clearSolver()
        highs.changeColsCost(len(cost), self._columns, cost * scale)
        if start is not None and not self.relaxed:
            highs.setSolution(len(start), self._columns, start)
        if self._basis is not None:
            highs.setBasis(self._basis)
        status = self._run(deadline - time.perf_counter())
        if status == "unbounded":
            # HiGHS says so of the relaxation; without a solution the program is infeasible.
            highs.changeColsCost(len(cost), self._columns, np.zeros(len(cost)))
            status = self._run(deadline - time.perf_counter())
            status = "unbounded" if status == "optimal" else status
            return Outcome(None, math.inf if status == "infeasible" else -math.inf, status, route)
        if status == "infeasible":
            return Outcome(None, math.inf, status, route)
        info = highs.getInfo()
        bound = -math.inf
        if not info.valid or status == "error":  # nothing ran, and the numbers are those of no solve
            return Outcome(None, bound, status, route)
        if not self.relaxed:
            bound = float(info.mip_dual_bound) / scale
        elif status == "optimal":
            bound = float(info.objective_function_value) / scale
        bound = bound if math.isfinite(bound) else -math.inf
        y: Floats | None = None
        if info.primal_solution_status == _FEASIBLE and status in ("optimal", "timeout"):
            y = np.array(highs.getSolution().col_value, dtype=np.float64)
            y = np.clip(y, self.milp.col_lower, self.milp.col_upper) if self.relaxed else self._exact(y, cost, deadline)
        if y is None:
            return Outcome(None, bound, "error" if status == "optimal" else status, route)
        value = float(cost @ y[: len(cost)])
        closed = value - bound <= OPTIMAL_GAP * max(1.0, abs(value))
        return Outcome(y, min(bound, value), "optimal" if status == "optimal" and closed else "feasible", route)

    def _run(self, seconds: float) -> Status:
        if seconds <= 0.0:
            self._highs.clearSolver()
            return "timeout"
        self._highs.setOptionValue("time_limit", seconds)
        if self._highs.run() == highspy.HighsStatus.kError:
            # Another library of this process runs HiGHS with more threads; its scheduler is shared.
            highspy.Highs.resetGlobalScheduler(True)  # noqa: FBT003
            self._highs.run()
        return _STATUS.get(self._highs.getModelStatus(), "error")

    def _exact(self, y: Floats, cost: Floats, deadline: float) -> Floats | None:
        """`y` with whole numbers in its integer columns, the others solved again where rounding broke a row."""
        whole = self.milp.integer
        y = rounded(self.milp, y)
        if self.milp.residual(y) <= TOLERANCE:
            return y
        return None if whole.all() else _rest(self.milp, whole, y, cost, deadline - time.perf_counter())


def solve_lazily(
    engine: Engine,
    problem: Problem,
    cost: Floats,
    *,
    time_limit_s: float,
    seed: int = 0,
    start: Floats | None = None,
    found: list[Row] | None = None,
) -> Outcome:
    """Solve, add the rows that `problem.lazy` asks for, and again, within one limit; the rows are gone afterwards.

    Args:
        engine: of `problem.milp()`.
        problem: gives the rows.
        cost: `[n]` float64.
        time_limit_s: seconds for all rounds.
        seed: of HiGHS's heuristics.
        start: as in `Engine.solve`.
        found: a list that takes the added rows.

    Raises:
        RunError: the problem asked for a row that its x meets, which would go on for ever.
    """
    deadline = time.perf_counter() + time_limit_s
    bound, added = -math.inf, False
    try:
        while True:
            outcome = engine.solve(cost, time_limit_s=deadline - time.perf_counter(), seed=seed, start=start)
            bound = max(bound, outcome.bound)
            rows = () if outcome.y is None else problem.lazy(outcome.y[: problem.n])
            if outcome.y is None or not rows:
                break
            if all(_met(row, outcome.y) for row in rows):
                raise RunError(
                    f"lazy rows of a {problem.kind} problem are met by the x they are for: {rows[0].name or 'unnamed'}",
                    hint="Problem.lazy must return rows that x breaks",
                )
            engine.add(rows)
            added = True
            if found is not None:
                found.extend(rows)
            if time.perf_counter() >= deadline:
                return Outcome(None, bound, "timeout", outcome.route)
    finally:
        if added:
            engine.reset()
    if outcome.y is not None:
        bound = min(bound, float(cost @ outcome.y[: problem.n]))
    return replace(outcome, bound=bound)


def rounded(milp: Milp, y: Floats) -> Floats:
    """`y [m]` with whole numbers in the integer columns, and all within their bounds."""
    return np.clip(np.where(milp.integer, np.round(y) + 0.0, y), milp.col_lower, milp.col_upper)


def complete(problem: Problem, x: Floats, *, time_limit_s: float = 60.0) -> Floats | None:
    """All columns `[m]` of a solution whose first n are `x [n]` float64; None when there is none.

    Raises:
        InvalidInput: x has another shape or an entry that is not finite.
    """
    x = np.asarray(x, np.float64)
    if x.shape != (problem.n,) or not np.isfinite(x).all():
        raise InvalidInput(f"x must be {problem.n} finite numbers, got shape {list(x.shape)}")
    milp = problem.milp()
    if len(milp.col_lower) == problem.n:
        return x.copy()
    given = np.arange(len(milp.col_lower)) < problem.n
    y = np.concatenate([x, np.zeros(len(given) - problem.n)])
    return _rest(milp, given, y, np.zeros(problem.n), time_limit_s)


def _rest(milp: Milp, given: NDArray[np.bool_], y: Floats, cost: Floats, seconds: float) -> Floats | None:
    """`y` with the columns that are not `given [m]` solved for; None without a solution."""
    lower, upper = np.where(given, y, milp.col_lower), np.where(given, y, milp.col_upper)
    # A given column is a constant here, whole or not: that is for the caller to judge.
    rest = replace(milp, col_lower=lower, col_upper=upper, integer=milp.integer & ~given)
    return Engine(rest).solve(cost, time_limit_s=seconds).y


def _met(row: Row, y: Floats) -> bool:
    activity = float(row.value @ y[row.index])
    return row.lower - TOLERANCE <= activity <= row.upper + TOLERANCE


def as_highs(milp: Milp, *, relaxed: bool) -> Any:
    """The program as HiGHS takes it, with zero costs; `relaxed` leaves integrality out."""
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = len(milp.col_lower), len(milp.row_lower)
    lp.col_cost_ = np.zeros(lp.num_col_)
    lp.col_lower_, lp.col_upper_ = milp.col_lower, milp.col_upper
    lp.row_lower_, lp.row_upper_ = milp.row_lower, milp.row_upper
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_, lp.a_matrix_.index_ = milp.indptr, milp.indices
    lp.a_matrix_.value_ = milp.values
    if not relaxed:
        kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
        lp.integrality_ = [kinds[w] for w in milp.integer.astype(int)]
    return lp
