"""The relaxed optimum with a logarithmic barrier: differentiable, strictly inside the relaxation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse
from scipy.linalg import null_space
from torch import Tensor

from tian.errors import InvalidInput, RunError
from tian_genco.grad.estimators import Estimator, Saved, Solve
from tian_genco.problem import Floats, Milp, Problem
from tian_genco.solving.engine import Engine

if TYPE_CHECKING:
    from numpy.typing import NDArray

WHERE = "estimator log-barrier"
EXACT = 1e-6  # Newton decrement before the last step; convergence is quadratic
STEPS = 500
ENTRIES = 2**22  # of a stack of Jacobians, over the rows that are solved together
SECONDS = 60.0  # for the linear program that finds a point inside


@dataclass(frozen=True)
class LogBarrier(Estimator):
    r"""x = argmin c.x - mu sum_k log s_k over the linear relaxation, s its slacks (Mandi and Guns 2020).

    In standard form every bound and every row with a bound has a slack s_k >= 0, a column like others; the barrier is on
    them all. Slacks that are 0 in every solution have no logarithm: they are equalities, and so is a row with equal
    bounds. With Z an orthonormal basis of the directions equalities leave, and G = ds/dy Z, the optimality condition
    Z^T c = mu G^T (1/s) gives by implicit differentiation

        dL/dc = -Z H^-1 Z^T d,    H = mu G^T diag(1/s^2) G,

    one linear solve a row, of the KKT system with the multipliers eliminated. Smaller mu means an x nearer to a corner,
    and a smaller gradient there. Such an x breaks the integrality rules and serves training only.

    The solver of the layer plays no part, nor do its counts; each row takes a few dozen Newton steps on dense systems.

    Attributes:
        problem: the rules.
        mu: > 0, in units of the cost.
    """

    problem: Problem
    mu: float = 0.1

    def __post_init__(self) -> None:
        if not self.mu > 0:
            raise InvalidInput(f"mu must be > 0, got {self.mu}")

    @cached_property
    def inside(self) -> Inside:
        """The relaxation around a point inside it. Raises as `forward`."""
        return Inside.of(self.problem.milp())

    def forward(self, solve: Solve, cost: Tensor, *, step: int) -> tuple[Tensor, Saved]:
        """Damped Newton steps from a point inside.

        Raises:
            InvalidInput: the relaxation is infeasible, or the barrier has no minimum since a column is not bounded.
            RunError: the search for a point inside failed for another reason.
        """
        n = cost.shape[1]
        parts = [self._centre(part @ self.inside.directions[:n]) for part in self.inside.parts(cost)]
        w = torch.cat(parts) if parts else cost.new_zeros(0, self.inside.directions.shape[1])
        return (self.inside.start + w @ self.inside.directions.T)[:, :n], (self.inside.slacks(w),)

    def backward(self, solve: Solve, saved: Saved, d: Tensor) -> Tensor:
        """-Z H^-1 Z^T d."""
        directions = self.inside.directions[: d.shape[1]]
        parts = [
            _newton(_factor(self.inside.slopes / slack[:, :, None]), above @ directions)
            for slack, above in zip(self.inside.parts(saved[0]), self.inside.parts(d), strict=True)
        ]
        return -torch.cat(parts) @ directions.T / self.mu

    def _centre(self, cost: Tensor) -> Tensor:
        """`[B, k]`, coordinates of the optima, for costs `[B, k]` of the directions.

        1 / (1 + decrement) of Newton's step never leaves the domain and always descends, the barrier being
        self-concordant. Following the central path down from a large mu takes as many steps.
        """
        slopes = self.inside.slopes
        w, busy = torch.zeros_like(cost), torch.arange(len(cost))
        for _ in range(STEPS):
            slack = self.inside.slacks(w[busy])
            gradient = cost[busy] / self.mu - (1 / slack) @ slopes
            move = -_newton(_factor(slopes / slack[:, :, None]), gradient)
            decrement = (-(gradient * move).sum(1, keepdim=True)).clamp_min(0).sqrt()
            # Below a quarter the whole step converges quadratically.
            w[busy] += move / torch.where(decrement < 0.25, 1.0, 1 + decrement)
            busy = busy[decrement[:, 0] >= EXACT]
            if not len(busy):
                return w
        raise _no_minimum()


@dataclass(frozen=True)
class Inside:
    """The points y = start + directions w with slacks s = room + slopes w > 0; float64.

    Attributes:
        start: `[m]`, a point inside.
        directions: `[m, k]`, orthonormal.
        room: `[K]`, the slacks of `start`.
        slopes: `[K, k]`.
    """

    start: Tensor
    directions: Tensor
    room: Tensor
    slopes: Tensor

    def parts(self, rows: Tensor) -> list[Tensor]:
        """`rows [B, ...]` in pieces whose Jacobians fit into memory."""
        size = max(1, ENTRIES // max(1, self.slopes.numel()))
        return [rows[i : i + size] for i in range(0, len(rows), size)]

    def slacks(self, w: Tensor) -> Tensor:
        """`[B, K]` of `w [B, k]`."""
        return self.room + w @ self.slopes.T

    @classmethod
    def of(cls, milp: Milp) -> Inside:
        """By one linear program: t >= 1 and z in [0, 1] for each slack, S y + h t >= z, with as much z as possible.

        z_k is then 0 just for slacks that are 0 in every solution, and y / t is a point where no other is.
        Source: Freund, Roundy, Todd 1985, identifying the set of always-active constraints.
        """
        m = len(milp.col_lower)
        rows = sparse.csr_matrix((milp.values, milp.indices, milp.indptr), (len(milp.row_lower), m))
        both = sparse.vstack([rows, sparse.eye(m)], "csr")
        lower = np.concatenate([milp.row_lower, milp.col_lower])
        upper = np.concatenate([milp.row_upper, milp.col_upper])
        equal = lower == upper
        below, above = ~equal & np.isfinite(lower), ~equal & np.isfinite(upper)
        slopes = sparse.vstack([both[below], -both[above]], "csr")
        room = np.concatenate([-lower[below], upper[above]])
        y, strict = _point_inside(slopes, room, both[equal], lower[equal])
        held = sparse.vstack([both[equal], slopes[~strict]]).toarray()
        directions = null_space(held) if len(held) else np.eye(m)
        slopes, room = slopes[strict], room[strict]
        return cls(
            *(
                torch.from_numpy(np.ascontiguousarray(a))
                for a in (y, directions, room + slopes @ y, slopes @ directions)
            )
        )


def _point_inside(slopes: Any, room: Floats, equalities: Any, values: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """A point `[m]` of the relative interior, and which of the slacks `[K]` are not always 0."""
    count, m = slopes.shape
    a = sparse.vstack(
        [
            sparse.hstack([slopes, sparse.csr_matrix(room[:, None]), -sparse.eye(count)]),
            sparse.hstack([equalities, sparse.csr_matrix(-values[:, None]), sparse.csr_matrix((len(values), count))]),
        ],
        "csr",
    )
    zeros, free, ones = np.zeros(count + len(values)), np.full(m, np.inf), np.ones(count)
    program = Milp(
        m + 1 + count,
        a.indptr.astype(np.int64),
        a.indices.astype(np.int64),
        a.data,
        zeros,
        np.where(np.arange(len(zeros)) < count, np.inf, 0.0),
        np.concatenate([-free, [1.0], 0 * ones]),
        np.concatenate([free, [np.inf], ones]),
        np.zeros(m + 1 + count, bool),
    )
    found = Engine(program).solve(np.concatenate([np.zeros(m + 1), -ones]), time_limit_s=SECONDS)
    if found.status == "infeasible":
        raise InvalidInput("the relaxation has no optimum: Infeasible", where=WHERE, hint="drop a rule")
    if found.y is None:
        raise RunError(
            f"no point inside the relaxation was found: {found.status}", where=WHERE, hint="use another estimator"
        )
    return found.y[:m] / found.y[m], found.y[m + 1 :] > 0.5


def _factor(jacobian: Tensor) -> Tensor:
    """Cholesky factors `[B, k, k]` of J^T J for `[B, K, k]`."""
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(jacobian.mT @ jacobian)
    if bool(failed.any()):
        raise _no_minimum()
    return factor


def _newton(factor: Tensor, right: Tensor) -> Tensor:
    """`[B, k]`: (L L^T)^-1 right."""
    solved: Tensor = torch.cholesky_solve(right[:, :, None], factor)[:, :, 0]
    return solved


def _no_minimum() -> InvalidInput:
    return InvalidInput("the barrier has no minimum", where=WHERE, hint="bound every column, or take a larger mu")
