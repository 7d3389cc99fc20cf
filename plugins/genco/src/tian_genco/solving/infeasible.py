"""Why nothing meets the rules: rows that are in conflict, found by deletion."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from tian_genco.problem import Milp, Problem, Row
from tian_genco.solving.engine import Engine, solve_lazily

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Conflict:
    """Rows that no x meets together, bounds and integrality given.

    Attributes:
        rows: their names; empty when bounds and rows above suspicion are in conflict, and when nothing was proven.
        status: `minimal`: leave out any row and the rest can be met; `reduced`: a conflict, but the time did not
            suffice to prove every row needed; `feasible`: all rows can be met; `undecided`: the time ran out first.
    """

    rows: tuple[str, ...]
    status: Literal["minimal", "reduced", "feasible", "undecided"]


def conflict(problem: Problem, *, time_limit_s: float, suspects: Collection[str] | None = None) -> Conflict:
    """Find rows of an infeasible problem that cannot be met together, as few as deletion gives.

    Rows are left out in groups, each time of a quarter of the size; a group stays out when the rest is still
    infeasible. After groups of one row the conflict is minimal. Rows that `problem.lazy` added take part.

    Args:
        problem: usually one that a solver called infeasible.
        time_limit_s: seconds in all; a single question gets at most a quarter of what is left.
        suspects: names of the rows to look among, such as those a user added; the others are taken as given. None: all.

    Source:
        Deletion filter, Chinneck and Dravnieks, ORSA Journal on Computing 3 (1991); groups are ours.
    """
    deadline = time.perf_counter() + time_limit_s
    milp, lazy = problem.milp(), list[Row]()
    first = solve_lazily(Engine(milp), problem, np.zeros(problem.n), time_limit_s=time_limit_s, found=lazy)
    if first.status != "infeasible":
        return Conflict((), "undecided" if first.y is None else "feasible")
    milp = milp.with_rows(lazy) if lazy else milp
    engine = Engine(milp)
    rows = np.arange(len(milp.row_lower))
    names = [name or f"row {k}" for k, name in enumerate(milp.row_names or ("",) * len(rows))]
    suspect = np.array([suspects is None or name in suspects for name in names], bool)
    needed, unsure = np.ones(len(rows), bool), False
    size = max(1, int(suspect.sum()) // 2)
    while True:
        left = rows[needed & suspect]
        for group in (left[i : i + size] for i in range(0, len(left), size)):
            needed[group] = False
            status = _without(engine, milp, rows[~needed], (deadline - time.perf_counter()) / 4)
            needed[group] = status != "infeasible"
            unsure |= size == 1 and status == "timeout"
        if size == 1:
            break
        size = max(1, size // 4)
    return Conflict(tuple(names[k] for k in rows[needed & suspect]), "reduced" if unsure else "minimal")


def _without(engine: Engine, milp: Milp, out: NDArray[np.int64], seconds: float) -> str:
    """Status of the program without the rows `out`."""
    engine.reset()
    engine.change_rows(out, np.full(len(out), -np.inf), np.full(len(out), np.inf))
    return engine.solve(np.zeros(milp.n), time_limit_s=seconds).status
