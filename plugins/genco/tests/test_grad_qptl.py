"""The relaxed optimum with a quadratic term: closed forms, optimality conditions, and finite differences."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from tian.errors import InvalidInput
from tian_genco.grad.estimators import Identity
from tian_genco.grad.layer import SolverLayer
from tian_genco.grad.make import make_estimator
from tian_genco.grad.options import GradOptions
from tian_genco.grad.qptl import QPTL
from tian_genco.paths.problem import PathProblem
from tian_genco.problem import Milp, Row

spec = importlib.util.spec_from_file_location("grad_toys", Path(__file__).with_name("grad_toys.py"))
toys = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toys)


def polytope(seed: int) -> Milp:
    """Six columns in [0, 1], a fixed one among them, one equality and three inequalities that 0.4 meets."""
    rng = np.random.default_rng(seed)
    rows = [Row.of(dict(enumerate(rng.normal(size=6).tolist())), upper=1e9) for _ in range(4)]
    values = [float(r.value.sum() * 0.4) for r in rows]
    bounds = [(values[0], values[0]), *((-np.inf, v + 0.05) for v in values[1:])]
    rows = [Row(r.index, r.value, lo, hi) for r, (lo, hi) in zip(rows, bounds, strict=True)]
    lower, upper = np.zeros(6), np.ones(6)
    lower[5] = upper[5] = 0.4
    return Milp.of(rows, n=6, lower=lower, upper=upper, integer=np.zeros(6, bool))


def layer(problem, gamma=1.0):
    # the vertices are never asked
    return SolverLayer(toys.VertexSolver(np.eye(problem.n)), problem, QPTL(problem, gamma), time_limit_s=1.0)


def optimum(problem, gamma, c):
    return layer(problem, gamma)(torch.from_numpy(np.atleast_2d(c))).numpy()


def test_choosing_k_is_water_filling():
    rng = np.random.default_rng(0)
    for c in rng.normal(size=(20, 8)):
        low, high = -20.0, 20.0
        for _ in range(100):  # x = clip(-(c + m) / gamma), m such that they add up to 3
            m = (low + high) / 2
            low, high = (m, high) if np.clip(-(c + m) / 0.7, 0, 1).sum() > 3 else (low, m)
        assert np.abs(optimum(toys.choose(3, 8), 0.7, c) - np.clip(-(c + m) / 0.7, 0, 1)).max() < 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_no_feasible_point_is_better(seed):
    problem, rng = polytope(seed), np.random.default_rng(seed)
    c = rng.normal(size=6)
    x = optimum(problem, 1.0, c)[0]
    assert problem.residual(x) < 1e-7
    for other in optimum(problem, 1.0, rng.normal(size=(20, 6)) * 3):
        assert (c + x) @ (other - x) >= -1e-8  # first-order condition, sufficient by convexity


@pytest.mark.parametrize(
    ("problem", "gamma"),
    [
        (toys.choose(2, 5), 1.0),
        (toys.choose(1, 3), 0.5),
        *((polytope(s), 1.0) for s in range(5)),
        (PathProblem(3, 4), 2.0),
    ],
    ids=["choose", "simplex", *(f"polytope {s}" for s in range(5)), "path"],
)
def test_gradient_is_the_finite_difference(problem, gamma):
    rng, step, moving = np.random.default_rng(1), 1e-5, 0
    for _ in range(6):
        c, d = rng.uniform(0, 1, size=(2, problem.n))
        t = torch.from_numpy(c[None]).requires_grad_()
        (g,) = torch.autograd.grad((layer(problem, gamma)(t) * torch.from_numpy(d)).sum(), t)
        moves = step * np.eye(problem.n)
        difference = (optimum(problem, gamma, c + moves) - optimum(problem, gamma, c - moves)) @ d / (2 * step)
        assert np.abs(g[0].numpy() - difference).max() < 1e-5
        moving += bool(np.abs(difference).max() > 1e-3)
    assert moving >= 2  # not all at corners


def test_inside_the_face_of_all_rules_it_is_the_projected_identity():
    problem, d = toys.choose(2, 5), torch.tensor([[0.3, -1.0, 0.2, 0.9, 0.1]], dtype=torch.float64)
    c = torch.tensor([[0.01, 0.02, -0.01, 0.0, 0.03]], dtype=torch.float64, requires_grad=True)
    (g,) = torch.autograd.grad((layer(problem)(c) * d).sum(), c)
    (identity,) = torch.autograd.grad(
        (SolverLayer(toys.VertexSolver(toys.vertices_of(problem)), problem, Identity(), time_limit_s=1.0)(c) * d).sum(),
        c,
    )
    assert torch.allclose(g, identity - identity.mean(), atol=1e-12)


def test_at_a_corner_nothing_comes_back():
    c = torch.tensor([[0.0, 5.0, 9.0]], dtype=torch.float64, requires_grad=True)
    x = layer(toys.choose(1, 3), gamma=0.1)(c)
    assert torch.allclose(x, torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64), atol=1e-9)
    (g,) = torch.autograd.grad(x[0, 0], c)
    assert (g == 0).all()


def test_a_contradiction_is_the_callers_fault():
    row = Row.of({0: 1.0, 1: 1.0}, lower=3, upper=3)
    problem = Milp.of([row], n=2, lower=np.zeros(2), upper=np.ones(2), integer=np.ones(2, bool))
    with pytest.raises(InvalidInput, match="no optimum"):
        optimum(problem, 1.0, np.zeros(2))


def test_it_is_made_from_options_and_wants_a_weight():
    problem = toys.choose(2, 5)
    assert make_estimator(GradOptions(name="qptl", gamma=0.3), problem=problem) == QPTL(problem, 0.3)
    with pytest.raises(InvalidInput, match="gamma must be > 0"):
        QPTL(problem, 0.0)
