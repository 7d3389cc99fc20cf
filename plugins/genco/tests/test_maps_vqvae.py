"""The VQ-VAE of images, its codebook, and the prior over codes with its steering."""

import itertools

import pytest
import torch

from tian_genco.grad.oracle import Oracle
from tian_genco.maps.objective import Objective
from tian_genco.maps.prior import CodePrior, PriorLoss, mean_costs
from tian_genco.maps.vqvae import EMPTY, VQVAE, Codebook, CostHead, pass_through
from tian_genco.paths.grid import GridPathSolver
from tian_genco.paths.options import PathOptions
from tian_genco.paths.problem import PathProblem


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def small(seed=0):
    torch.manual_seed(seed)
    return VQVAE(codes=6, dims=4, channels=4, decay=0.9, commitment=0.25)


def prior(codes=3, height=2, width=2, seed=0):
    torch.manual_seed(seed)
    return CodePrior(codes=codes, height=height, width=width, state=8)


def every_grid(codes, height, width):
    return torch.tensor(list(itertools.product(range(codes), repeat=height * width))).view(-1, height, width)


def test_nearest_code_is_the_one_at_the_least_distance():
    book = Codebook(codes=7, dims=3, decay=0.9)
    book.vectors.copy_(torch.randn(7, 3, generator=rng()))
    z = torch.randn(2, 3, 4, 5, generator=rng(1))
    index = book.nearest(z)
    far = (z.permute(0, 2, 3, 1)[..., None, :] - book.vectors).square().sum(-1)
    assert torch.equal(index, far.argmin(-1))
    assert torch.equal(book.lookup(index)[1, :, 2, 3], book.vectors[index[1, 2, 3]])


def test_straight_through_has_the_value_of_the_codes_and_the_gradient_of_the_encodings():
    z, q = torch.randn(2, 3, generator=rng(), requires_grad=True), torch.randn(2, 3, generator=rng(1))
    out = pass_through(z, q)
    assert torch.allclose(out, q)
    d = torch.randn(2, 3, generator=rng(2))
    out.backward(d)
    assert torch.equal(z.grad, d)


def test_moving_averages_are_those_of_the_formula():
    book = Codebook(codes=2, dims=1, decay=0.75)
    book.uses.copy_(torch.tensor([2.0, 4.0]))
    book.sums.copy_(torch.tensor([[2.0], [40.0]]))
    z = torch.tensor([1.0, 3.0, 11.0, 5.0]).view(1, 1, 2, 2)
    book.update(z, torch.tensor([0, 0, 1, 0]).view(1, 2, 2), torch.zeros(2))
    assert torch.allclose(book.uses, torch.tensor([0.75 * 2 + 0.25 * 3, 0.75 * 4 + 0.25 * 1]))
    assert torch.allclose(book.sums[:, 0], torch.tensor([0.75 * 2 + 0.25 * 9, 0.75 * 40 + 0.25 * 11]))
    assert torch.allclose(book.vectors[:, 0], book.sums[:, 0] / (book.uses + EMPTY))


def test_codes_go_to_the_mean_of_their_encodings():
    book = Codebook(codes=2, dims=1, decay=0.5)
    z = torch.tensor([0.0, 1.0, 10.0, 12.0]).view(1, 1, 2, 2)
    book.update(z, book.nearest(z), torch.tensor([0.0, 0.99]))  # all went to code 0; code 1 moves to the encoding 12
    assert torch.allclose(book.vectors[:, 0], torch.tensor([23 / 4, 12.0]), atol=1e-3)
    for _ in range(40):
        book.update(z, book.nearest(z), torch.zeros(2))
    assert torch.allclose(book.vectors[:, 0], torch.tensor([0.5, 11.0]), atol=1e-3)


def test_codes_that_are_not_used_move_to_an_encoding():
    book = Codebook(codes=3, dims=1, decay=0.9)
    z = torch.tensor([1.0, 2.0]).view(1, 1, 1, 2)
    book.uses.copy_(torch.tensor([1.0, 1.0, 0.0]))
    book.sums.copy_(torch.tensor([[1.0], [2.0], [500.0]]))
    book.update(z, torch.tensor([0, 1]).view(1, 1, 2), torch.tensor([0.0, 0.0, 0.6]))
    assert float(book.vectors[2, 0]) == pytest.approx(2.0, abs=1e-3)


def test_codes_move_in_training_only_and_get_no_gradient():
    model, pixels, pick = small(), torch.randn(2, 3, 16, 24, generator=rng()), torch.rand(6, generator=rng(1))
    model(pixels, pick)
    model.eval()
    before = model.codebook.vectors.clone()
    found = model(pixels, pick)
    assert torch.equal(before, model.codebook.vectors)
    assert torch.allclose(found["loss"], found["reconstruction"] + 0.25 * found["commitment"])
    found["loss"].backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())
    assert model.codebook.vectors.grad is None
    assert model.codes_of(pixels).shape == (2, 2, 3)


