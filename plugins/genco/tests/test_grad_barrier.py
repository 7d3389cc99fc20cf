"""The relaxed optimum with a barrier: closed forms, the central path, finite differences, and refusals."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from tian.errors import InvalidInput, RunError
from tian_genco.grad import barrier
from tian_genco.grad.barrier import LogBarrier
from tian_genco.grad.layer import SolverLayer
from tian_genco.grad.make import make_estimator
from tian_genco.grad.options import GradOptions
from tian_genco.levels.rules import LevelRules
from tian_genco.paths.problem import PathProblem
from tian_genco.problem import Milp, Row
from tian_genco.solving.engine import Engine, Outcome

spec = importlib.util.spec_from_file_location("grad_toys", Path(__file__).with_name("grad_toys.py"))
toys = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toys)


def simplex(n):
    row = Row.of(dict.fromkeys(range(n), 1.0), lower=1, upper=1)
    return Milp.of([row], n=n, lower=np.zeros(n), upper=np.full(n, np.inf), integer=np.zeros(n, bool))


def flat():
    """x0 + x1 + x2 <= 2, x3 <= 0 by a row, x4 + x5 = 1 twice, x6 fixed: no point has all slacks positive."""
    rows = [
        Row.of({0: 1.0, 1: 1.0, 2: 1.0}, upper=2),
        Row.of({3: 1.0}, upper=0),
        Row.of({4: 1.0, 5: 1.0}, lower=1, upper=1),
        Row.of({4: 2.0, 5: 2.0, 6: 1.0}, lower=2.5, upper=2.5),
    ]
    lower, upper = np.zeros(7), np.ones(7)
    lower[6] = upper[6] = 0.5
    return Milp.of(rows, n=7, lower=lower, upper=upper, integer=np.zeros(7, bool))


def layer(problem, mu):
    # the vertices are never asked
    return SolverLayer(toys.VertexSolver(np.eye(problem.n)), problem, LogBarrier(problem, mu), time_limit_s=1.0)


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("mu", [1e-5, 0.1, 10.0])
def test_on_the_simplex_it_is_the_closed_form(mu):
    c = normal(20, 5)
    low, high = -c.amin(1, keepdim=True), -c.amin(1, keepdim=True) + 5 * mu  # x_i = mu / (c_i + v), adding up to 1
    for _ in range(200):
        v = (low + high) / 2
        short = (mu / (c + v)).sum(1, keepdim=True) < 1
        low, high = torch.where(short, low, v), torch.where(short, v, high)
    assert torch.allclose(layer(simplex(5), mu)(c), mu / (c + v), rtol=1e-7, atol=1e-12)


def test_every_slack_has_its_logarithm_but_those_that_are_always_zero():
    x = layer(flat(), 0.3)(normal(4, 7))
    inside, problem = LogBarrier(flat()).inside, flat()
    # 0 and 1 bound x0, x1, x2 (6), their row (1), 0 and 1 bound x4 and x5 (4); x3 is held below 1 (1), x6 is fixed
    assert inside.room.shape == (12,)
    assert inside.room.min() > 0
    assert inside.directions.shape == (7, 4)
    assert (x[:, 3] == 0).all() or x[:, 3].abs().max() < 1e-9
    assert (x[:, 6] - 0.5).abs().max() < 1e-9
    assert max(problem.residual(row) for row in x.numpy()) < 1e-8


@pytest.mark.parametrize("problem", [flat(), toys.choose(2, 5), PathProblem(3, 4)], ids=["flat", "choose", "path"])
def test_no_point_nearby_is_better(problem):
    estimator, c = LogBarrier(problem, 0.2), normal(3, problem.n, seed=1)
    x, (slack,) = estimator.forward(None, c, step=0)
    value = (c * x).sum(1) - 0.2 * slack.log().sum(1)
    inside = estimator.inside
    for move in 0.01 * normal(20, inside.directions.shape[1], seed=2):
        other = slack + inside.slopes @ move
        assert (other > 0).all()
        near = (c * (x + (inside.directions @ move)[: problem.n])).sum(1) - 0.2 * other.log().sum(1)
        assert (near > value).all()


@pytest.mark.parametrize(
    ("problem", "mu"),
    [(simplex(4), 0.05), (toys.choose(2, 5), 0.3), (flat(), 0.1), (PathProblem(3, 4), 0.2)],
    ids=["simplex", "choose", "flat", "path"],
)
def test_gradient_is_the_central_difference(problem, mu):
    step, module = 1e-5, layer(problem, mu)
    for c, d in normal(3, 2, problem.n):
        t = c[None].clone().requires_grad_()
        (g,) = torch.autograd.grad((module(t) * d).sum(), t)
        moves = step * torch.eye(problem.n, dtype=torch.float64)
        difference = (module(c + moves) - module(c - moves)) @ d / (2 * step)
        assert torch.allclose(g[0], difference, atol=1e-7 * max(1.0, float(difference.abs().max())))
        assert difference.abs().max() > 1e-3


def test_on_the_simplex_torch_differentiates_the_optimum_alike():
    problem, c, d = simplex(4), normal(6, 4), normal(6, 4, seed=1)
    t = c.clone().requires_grad_()
    x = layer(problem, 0.2)(t)
    (g,) = torch.autograd.grad((x * d).sum(), t)
    # dx_i = -x_i^2 / mu (dc_i - sum_j x_j^2 dc_j / sum_j x_j^2)
    weight = x.detach().square() / 0.2
    mean = (weight * d).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
    assert torch.allclose(g, -weight * (d - mean), rtol=1e-7, atol=1e-10)


def test_with_little_weight_it_is_a_corner_of_the_relaxation_without_gradient():
    for problem in (toys.choose(2, 5), PathProblem(3, 3)):
        c = normal(4, problem.n).abs() + 0.1
        t = c.clone().requires_grad_()
        x = layer(problem, 1e-6)(t)
        engine = Engine(problem.milp(), relaxed=True)
        corners = np.array([engine.solve(row, time_limit_s=5.0).y[: problem.n] for row in c.numpy()])
        assert np.abs(x.detach().numpy() - corners).max() < 1e-4
        d = normal(*x.shape, seed=1)
        (g,) = torch.autograd.grad((x * d).sum(), t)
        (more,) = torch.autograd.grad((layer(problem, 0.1)(t) * d).sum(), t)
        assert g.abs().max() < 0.05 * more.abs().max()


def test_with_much_weight_it_is_the_analytic_centre():
    x = layer(toys.choose(2, 5), 1e6)(normal(3, 5))
    assert torch.allclose(x, torch.full_like(x, 0.4), atol=1e-5)


def test_a_batch_is_its_rows_and_may_be_solved_in_parts(monkeypatch):
    problem, c, d = toys.choose(2, 6), normal(9, 6), normal(9, 6, seed=1)
    whole = LogBarrier(problem, 0.1)
    x, saved = whole.forward(None, c, step=0)
    grad = whole.backward(None, saved, d)
    monkeypatch.setattr(barrier, "ENTRIES", 2 * whole.inside.slopes.numel())
    assert [len(part) for part in whole.inside.parts(c)] == [2, 2, 2, 2, 1]
    parts, saved = whole.forward(None, c, step=0)
    assert torch.allclose(parts, x, atol=1e-12)
    assert torch.allclose(whole.backward(None, saved, d), grad, rtol=1e-9, atol=1e-12)
    assert whole.forward(None, c[:0], step=0)[0].shape == (0, 6)


def test_a_single_solution_has_no_gradient():
    problem = Milp.of([], n=2, lower=np.ones(2), upper=np.ones(2), integer=np.ones(2, bool))
    t = normal(2, 2).requires_grad_()
    x = layer(problem, 0.1)(t)
    assert torch.equal(x, torch.ones_like(x))
    (g,) = torch.autograd.grad(x.sum(), t)
    assert (g == 0).all()


def test_levels_have_an_inside():
    rules = LevelRules(4, 5)
    x = layer(rules, 1.0)(normal(2, rules.n))
    assert torch.allclose(x.reshape(2, 8, 20).sum(1), torch.ones(2, 20, dtype=torch.float64), atol=1e-7)
    assert (x > -1e-9).all()


def test_a_second_derivative_is_refused():
    t = normal(1, 5).requires_grad_()
    with pytest.raises(InvalidInput, match="no derivative of its own"):
        torch.autograd.grad(layer(toys.choose(2, 5), 0.1)(t).sum(), t, create_graph=True)


def test_a_contradiction_and_an_open_end_are_the_callers_fault(monkeypatch):
    row = Row.of({0: 1.0, 1: 1.0}, lower=3, upper=3)
    problem = Milp.of([row], n=2, lower=np.zeros(2), upper=np.ones(2), integer=np.ones(2, bool))
    with pytest.raises(InvalidInput, match="the relaxation has no optimum: Infeasible"):
        layer(problem, 1.0)(normal(1, 2))
    for lower in (0.0, -np.inf):
        open_end = Milp.of([], n=2, lower=np.array([0, lower]), upper=np.array([1, np.inf]), integer=np.zeros(2, bool))
        with pytest.raises(InvalidInput, match="barrier has no minimum"):
            layer(open_end, 1.0)(torch.tensor([[0.0, -1.0]], dtype=torch.float64))
    monkeypatch.setattr(Engine, "solve", lambda *_a, **_k: Outcome(None, -np.inf, "timeout", "lp"))
    with pytest.raises(RunError, match="no point inside the relaxation was found: timeout"):
        layer(toys.choose(2, 5), 1.0)(normal(1, 5))


def test_it_is_made_from_options_and_wants_a_weight():
    problem = toys.choose(2, 5)
    assert make_estimator(GradOptions(name="log-barrier", mu=0.3), problem=problem) == LogBarrier(problem, 0.3)
    with pytest.raises(InvalidInput, match="mu must be > 0"):
        LogBarrier(problem, 0.0)
    with pytest.raises(InvalidInput, match=r"grad\.mu must be > 0"):
        GradOptions(mu=0.0)
