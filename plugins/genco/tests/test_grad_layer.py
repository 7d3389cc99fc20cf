"""The layer: invariances, resumed noise, failures, types, and solvers it has never met."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from tian.errors import ContractError, InvalidInput, NanError, RunError
from tian.spec import Instance
from tian.testing.fakes import FakeSolver
from tian_genco.grad.costs import Normaliser
from tian_genco.grad.estimators import IMLE, BlackBox, Identity, Perturbed
from tian_genco.grad.layer import SolverLayer
from tian_genco.grad.losses import FenchelYoung, SPOPlus, min_value

spec = importlib.util.spec_from_file_location("grad_toys", Path(__file__).with_name("grad_toys.py"))
toys = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toys)

PROBLEM = toys.choose(2, 5)
VERTICES = toys.vertices_of(PROBLEM)
EXACT = [Identity(), BlackBox(0.5)]
EVERY = [*EXACT, Perturbed(0.5, 4), IMLE(0.5, 0.5, 3, k=2)]


def layer(estimator, *, solver=None, problem=PROBLEM, **options):
    return SolverLayer(solver or toys.VertexSolver(VERTICES), problem, estimator, time_limit_s=1.0, **options)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def both(module, c, d):
    c = c.clone().requires_grad_()
    x = module(c)
    (g,) = torch.autograd.grad((x * d).sum(), c)
    return x.detach(), g


# -- invariances -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", EVERY, ids=lambda e: type(e).__name__)
def test_scale_and_equalities_change_nothing_in_a_normalised_layer(estimator):
    c, d = normal(8, 5), normal(8, 5, seed=1)
    x, g = both(layer(estimator, normaliser=Normaliser(PROBLEM)), c, d)
    same, other = both(layer(estimator, normaliser=Normaliser(PROBLEM)), 3.0 * c + 7.0, d)
    assert torch.equal(x, same)
    assert torch.allclose(3.0 * other, g, atol=1e-12)
    shifted = both(layer(estimator, normaliser=Normaliser(PROBLEM)), c, d + 5.0)[1]
    assert torch.allclose(shifted, g, atol=1e-12)  # what x ignores in d is ignored too
    assert (g.sum(1).abs() < 1e-12).all()


def test_what_comes_from_above_along_an_equality_needs_no_solve():
    module = layer(BlackBox(0.5), normaliser=Normaliser(PROBLEM))
    _, g = both(module, normal(4, 5), torch.full((4, 5), 0.1))
    assert (g == 0).all()
    assert module.counts()["solves"] == 4


@pytest.mark.parametrize("estimator", EXACT, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("normalised", [False, True])
def test_a_batch_is_its_rows_bit_by_bit_in_any_order(estimator, normalised):
    make = lambda: layer(estimator, normaliser=Normaliser(PROBLEM) if normalised else None, tie_seed=1)  # noqa: E731
    c, d = normal(16, 5), normal(16, 5, seed=1)
    x, g = both(make(), c, d)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(2))
    px, pg = both(make(), c[order], d[order])
    assert torch.equal(px, x[order])
    assert torch.allclose(pg, g[order], atol=0 if not normalised else 1e-15)  # a matrix product may round by shape
    for i in range(16):
        sx, sg = both(make(), c[i : i + 1], d[i : i + 1])
        assert torch.equal(sx[0], x[i])
        assert torch.allclose(sg[0], g[i], atol=0 if not normalised else 1e-15)


def test_equal_rows_are_solved_once_and_rows_without_gradient_not_again():
    c, d = normal(3, 5).repeat(4, 1), normal(12, 5, seed=1)
    d[:10] = 0.0
    module = layer(BlackBox(0.5))
    x, g = both(module, c, d)
    assert module.counts()["solves"] == 3 + 2
    assert module.counts()["reused"] == 9
    assert torch.equal(x[:3], x[9:])
    assert (g[:10] == 0).all()
    assert torch.equal(g[10:], both(layer(BlackBox(0.5)), c[10:], d[10:])[1])


def test_rows_that_differ_in_one_entry_are_solved_apart():
    problem, n = toys.choose(1, 40), 40
    c = normal(1, n, seed=2).repeat(n + 1, 1)
    c[torch.arange(n), torch.arange(n)] -= 9.0
    module = layer(Identity(), solver=toys.VertexSolver(np.eye(n)), problem=problem)
    assert torch.equal(module(c)[:n], torch.eye(n, dtype=torch.float64))
    assert module.counts()["reused"] == 0
    assert torch.equal(module(c[[3, 40, 3, 40]]), module(c)[[3, 40, 3, 40]])
    assert module.counts()["reused"] == 2


def test_ties_are_broken_alike_in_every_sample():
    module = layer(Identity(), tie_seed=3)
    x = module(torch.zeros(6, 5))
    assert (x == x[0]).all()
    assert torch.equal(x[0].double(), torch.from_numpy(VERTICES[(VERTICES @ module.oracle.ties).argmin()]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_types_come_back_as_they_went_in_and_are_solved_in_double(dtype):
    solver = toys.VertexSolver(VERTICES)
    x, g = both(layer(BlackBox(0.5), solver=solver, normaliser=Normaliser(PROBLEM)), normal(4, 5).to(dtype), 1.0)
    assert x.dtype == g.dtype == dtype
    assert all(asked.dtype == np.float64 for asked in solver.asked)


def test_what_differs_only_in_double_precision_is_told_apart():
    c = torch.tensor([[1.0 - 1e-12, 1.0 - 1e-12, 1.0, 2.0, 1.0]], dtype=torch.float64)
    assert layer(Identity())(c)[0].tolist() == [1, 1, 0, 0, 0]  # ties would go to the last


def test_an_empty_batch_is_an_empty_answer():
    x, g = both(layer(BlackBox(0.5)), torch.zeros(0, 5), 1.0)
    assert x.shape == g.shape == (0, 5)


def test_inputs_are_not_modified():
    c, d = normal(4, 5), normal(4, 5, seed=1)
    kept = (c.clone(), d.clone())
    both(layer(IMLE(0.5, 0.5, 3), normaliser=Normaliser(PROBLEM)), c, d)
    assert torch.equal(c, kept[0])
    assert torch.equal(d, kept[1])


def test_costs_below_the_least_are_solved_as_it_and_counted():
    solver = toys.VertexSolver(VERTICES)
    c = torch.tensor([[-1.0, 0.2, 0.5, -0.1, 0.3]], dtype=torch.float64)
    module = layer(BlackBox(0.5), solver=solver, least=0.0)
    x, _ = both(module, c, torch.tensor([[1.0, -9.0, 0.0, 0.0, 0.0]], dtype=torch.float64))
    assert x[0].tolist() == [1, 0, 0, 1, 0]
    assert all(asked.min() == 0 for asked in solver.asked)
    assert module.counts()["raised"] == 2 + 3  # the second solve lowers another
    assert c.min() == -1


# -- noise -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", EVERY[2:], ids=lambda e: type(e).__name__)
def test_a_resumed_layer_draws_the_noise_it_would_have_drawn(estimator):
    c, d = normal(4, 5), normal(4, 5, seed=1)
    whole = layer(estimator)
    first, second, third = (both(whole, c, d) for _ in range(3))
    assert not torch.equal(first[1], second[1])
    resumed = layer(estimator)
    for _ in range(2):
        both(resumed, c, d)
    state = resumed.state_dict()
    fresh = layer(estimator)
    fresh.load_state_dict(state)
    again = both(fresh, c, d)
    assert torch.equal(again[0], third[0])
    assert torch.equal(again[1], third[1])


def test_noise_leaves_global_randomness_alone():
    before = torch.get_rng_state()
    both(layer(IMLE(0.5, 0.5, 3)), normal(4, 5), 1.0)
    FenchelYoung(layer(Identity()).oracle)(normal(4, 5), normal(4, 5))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_resumed_loss_draws_the_noise_it_would_have_drawn():
    p, y = normal(4, 5), torch.from_numpy(VERTICES[:4])
    loss = FenchelYoung(layer(Identity()).oracle)
    first, second = loss(p, y), loss(p, y)
    assert not torch.equal(first, second)
    fresh = FenchelYoung(layer(Identity()).oracle)
    fresh.load_state_dict({"step": torch.tensor(1)})
    assert torch.equal(fresh(p, y), second)


# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", EVERY, ids=lambda e: type(e).__name__)
def test_rows_that_fail_are_zero_with_zero_gradient_and_the_others_untouched(estimator):
    c, d = normal(6, 5), normal(6, 5, seed=1)
    samples = getattr(estimator, "samples", 1)
    late = [2 * samples, 5 * samples]  # a sample of rows 2 and 5 in the first call, the only one of six rows
    solver = toys.VertexSolver(VERTICES, late=late)
    original = solver.solve_costs

    def first_call_only(*args, **kwargs):
        out = original(*args, **kwargs)
        solver.late = ()
        return out

    solver.solve_costs = first_call_only
    module = layer(estimator, solver=solver)
    x, g = both(module, c, d)
    good_x, good_g = both(layer(estimator), c, d)
    rest = [0, 1, 3, 4]
    assert (x[[2, 5]] == 0).all()
    assert (g[[2, 5]] == 0).all()
    assert torch.equal(x[rest], good_x[rest])
    assert torch.equal(g[rest], good_g[rest])
    assert module.counts()["failed"] == module.counts()["status"]["timeout"] == 2


def test_a_row_whose_second_solve_fails_has_zero_gradient_and_keeps_its_x():
    solver = toys.VertexSolver(VERTICES)
    module = layer(BlackBox(0.5), solver=solver)
    c = normal(6, 5).requires_grad_()
    x = module(c)
    solver.late = (1,)
    (x * normal(6, 5, seed=1)).sum().backward()
    assert (x.sum(1) == 2).all()
    assert (c.grad[1] == 0).all()
    assert torch.equal(
        c.grad[[0, 2, 3, 4, 5]], both(layer(BlackBox(0.5)), c.detach(), normal(6, 5, seed=1))[1][[0, 2, 3, 4, 5]]
    )


def test_losses_pass_over_rows_that_fail():
    for late, where in ((1, [1]), (3, [3])):
        solver = toys.VertexSolver(VERTICES, late=(late,))
        oracle = layer(Identity(), solver=solver).oracle
        p, c = normal(4, 5).requires_grad_(), normal(4, 5, seed=1)
        for value in (min_value(oracle, p), SPOPlus(oracle)(p, c), FenchelYoung(oracle, samples=1)(p, c)):
            (g,) = torch.autograd.grad(value.sum(), p)
            assert (value[where] == 0).all()
            assert (g[where] == 0).all()
            assert torch.isfinite(g).all()
            assert g.abs().sum() > 0


def test_too_many_failures_end_the_run_with_status_and_counts():
    solver = toys.VertexSolver(VERTICES, late=(0, 1))
    module = layer(Identity(), solver=solver, max_fail_rate=0.01)
    module(normal(50, 5))
    with pytest.raises(RunError, match=r"4 of 100 solves .* \(optimal 96, timeout 4\)"):
        module(normal(50, 5, seed=1))
    tolerant = layer(Identity(), solver=toys.VertexSolver(VERTICES, late=(0, 1)), max_fail_rate=0.05)
    for seed in range(4):
        tolerant(normal(50, 5, seed=seed))
    assert tolerant.counts()["failed"] == 8


def test_infeasible_and_unbounded_are_the_callers_fault_at_once():
    with pytest.raises(InvalidInput, match="contradict"):
        layer(Identity(), solver=toys.VertexSolver(VERTICES, status="infeasible"))(normal(3, 5))
    with pytest.raises(InvalidInput, match="no minimum"):
        layer(Identity(), solver=toys.VertexSolver(VERTICES, status="unbounded"))(normal(3, 5))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_cost_that_is_not_finite_is_named_before_the_solver_sees_it(value):
    solver = toys.VertexSolver(VERTICES)
    c = normal(3, 5)
    c[2, 4] = value
    with pytest.raises(InvalidInput, match=rf"batch row 2 holds {value} at entry 4"):
        layer(Identity(), solver=solver)(c)
    assert not solver.asked


def test_a_gradient_from_above_that_is_not_finite_is_named():
    c = normal(3, 5).requires_grad_()
    x = layer(BlackBox(0.5))(c)
    with pytest.raises(NanError, match="batch row 1"):
        (x * torch.tensor([[1.0], [np.nan], [1.0]])).sum().backward()


@pytest.mark.parametrize("estimator", EVERY, ids=lambda e: type(e).__name__)
def test_a_second_derivative_is_refused(estimator):
    c = normal(3, 5).requires_grad_()
    x = layer(estimator)(c)
    with pytest.raises(InvalidInput, match="no derivative of its own"):
        torch.autograd.grad(x.square().sum(), c, create_graph=True)


@pytest.mark.parametrize(
    ("costs", "said"),
    [(torch.zeros(5), "must be"), (torch.zeros(2, 4), r"shape \[2, 4\]"), (torch.zeros(2, 5).long(), "floating")],
)
def test_costs_of_another_shape_or_type_are_refused(costs, said):
    with pytest.raises(InvalidInput, match=said):
        layer(Identity())(costs)


def test_limits_out_of_range_are_refused():
    with pytest.raises(InvalidInput, match="time_limit_s must be > 0, got 0"):
        SolverLayer(toys.VertexSolver(VERTICES), PROBLEM, Identity(), time_limit_s=0)
    with pytest.raises(InvalidInput, match="max_fail_rate"):
        layer(Identity(), max_fail_rate=1.5)


def test_a_solver_that_breaks_its_contract_is_named():
    class Short(toys.VertexSolver):
        def solve_costs(self, inst, costs, **options):
            return super().solve_costs(inst, costs[:, :4][:1], **options)

    with pytest.raises(ContractError, match=r"2 costs of 5 entries were answered by x of shape \[1, 4\]"):
        layer(Identity(), solver=Short(VERTICES[:, :4]))(normal(2, 5))


# -- a solver it has never met -----------------------------------------------------------------------------------------


def test_works_with_an_unrelated_solver():
    module = SolverLayer(FakeSolver(), Instance("choose-k", np.zeros(5), 2), BlackBox(0.5), time_limit_s=5.0)
    c, d = normal(6, 5), normal(6, 5, seed=1)
    x, g = both(module, c, d)
    expected = both(layer(BlackBox(0.5)), c, d)
    assert torch.equal(x, expected[0])
    assert torch.equal(g, expected[1])
    counts = module.counts()
    assert counts["route"] == {"": counts["solves"]}
    assert counts["seconds"] > 0


def test_more_than_there_is_cannot_be_chosen():
    module = SolverLayer(FakeSolver(), Instance("choose-k", np.zeros(5), 6), Identity(), time_limit_s=5.0)
    with pytest.raises(InvalidInput, match="contradict"):
        module(normal(2, 5))