def test_the_reconstruction_alone_reaches_the_encoder_as_if_codes_were_encodings():
    model, pixels = small(), torch.randn(1, 3, 16, 16, generator=rng())
    model(pixels, torch.rand(6, generator=rng(1)))
    model.eval()
    z = model.down(pixels)
    q = model.codebook.lookup(model.codebook.nearest(z)).requires_grad_()
    (due,) = torch.autograd.grad((model.decode(q) - pixels).square().mean(), q)
    z.retain_grad()
    (model.decode(pass_through(z, q)) - pixels).square().mean().backward()
    assert torch.allclose(z.grad, due)


@pytest.mark.parametrize(("height", "width"), [(2, 2), (1, 3), (3, 1)])
def test_probabilities_of_all_grids_add_up_to_one(height, width):
    p = prior(height=height, width=width).double()
    nats = p.nats(every_grid(3, height, width))
    assert float((-nats.detach()).exp().sum()) == pytest.approx(1.0, abs=1e-12)


def test_logits_depend_on_earlier_codes_only():
    p, codes = prior(codes=4, height=3, width=3), torch.randint(4, (1, 3, 3), generator=rng())
    before = p.logits(codes)
    for t in range(9):
        other = codes.clone().flatten(1)
        other[0, t] = (other[0, t] + 1) % 4
        after = p.logits(other.view(1, 3, 3))
        assert torch.equal(after[0, : t + 1], before[0, : t + 1])
        assert t == 8 or not torch.equal(after[0, t + 1 :], before[0, t + 1 :])


def test_samples_are_distributed_as_the_prior_says():
    p, n = prior(), 20_000
    with torch.no_grad():
        p.head.weight.mul_(6)  # far from uniform
        grids = every_grid(3, 2, 2)
        due = (-p.nats(grids)).exp()
        drawn = p.sample(torch.rand(n, 4, generator=rng()))
    number = (drawn.flatten(1) * torch.tensor([27, 9, 3, 1])).sum(1)
    seen = torch.bincount(number, minlength=81) / n
    assert float(due.max()) > 0.04
    assert torch.all((seen - due).abs() <= 4.5 * (due * (1 - due) / n).sqrt() + 1e-4)


def test_sampling_inverts_the_conditional_distribution_of_the_trained_direction():
    p = prior(codes=5, height=3, width=4)
    uniform = torch.rand(6, 12, generator=rng())
    codes = p.sample(uniform)
    with torch.no_grad():
        below = p.logits(codes).softmax(dim=2).cumsum(dim=2)
    code = codes.flatten(1)[..., None]
    high = below.gather(2, code)[..., 0]
    low = torch.where(code[..., 0] > 0, below.gather(2, (code - 1).clamp_min(0))[..., 0], 0.0)
    assert torch.all((uniform < high + 1e-5) & (uniform >= low - 1e-5))


TABLE = torch.tensor([0.5, 1.0, 2.0, 4.0, 8.0, 9.0])


def steering(kind="path", weight=0.1):
    oracle = Oracle(GridPathSolver(PathOptions("torch")), PathProblem(3, 3), time_limit_s=5.0, least=0.0)
    return PriorLoss(prior(codes=6, height=3, width=3), TABLE, objective=Objective(kind, weight, oracle, 3.0))


def test_codes_cost_what_their_cells_do_on_average():
    codes, costs = torch.tensor([[[0, 2], [2, 0]]]), torch.tensor([[[1.0, 5.0], [7.0, 2.0]]])
    assert mean_costs(codes, costs, 4).tolist() == [1.5, 3.75, 6.0, 3.75]


def test_drawn_maps_cost_what_their_codes_do():
    loss, uniform = steering(), torch.rand(5, 9, generator=rng())
    assert torch.allclose(loss.costs(uniform), TABLE[loss.prior.sample(uniform)])


def test_steering_lowers_the_cost_of_samples():
    loss = steering(weight=3.0)
    codes, uniform = torch.randint(6, (8, 3, 3), generator=rng()), torch.rand(64, 9, generator=rng(1))
    found = loss(codes, uniform)
    assert torch.allclose(found["loss"], found["nats"] + 3.0 * found["objective"])
    start = float(found["objective"].detach())
    for step in range(30):
        gradients = torch.autograd.grad(
            loss.objective(loss.costs(torch.rand(16, 9, generator=rng(step)))), list(loss.prior.parameters())
        )
        with torch.no_grad():
            for parameter, gradient in zip(loss.prior.parameters(), gradients, strict=True):
                parameter.sub_(0.2 * gradient)
    with torch.no_grad():
        assert float(loss.objective(loss.costs(uniform))) < 0.5 * start


def test_head_learns_to_read_classes_off_images():
    torch.manual_seed(0)
    head, colours = CostHead(classes=3, channels=8), torch.tensor([[2.0, 0, 0], [0, 2.0, 0], [0, 0, 2.0]])
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    for step in range(60):
        classes = torch.randint(3, (16, 4, 4), generator=rng(step))
        pixels = colours[classes].permute(0, 3, 1, 2).repeat_interleave(8, 2).repeat_interleave(8, 3)
        found = head(pixels, classes)
        optimizer.zero_grad()
        found["loss"].backward()
        optimizer.step()
    assert float(found["accuracy"]) > 0.98
