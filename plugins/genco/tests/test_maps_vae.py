"""The VAE of maps: closed forms, the objective's gradient, and what the losses are made of."""

import numpy as np
import pytest
import torch

from tian.errors import InvalidInput
from tian_genco.grad.oracle import Oracle
from tian_genco.maps.objective import Objective
from tian_genco.maps.vae import MapVAE, VaeLoss, divergence, expected_costs
from tian_genco.paths.grid import GridPathSolver
from tian_genco.paths.options import PathOptions
from tian_genco.paths.problem import PathProblem

LEVELS = torch.tensor([0.8, 1.2, 5.3, 7.7, 9.2], dtype=torch.float64)


def objective(kind="path", *, height=6, width=6, weight=0.1, cells=7.0):
    solver = GridPathSolver(PathOptions("torch"))
    return Objective(kind, weight, Oracle(solver, PathProblem(height, width), time_limit_s=5.0, least=0.0), cells)


def vae(height=8, width=8):
    torch.manual_seed(0)
    return MapVAE(classes=5, height=height, width=width, latent=3, channels=4)


def logits(n=3, size=6, seed=0):
    return torch.randn(n, 5, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_gradient_of_the_path_objective_is_the_path_as_finite_differences_say():
    costs = 1 + 9 * torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    costs.requires_grad_()
    target = objective()
    target(costs).backward()
    step = 1e-6
    for at in [(0, 0, 0), (0, 2, 3), (1, 1, 1), (1, 5, 5), (2, 3, 2), (2, 0, 5)]:
        values = []
        for sign in (1, -1):
            moved = costs.detach().clone()
            moved[at] += sign * step
            values.append(float(target(moved)))
        assert float(costs.grad[at]) == pytest.approx((values[0] - values[1]) / (2 * step), abs=1e-6)
    assert all(PathProblem(6, 6).broken(g.flatten().numpy() * 3) == "" for g in costs.grad)  # a third of each path


def test_gradient_reaches_the_logits_through_expected_costs():
    raw = logits().requires_grad_()
    target = objective()
    target(expected_costs(raw, LEVELS)).backward()
    step, at = 1e-6, (1, 2, 0, 0)  # the start is on every path
    values = []
    for sign in (1, -1):
        moved = raw.detach().clone()
        moved[at] += sign * step
        values.append(float(target(expected_costs(moved, LEVELS))))
    assert float(raw.grad[at]) == pytest.approx((values[0] - values[1]) / (2 * step), abs=1e-6)
    assert float(raw.grad[at]) != 0


def test_tile_mean_is_that_of_a_path_of_so_many_average_cells_and_no_solver_is_asked():
    costs = torch.full((2, 6, 6), 2.5)
    target = objective("tile-mean")
    assert float(target(costs)) == pytest.approx(7 * 2.5)
    assert target.oracle.counts()["solves"] == 0


def test_expected_costs_of_certain_classes_are_their_costs():
    classes = torch.arange(5).repeat(5, 1)[None]
    sure = 1e4 * torch.nn.functional.one_hot(classes, 5).permute(0, 3, 1, 2).double()
    assert torch.allclose(expected_costs(sure, LEVELS), LEVELS[classes])
    even = expected_costs(torch.zeros(1, 5, 2, 2, dtype=torch.float64), LEVELS)
    assert torch.allclose(even, LEVELS.mean())


@pytest.mark.parametrize("bad", [torch.ones(2, 36), torch.full((1, 6, 6), float("nan"))])
def test_costs_that_are_no_maps_are_refused(bad):
    with pytest.raises(InvalidInput):
        objective()(bad)


def test_divergence_is_the_closed_form_and_what_sampling_says():
    assert torch.equal(divergence(torch.zeros(2, 3), torch.zeros(2, 3)), torch.zeros(2))
    mean, log_variance = torch.tensor([[0.7, -1.2]]), torch.tensor([[0.5, -0.8]])
    z = mean + (log_variance / 2).exp() * torch.randn(400_000, 2, generator=torch.Generator().manual_seed(0))
    q = torch.distributions.Normal(mean, (log_variance / 2).exp())
    ratio = (q.log_prob(z) - torch.distributions.Normal(0.0, 1.0).log_prob(z)).sum(dim=1)
    error = float(ratio.std()) / len(z) ** 0.5
    assert float(divergence(mean, log_variance)) == pytest.approx(float(ratio.mean()), abs=4 * error)


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (12, 12), (5, 4)])
def test_any_grid_size_comes_back(size):
    model = vae(*size)
    assert model.decode(torch.zeros(2, 3)).shape == (2, 5, *size)
    lost, apart = model.nats(torch.zeros(2, *size, dtype=torch.int64), torch.zeros(2, 3))
    assert lost.shape == apart.shape == (2,)


def test_nats_are_the_log_likelihood_of_the_map():
    model, classes = vae(), torch.from_numpy(np.random.default_rng(0).integers(0, 5, (2, 8, 8)))
    noise = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        lost, _ = model.nats(classes, noise)
        mean, log_variance = model.encode(classes)
        p = model.decode(mean + (log_variance / 2).exp() * noise).softmax(dim=1)
    by_hand = -p.gather(1, classes[:, None]).log().sum(dim=(1, 2, 3))
    assert torch.allclose(lost, by_hand, rtol=1e-5)


def test_loss_is_the_sum_of_its_parts_and_samples_reach_the_decoder_only():
    model = vae()
    batch = {
        "classes": torch.zeros(4, 8, 8, dtype=torch.int64),
        "noise": torch.randn(4, 3, generator=torch.Generator().manual_seed(0)),
        "prior": torch.randn(5, 3, generator=torch.Generator().manual_seed(1)),
    }
    plain = VaeLoss(model, LEVELS.float(), kl=0.5, objective=None)(**batch)
    assert set(plain) == {"loss", "reconstruction", "divergence"}
    assert torch.allclose(plain["loss"], plain["reconstruction"] + 0.5 * plain["divergence"])
    steer = VaeLoss(model, LEVELS.float(), kl=0.5, objective=objective(height=8, width=8))(**batch)
    assert torch.allclose(steer["loss"], plain["loss"] + 0.1 * steer["objective"])
    steer["objective"].backward()
    assert all(p.grad is None for p in model.down.parameters())
    assert all(p.grad.abs().sum() > 0 for p in model.up.parameters())
