"""A solver and one set of rules as a counted function from costs to optima."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tian.errors import ContractError, InvalidInput, RunError
from tian_genco.grad.costs import ties
from tian_genco.problem import Floats, Problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tian.spec import Instance, SolutionBatch, Solver

MIN_SOLVES = 100  # solves before a share of failures means anything


class Oracle:
    """x(c) = argmin c.x over the rules of one problem.

    Args:
        solver: any solver that takes the kind of the problem.
        problem: the rules; of an instance the cost plays no part.
        time_limit_s: seconds for each solve, > 0.
        max_fail_rate: share of solves that may end without an x, 0 to 1.
        tie_seed: seed of the field that `tian_genco.grad.costs.ties` adds to every cost; None adds none.
        least: costs below it are solved as it, and counted; for solvers that take no negative costs, since noise and
            steps of an estimator can lead there. None takes costs as they are.

    Raises:
        InvalidInput: a limit outside its range.
    """

    def __init__(
        self,
        solver: Solver,
        problem: Problem | Instance,
        *,
        time_limit_s: float,
        max_fail_rate: float = 0.01,
        tie_seed: int | None = None,
        least: float | None = None,
    ) -> None:
        if not time_limit_s > 0:
            raise InvalidInput(f"time_limit_s must be > 0, got {time_limit_s}")
        if not 0 <= max_fail_rate <= 1:
            raise InvalidInput(f"max_fail_rate must be between 0 and 1, got {max_fail_rate}")
        self.solver = solver
        self.instance = problem.instance() if isinstance(problem, Problem) else problem
        self.n = len(self.instance.cost)
        self.time_limit_s = time_limit_s
        self.max_fail_rate = max_fail_rate
        self.ties = np.zeros(self.n) if tie_seed is None else ties(self.n, tie_seed)
        self.least = least
        self._status: Counter[str] = Counter()
        self._route: Counter[str] = Counter()
        self._reused = 0
        self._raised = 0
        self._failed = 0
        self._seconds = 0.0

    def __call__(self, costs: Tensor) -> Tensor:
        """`[B, n]` float64 on the CPU: the optimum of each row of `costs [B, n]`, a row of NaN where a solve failed.

        NaN marks a failure through all arithmetic that follows; layer and losses turn it into zeros at the end. Rows
        that are equal bit by bit are solved once.

        Raises:
            InvalidInput: a cost is not finite; the rules contradict each other; the cost has no minimum.
            RunError: more than `max_fail_rate` of the solves failed, once there were 100.
            ContractError: the solver returned an x of another shape, or one that is not finite.
        """
        rows = costs.detach().to("cpu", torch.float64).numpy() + self.ties
        if self.least is not None:
            self._raised += int((rows < self.least).sum())
            rows = np.maximum(rows, self.least)
        if not len(rows):
            return torch.zeros(0, self.n, dtype=torch.float64)
        place = _places(rows)
        distinct = rows if place is None else rows[np.unique(place, return_index=True)[1]]
        start = time.perf_counter()
        batch = self.solver.solve_costs(self.instance, distinct, time_limit_s=self.time_limit_s)
        self._seconds += time.perf_counter() - start
        self._reused += len(rows) - len(distinct)
        x = self._accepted(batch, len(distinct))
        return torch.from_numpy(x if place is None else x[place])

    def counts(self) -> dict[str, Any]:
        """What was done so far.

        Returns:
            `solves`, `failed` (of them without an x), `reused` (rows that equalled another), `raised` (entries to
            `least`), `seconds` (in the solver), and numbers of solves by `status` and by `route`.
        """
        return {
            "solves": self._status.total(),
            "failed": self._failed,
            "reused": self._reused,
            "raised": self._raised,
            "seconds": self._seconds,
            "status": dict(self._status),
            "route": dict(self._route),
        }

    def _accepted(self, batch: SolutionBatch, asked: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        if batch.x.shape != (asked, self.n) or not np.isfinite(batch.x).all():
            raise ContractError(
                f"{asked} costs of {self.n} entries were answered by x of shape {list(batch.x.shape)}, "
                f"finite: {bool(np.isfinite(batch.x).all())}",
                where=f"solver {type(self.solver).__name__}",
            )
        self._status.update(batch.status)
        self._route.update(batch.route)
        self._failed += int((~batch.found).sum())
        where = f"solver {type(self.solver).__name__}, instance of kind {self.instance.kind!r}"
        if "infeasible" in batch.status:
            raise InvalidInput("the rules contradict each other: no x meets them", where=where, hint="drop a rule")
        if "unbounded" in batch.status:
            row = batch.status.index("unbounded")
            raise InvalidInput(f"the cost of batch row {row} has no minimum", where=where, hint="bound every column")
        solves = self._status.total()
        if solves >= MIN_SOLVES and self._failed > self.max_fail_rate * solves:
            said = ", ".join(f"{name} {count}" for name, count in self._status.most_common())
            raise RunError(
                f"{self._failed} of {solves} solves ended without an x, more than {self.max_fail_rate:.2%} ({said})",
                where=where,
                hint="raise the time limit, or max_fail_rate",
            )
        x = np.array(batch.x, np.float64)  # a copy: the solver may keep its own
        if not batch.found.all():
            x[~batch.found] = np.nan
        return x


def _places(rows: Floats) -> NDArray[np.int64] | None:
    """For each row the number of the first one equal bit by bit, among the distinct ones; None when all differ."""
    some = np.ascontiguousarray(rows[:, :: max(1, rows.shape[1] // 16)])  # mostly enough to tell rows apart
    if len({row.tobytes() for row in some}) == len(rows):
        return None
    first: dict[bytes, int] = {}
    place = np.array([first.setdefault(row.tobytes(), len(first)) for row in rows], np.int64)
    return place if len(first) < len(rows) else None


def check_costs(costs: Tensor, n: int, *, what: str = "costs") -> None:
    """Refuse costs that cannot be solved, before a solver sees them.

    Raises:
        InvalidInput: not `[B, n]`, not of a floating type, or not finite; batch row and entry are named.
    """
    if costs.dim() != 2 or costs.shape[1] != n:
        raise InvalidInput(f"{what} must be [B, {n}], got shape {list(costs.shape)}")
    if not costs.is_floating_point():
        raise InvalidInput(f"{what} must have a floating type, got {costs.dtype}")
    if bool(costs.detach().sum(dtype=torch.float64).isfinite()):  # one quick pass where all is well
        return
    good = torch.isfinite(costs)
    if not bool(good.all()):
        row, entry = (~good).nonzero()[0].tolist()
        raise InvalidInput(f"{what}: batch row {row} holds {costs[row, entry].item()} at entry {entry}")
