"""Estimators and losses: signs and values in closed form on the simplex, and the identities they must meet."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tian.errors import InvalidInput
from tian_genco.grad.estimators import IMLE, BlackBox, Identity, Perturbed
from tian_genco.grad.layer import SolverLayer
from tian_genco.grad.losses import FenchelYoung, SPOPlus, min_value
from tian_genco.grad.make import make_estimator, make_layer
from tian_genco.grad.noise import draw, generator, sum_of_gamma
from tian_genco.grad.options import GradOptions
from tian_genco.grad.oracle import Oracle

spec = importlib.util.spec_from_file_location("grad_toys", Path(__file__).with_name("grad_toys.py"))
toys = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toys)

SIMPLEX = toys.choose(1, 3)
EYE = np.eye(3)
C = torch.tensor([[0.3, -0.2, 0.5]], dtype=torch.float64)
D = torch.tensor([[0.7, 1.1, -0.4]], dtype=torch.float64)


def layer(estimator, problem=SIMPLEX, vertices=EYE, **options):
    return SolverLayer(toys.VertexSolver(vertices), problem, estimator, time_limit_s=1.0, **options)


def oracle(problem=SIMPLEX, vertices=EYE):
    return Oracle(toys.VertexSolver(vertices), problem, time_limit_s=1.0)


def gradient(estimator, c=C, d=D, **options):
    c = c.clone().requires_grad_()
    x = layer(estimator, **options)(c)
    (g,) = torch.autograd.grad((x * d).sum(), c)
    return x.detach(), g


def one(i):
    return torch.eye(3, dtype=torch.float64)[i]


# -- closed forms on the simplex ---------------------------------------------------------------------------------------


def test_identity_is_minus_the_gradient_from_above():
    x, g = gradient(Identity())
    assert torch.equal(x[0], one(1))
    assert torch.equal(g, -D)


@pytest.mark.parametrize(("lam", "winner"), [(0.5, 2), (0.1, 1), (50.0, 2)])
def test_black_box_with_a_raw_lambda_by_hand(lam, winner):
    # c + 0.5 d = (0.65, 0.35, 0.3): the third wins; c + 0.1 d = (0.37, -0.09, 0.46): the second still does
    _, g = gradient(BlackBox(lam, unit="raw"))
    assert torch.equal(g[0], (one(winner) - one(1)) / lam)


def test_black_box_moves_the_cost_by_lambda_in_units_of_rms():
    rms = float(D.square().mean().sqrt())
    _, g = gradient(BlackBox(0.5))
    _, raw = gradient(BlackBox(0.5 / rms, unit="raw"))
    assert torch.allclose(g, raw, rtol=1e-14)
    assert g.abs().sum() > 0


@pytest.mark.parametrize("estimator", [BlackBox(0.5), IMLE(0.3, 0.5, 3), IMLE(0.3, 0.5, 3, two_sided=True)])
@pytest.mark.parametrize("factor", [1e-300, 1e-8, 1e8])
def test_in_units_of_rms_the_gradient_is_homogeneous_in_what_comes_from_above(estimator, factor):
    _, g = gradient(estimator)
    _, scaled = gradient(estimator, d=D * factor)
    assert g.abs().sum() > 0
    assert torch.allclose(scaled / factor, g, rtol=1e-12)


@pytest.mark.parametrize("estimator", [Identity(), BlackBox(2.0), Perturbed(1.0, 2000), IMLE(1.0, 2.0, 500, k=1)])
def test_every_sign_is_right_a_step_against_the_gradient_lowers_the_loss(estimator):
    # loss d.x, from a cost that picks the worst entry: after the step another must be picked
    c = torch.tensor([[0.1, -0.1, 0.1]], dtype=torch.float64)
    _, g = gradient(estimator, c=c)
    after = layer(Identity())(c - 10 * g / g.norm())
    assert (after * D).sum() < D[0, 1]


def test_perturbed_with_gumbel_noise_is_softmax_with_its_jacobian():
    samples, groups = 200_000, 100
    p = torch.softmax(-C[0], 0)
    jacobian = p.outer(p) - p.diag()
    many = C.repeat(groups, 1)  # independent groups give the standard error
    x, g = gradient(Perturbed(1.0, samples // groups, seed=7, noise="gumbel"), c=many, d=D.repeat(groups, 1))
    for values, exact in ((x, p), (g, D[0] @ jacobian)):
        error = values.std(0) / groups**0.5
        assert ((values.mean(0) - exact).abs() <= 3 * error).all()
        assert error.max() < 0.01 * exact.abs().max() * 3  # sharp enough to see a wrong sign or factor


def test_perturbed_with_normal_noise_has_the_derivative_of_its_own_mean():
    # two items: P(first) = Phi((c2 - c1) / (sigma sqrt 2)), sigma = 0.5
    vertices, problem = np.eye(2), toys.choose(1, 2)
    c, sigma, groups = torch.tensor([[0.1, 0.3]], dtype=torch.float64), 0.5, 100
    width = sigma * 2**0.5
    z = torch.tensor(0.2 / width, dtype=torch.float64)
    mean, slope = torch.special.ndtr(z), torch.exp(-z * z / 2) / (2 * torch.pi) ** 0.5 / width
    d = torch.tensor([[1.0, 0.0]], dtype=torch.float64).repeat(groups, 1)
    x, g = gradient(Perturbed(sigma, 2000, seed=3), c=c.repeat(groups, 1), d=d, problem=problem, vertices=vertices)
    assert (x[:, 0].mean() - mean).abs() <= 3 * x[:, 0].std() / groups**0.5
    for entry, exact in ((0, -slope), (1, slope)):
        assert (g[:, entry].mean() - exact).abs() <= 3 * g[:, entry].std() / groups**0.5


def test_perturbed_by_hand_for_two_samples():
    estimator = Perturbed(0.8, 2, seed=5)
    z = draw("normal", (1, 2, 3), generator(5, 0))[0]
    x0, x1 = (torch.eye(3, dtype=torch.float64)[(C[0] + 0.8 * z[m]).argmin()] for m in (0, 1))
    # unbiased with the other sample as baseline: mean_m z_m (x_m - x_other).d / sigma
    by_hand = (z[0] * ((x0 - x1) @ D[0]) + z[1] * ((x1 - x0) @ D[0])) / 2 / 0.8
    x, g = gradient(estimator)
    assert torch.equal(x[0], (x0 + x1) / 2)
    assert torch.allclose(g[0], by_hand, atol=1e-15)


@pytest.mark.parametrize("two_sided", [False, True])
def test_imle_by_hand(two_sided):
    estimator = IMLE(0.4, 0.6, 3, two_sided=two_sided, k=1, seed=2)
    noise = sum_of_gamma((1, 3, 3), generator(2, 0), k=1)[0]
    move = 0.6 * D[0] / D.square().mean().sqrt()
    best = lambda cost: torch.eye(3, dtype=torch.float64)[cost.argmin()]  # noqa: E731
    size = D.square().mean().sqrt() / 0.6
    steps = []
    for g in noise:
        c = C[0] - 0.4 * g
        steps.append((best(c + move) - best(c - move)) / 2 if two_sided else best(c + move) - best(c))
    x, found = gradient(estimator)
    assert torch.allclose(x[0], torch.stack([best(C[0] - 0.4 * g) for g in noise]).mean(0))
    assert torch.allclose(found[0], size * torch.stack(steps).mean(0), atol=1e-14)


@pytest.mark.parametrize("k", [1, 5])
def test_sum_of_gamma_noise_sums_to_gumbel(k):
    total = sum_of_gamma((40_000, k), generator(0, 0), k=k, terms=50).sum(1)
    # mean Euler's constant (less 1 / 2s for s terms), variance pi^2 / 6 (less 1 / s)
    assert abs(float(total.mean()) - 0.5772) < 0.01 + 3 * 1.283 / 200
    assert abs(float(total.var()) - torch.pi**2 / 6) < 0.06


# -- black box: the exact slope of an interpolation ---------------------------------------------------------------------


def test_black_box_is_the_finite_difference_of_the_interpolated_loss():
    problem = toys.choose(2, 5)
    vertices = torch.from_numpy(toys.vertices_of(problem))
    best = lambda c: vertices[(vertices @ c).argmin()]  # noqa: E731
    lam, step, checked = 0.7, 1e-6, 0

    def interpolated(c, d):
        # f = d.x_l - (c.x(c) - c.x_l) / l, x_l = x(c + l d)
        x, moved = best(c), best(c + lam * d)
        return d @ moved - (c @ x - c @ moved) / lam

    source = torch.Generator().manual_seed(0)
    for _ in range(100):
        c, d = (torch.randn(5, generator=source, dtype=torch.float64) for _ in range(2))
        _, g = gradient(BlackBox(lam, unit="raw"), c=c[None], d=d[None], problem=problem, vertices=vertices.numpy())
        differences = torch.stack(
            [
                (interpolated(c + step * e, d) - interpolated(c - step * e, d)) / (2 * step)
                for e in torch.eye(5).double()
            ]
        )
        assert torch.allclose(g[0], differences, atol=1e-6)
        if torch.equal(best(c), best(c + lam * d)):
            assert torch.isclose(interpolated(c, d), d @ best(c))
        else:
            checked += 1
    assert checked > 20  # points where the gradient is not zero


# -- losses ------------------------------------------------------------------------------------------------------------


def test_the_minimum_has_gradient_x():
    problem = toys.choose(2, 5)
    c = torch.randn(20, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(4), requires_grad=True)
    which = oracle(problem, toys.vertices_of(problem))
    assert torch.autograd.gradcheck(lambda t: min_value(which, t), (c,), eps=1e-6, atol=1e-6)
    (g,) = torch.autograd.grad(min_value(which, c).sum(), c)
    assert torch.equal(g, which(c))


def test_fenchel_young_gradient_is_target_minus_mean():
    y = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    loss = FenchelYoung(oracle(), sigma=0.5, samples=50, seed=9)
    z = draw("normal", (1, 50, 3), generator(9, 0))
    x = torch.eye(3, dtype=torch.float64)[(C + 0.5 * z[0]).argmin(1)]
    c = C.clone().requires_grad_()
    value = loss(c, y)
    (g,) = torch.autograd.grad(value.sum(), c)
    assert torch.allclose(g[0], y[0] - x.mean(0), atol=1e-15)
    assert torch.allclose(value[0], C[0] @ y[0] - (C[0] + 0.5 * z[0]).min(1).values.mean(), atol=1e-15)
    assert 0 < x.mean(0).max() < 1


def test_fenchel_young_descends_to_the_target():
    y = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    loss, c = FenchelYoung(oracle(), sigma=0.3, samples=20), C.clone().requires_grad_()
    for _ in range(50):
        (g,) = torch.autograd.grad(loss(c, y).sum(), c)
        c = (c - 0.1 * g).detach().requires_grad_()
    assert torch.equal(layer(Identity())(c.detach()), y)


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000))
def test_spo_plus_bounds_the_regret_and_has_the_stated_subgradient(seed):
    problem = toys.choose(2, 5)
    loss = SPOPlus(oracle(problem, toys.vertices_of(problem)))
    which = loss.oracle
    p, q, c = torch.randn(3, 8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    p.requires_grad_()
    value = loss(p, c)
    (g,) = torch.autograd.grad(value.sum(), p)
    assert torch.equal(g, 2 * (which(c) - which(2 * p - c)))
    regret = (c * (which(p) - which(c))).sum(1)
    assert (value >= regret - 1e-12).all()
    assert (regret >= 0).all()
    assert (loss(q, c) >= value + (g * (q - p)).sum(1) - 1e-12).all()
    assert torch.allclose(loss(c, c), torch.zeros(8, dtype=torch.float64), atol=1e-12)


def test_losses_refuse_rows_that_do_not_pair():
    with pytest.raises(InvalidInput, match="1 predictions meet 2"):
        SPOPlus(oracle())(C, C.repeat(2, 1))


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["spo-plus", "fenchel-young"])
def test_a_loss_cannot_be_an_estimator_and_the_message_says_why(name):
    with pytest.raises(InvalidInput, match="a gradient from above brings none"):
        make_estimator(GradOptions(name=name), problem=SIMPLEX)


def test_options_reach_the_estimator():
    options = GradOptions(name="imle", lam=0.2, sigma=0.3, samples=5, two_sided=True, k=3)
    expected = IMLE(sigma=0.3, lam=0.2, samples=5, two_sided=True, k=3, seed=4)
    assert make_estimator(options, problem=SIMPLEX, seed=4) == expected
    assert make_estimator(GradOptions(name="identity"), problem=SIMPLEX) == Identity()
    assert make_estimator(GradOptions(name="perturbed"), problem=SIMPLEX) == Perturbed(samples=4)
    assert make_estimator(GradOptions(lam=0.3), problem=SIMPLEX) == BlackBox(0.3)
    made = make_layer(GradOptions(), toys.VertexSolver(EYE), SIMPLEX, time_limit_s=2.0)
    assert made.normaliser is not None
    assert np.abs(made.oracle.ties).max() > 0
    plain = make_layer(GradOptions(normalise=False, tie_seed=None), toys.VertexSolver(EYE), SIMPLEX, time_limit_s=2.0)
    assert plain.normaliser is None
    assert (plain.oracle.ties == 0).all()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: GradOptions(lam=0.0), "grad.lam must be > 0, got 0.0"),
        (lambda: GradOptions(samples=0), "grad.samples must be >= 1"),
        (lambda: GradOptions(name="perturbed", samples=1), "other's baseline"),
        (lambda: BlackBox(-1.0), "lam must be > 0, got -1.0"),
        (lambda: Perturbed(samples=1), "samples must be >= 2"),
        (lambda: IMLE(sigma=0.0), "sigma must be > 0"),
        (lambda: FenchelYoung(oracle(), sigma=0.0), "sigma > 0"),
    ],
)
def test_a_value_out_of_range_is_named(make, said):
    with pytest.raises(InvalidInput, match=said):
        make()
