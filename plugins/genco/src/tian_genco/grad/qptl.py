"""The relaxed optimum with a small quadratic term: differentiable, fractional."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import highspy
import numpy as np
import torch
from scipy.linalg import null_space, orth
from torch import Tensor

from tian.errors import InvalidInput, RunError
from tian_genco.grad.estimators import Estimator, Saved, Solve
from tian_genco.problem import Floats, Milp, Problem
from tian_genco.solving.engine import Quiet, as_highs

ACTIVE = 1e-7  # how near to its bound a column or row counts as held by it; the solver is exact to about 1e-9


@dataclass(frozen=True)
class QPTL(Estimator):
    r"""x = argmin c.x + gamma |x|^2 / 2 over the linear relaxation (Wilder, Dilkina, Tambe 2019).

    Where the optimum stays on one face of the relaxation it moves by dx = -T dc / gamma, T being the orthogonal
    projection onto the directions that face leaves x. (The KKT system [H G^T; G 0] of the held rows and columns,
    solved: with H = gamma I on x the multipliers are what T removes.) Hence dL/dc = -T d / gamma: the identity
    estimator, less what the face forbids. At a corner nothing comes back, so gamma must be large enough for x to be
    fractional; such an x breaks the integrality rules and serves training only. Where a rule is met exactly without
    being needed, the derivative is one-sided, and the one within the face is taken.

    The solver of the layer plays no part, nor do its counts; each row costs one quadratic program.

    Attributes:
        problem: the rules.
        gamma: > 0, in units of the cost for entries of size 1.
    """

    problem: Problem
    gamma: float = 1.0

    def __post_init__(self) -> None:
        if not self.gamma > 0:
            raise InvalidInput(f"gamma must be > 0, got {self.gamma}")

    @cached_property
    def milp(self) -> Milp:
        """The rules as rows and columns."""
        return self.problem.milp()

    def forward(self, solve: Solve, cost: Tensor, *, step: int) -> tuple[Tensor, Saved]:
        """One quadratic program a row.

        Raises:
            InvalidInput: the relaxation is infeasible or, in columns that carry no cost, unbounded.
            RunError: a program was not solved for another reason.
        """
        engine = _engine(self.milp, self.gamma)
        y = torch.from_numpy(np.array([_minimise(engine, c) for c in cost.numpy()]).reshape(len(cost), -1))
        return y[:, : self.milp.n].clone(), (y,)

    def backward(self, solve: Solve, saved: Saved, d: Tensor) -> Tensor:
        """-T d / gamma."""
        rows = [self._along_face(y, g) for y, g in zip(saved[0].numpy(), d.numpy(), strict=True)]
        return torch.from_numpy(np.array(rows)) / -self.gamma

    def _along_face(self, y: Floats, d: Floats) -> Floats:
        """T applied to `d [n]` at the optimum `y [m]`."""
        milp = self.milp
        free = np.flatnonzero((y - milp.col_lower > ACTIVE) & (milp.col_upper - y > ACTIVE))
        activity = self._dense @ y
        held = (activity - milp.row_lower <= ACTIVE) | (milp.row_upper - activity <= ACTIVE)
        directions = null_space(self._dense[np.ix_(held, free)]) if held.any() else np.eye(len(free))
        inside = free < milp.n
        tangent = orth(directions[inside]) if inside.any() and directions.size else np.zeros((int(inside.sum()), 0))
        out = np.zeros_like(d)
        out[free[inside]] = tangent @ (tangent.T @ d[free[inside]])
        return out

    @cached_property
    def _dense(self) -> Floats:
        """`[R, m]`."""
        milp = self.milp
        out = np.zeros((len(milp.row_lower), len(milp.col_lower)))
        row = np.repeat(np.arange(len(out)), np.diff(milp.indptr))
        np.add.at(out, (row, milp.indices), milp.values)
        return out


def _engine(milp: Milp, gamma: float) -> highspy.Highs:
    """The relaxation with its quadratic term, not yet any cost."""
    hessian = highspy.HighsHessian()
    columns = len(milp.col_lower)
    hessian.dim_ = columns
    hessian.format_ = highspy.HessianFormat.kTriangular
    hessian.start_ = np.minimum(np.arange(columns + 1), milp.n)
    hessian.index_ = np.arange(milp.n)
    hessian.value_ = np.full(milp.n, gamma)
    engine = Quiet()
    for name, value in (("output_flag", False), ("threads", 1), ("qp_regularization_value", 0.0)):
        engine.setOptionValue(name, value)
    engine.passModel(as_highs(milp, relaxed=True))
    engine.passHessian(hessian)
    return engine


def _minimise(engine: highspy.Highs, cost: Floats) -> Floats:
    """All columns `[m]` of the optimum under `cost [n]`."""
    engine.clearSolver()  # so that earlier rows play no part
    engine.changeColsCost(len(cost), np.arange(len(cost), dtype=np.int32), cost)
    engine.run()
    status = engine.getModelStatus()
    if status == highspy.HighsModelStatus.kOptimal:
        return np.array(engine.getSolution().col_value)
    said = engine.modelStatusToString(status)
    if status in (
        highspy.HighsModelStatus.kInfeasible,
        highspy.HighsModelStatus.kUnbounded,
        highspy.HighsModelStatus.kUnboundedOrInfeasible,
    ):
        raise InvalidInput(f"the relaxation has no optimum: {said}", where="estimator qptl", hint="drop a rule")
    raise RunError(f"a quadratic program was not solved: {said}", where="estimator qptl", hint="use another estimator")
