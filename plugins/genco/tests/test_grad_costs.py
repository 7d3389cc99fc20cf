"""Normalised costs: the quotient by what the optimum does not see."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tian.errors import InvalidInput
from tian_genco.grad.costs import Normaliser, ties
from tian_genco.problem import Milp, Row

spec = importlib.util.spec_from_file_location("grad_toys", Path(__file__).with_name("grad_toys.py"))
toys = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toys)
choose, vertices_of = toys.choose, toys.vertices_of


def with_redundant_rows() -> Milp:
    """Seven columns, the last fixed at 1; two exactly-one groups, and rows that depend on them."""
    rows = [
        Row.of({0: 1.0, 1: 1.0, 2: 1.0}, lower=1, upper=1),
        Row.of({3: 1.0, 4: 1.0, 5: 1.0}, lower=1, upper=1),
        Row.of(dict.fromkeys(range(6), 2.0), lower=4, upper=4),  # twice the sum of both
        Row.of({0: 1.0, 1: 1.0, 2: 1.0, 6: -1.0}, lower=0, upper=0),  # the first, less the fixed column
        Row.of({0: 1.0, 3: 1.0}, upper=1),
    ]
    lower = np.array([0.0] * 6 + [1.0])
    return Milp.of(rows, n=7, lower=lower, upper=np.ones(7), integer=np.ones(7, bool))


def dense_projection(problem: Milp) -> torch.Tensor:
    e = problem.equalities()
    return torch.from_numpy(np.eye(problem.n) - np.linalg.pinv(e) @ e)


@pytest.mark.parametrize("problem", [choose(2, 5), with_redundant_rows()], ids=["choose", "redundant"])
def test_projects_like_the_pseudo_inverse_and_has_unit_rms_over_free_columns(problem):
    c = torch.randn(4, problem.n, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    normaliser = Normaliser(problem)
    projected = c @ dense_projection(problem)
    assert torch.allclose(normaliser.project(c), projected, atol=1e-14)
    u = normaliser(c)
    free = torch.from_numpy(problem.col_lower != problem.col_upper)
    assert torch.allclose(u[:, free].square().mean(1), torch.ones(4, dtype=torch.float64), atol=1e-14)
    assert (u[:, ~free] == 0).all()
    assert torch.allclose(u / u.norm(dim=1, keepdim=True), projected / projected.norm(dim=1, keepdim=True), atol=1e-14)


@given(seed=st.integers(0, 999), scale=st.floats(1e-200, 1e200), size=st.floats(0, 100))
def test_sees_neither_scale_nor_multiples_of_equalities(seed, scale, size):
    problem = with_redundant_rows()
    rng = np.random.default_rng(seed)
    c = rng.normal(size=problem.n)
    normaliser = Normaliser(problem)
    moved = c + size * rng.normal(size=len(problem.equalities())) @ problem.equalities()
    plain = normaliser(torch.from_numpy(c))
    assert torch.allclose(normaliser(torch.from_numpy(moved)), plain, atol=1e-10)
    assert torch.allclose(normaliser(torch.from_numpy(c * scale)), plain, atol=1e-12)


def test_keeps_the_optimum():
    problem = with_redundant_rows()
    vertices = vertices_of(problem)
    c = np.random.default_rng(0).normal(size=(200, problem.n))
    u = Normaliser(problem)(torch.from_numpy(c)).numpy()
    assert ((c @ vertices.T).argmin(1) == (u @ vertices.T).argmin(1)).all()


def test_gradient_is_that_of_the_formula_and_of_finite_differences():
    problem = with_redundant_rows()
    normaliser = Normaliser(problem)
    c = torch.randn(3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    assert torch.autograd.gradcheck(normaliser, (c,), atol=1e-8)
    g = torch.randn(3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    u = normaliser(c)
    (found,) = torch.autograd.grad(u, c, g)
    p = dense_projection(problem)
    with torch.no_grad():
        s = ((c @ p).square().sum(1, keepdim=True) / 6).sqrt()
        expected = (g - u * (u * g).sum(1, keepdim=True) / 6) @ p / s
    assert torch.allclose(found, expected, atol=1e-13)
    assert ((found * c).sum(1).abs() < 1e-13).all()  # nothing along the cost
    assert ((found @ torch.from_numpy(problem.equalities()).T).abs() < 1e-13).all()  # nor along an equality


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_is_that_of_the_chain_of_its_parts(dtype):
    problem = with_redundant_rows()
    c = torch.randn(5, 7, generator=torch.Generator().manual_seed(4)).to(dtype).requires_grad_()
    g = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    inside = c.double() @ dense_projection(problem)
    u = inside / (inside.square().sum(1, keepdim=True) / 6).sqrt()
    (expected,) = torch.autograd.grad(u, c, g)
    (found,) = torch.autograd.grad(Normaliser(problem)(c), c, g)
    assert found.dtype == dtype
    assert torch.allclose(found, expected, rtol=1e-6 if dtype == torch.float32 else 1e-12, atol=1e-12)


def test_a_second_derivative_is_refused():
    c = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(6), requires_grad=True)
    (g,) = torch.autograd.grad(Normaliser(choose(2, 5))(c).pow(3).sum(), c, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        g.sum().backward()


def test_a_cost_that_says_nothing_is_zero_with_zero_gradient():
    problem = choose(2, 5)
    c = torch.stack([torch.full((5,), 0.3), torch.zeros(5), torch.arange(5.0)]).requires_grad_()
    u = Normaliser(problem)(c)
    assert (u[:2] == 0).all()
    assert (u[2] != 0).any()
    u.square().sum().backward()
    assert torch.isfinite(c.grad).all()
    (u := Normaliser(problem)(c)).sum().backward()
    assert (c.grad[:2] == 0).all()


def test_single_precision_comes_out_double_and_the_gradient_single():
    c = torch.randn(2, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    u = Normaliser(choose(2, 5))(c)
    assert u.dtype == torch.float64
    u.square().sum().backward()
    assert c.grad.dtype == torch.float32


def test_a_problem_without_equalities_is_only_scaled():
    problem = Milp.of([], n=3, lower=np.zeros(3), upper=np.ones(3), integer=np.ones(3, bool))
    c = torch.tensor([[3.0, 0.0, -3.0]], dtype=torch.float64)
    assert torch.allclose(Normaliser(problem)(c), c / 6**0.5, atol=1e-15)


def test_what_cannot_be_normalised_is_refused():
    fixed = Milp.of([], n=2, lower=np.ones(2), upper=np.ones(2), integer=np.ones(2, bool))
    with pytest.raises(InvalidInput, match="every column is fixed"):
        Normaliser(fixed)
    with pytest.raises(InvalidInput, match="4 entries, the problem has 5"):
        Normaliser(choose(2, 5))(torch.zeros(1, 4))


def test_ties_depend_on_the_seed_only():
    assert (ties(50, 3) == ties(50, 3)).all()
    assert (ties(50, 3) != ties(50, 4)).any()
    assert np.abs(ties(50, 3)).max() <= 1e-6
    assert len(set(ties(50, 3))) == 50
