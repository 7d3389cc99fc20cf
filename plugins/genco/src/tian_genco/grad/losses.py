"""Losses on predicted costs that need no gradient of x: the minimum itself, SPO+, and the perturbed Fenchel-Young loss.

Each is a sum of terms c.x with x held fixed, which by Danskin's theorem is its gradient too; torch's own rules do it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tian.errors import InvalidInput
from tian_genco.grad.noise import draw, generator
from tian_genco.grad.oracle import Oracle, check_costs


def min_value(oracle: Oracle, costs: Tensor) -> Tensor:
    """Value min c.x `[B]` of `costs [B, n]`, with gradient x(c), exact where the optimum is unique; 0 where a solve failed.

    Source: Danskin's theorem.
    """
    check_costs(costs, oracle.n)
    x = torch.nan_to_num(oracle(costs)).to(costs.device)
    return (costs.double() * x).sum(1).to(costs.dtype)


class SPOPlus(nn.Module):
    """SPO+ loss (Elmachtoub, Grigas 2022): a convex bound of the regret of acting on predicted costs.

    max over x of (c - 2p).x + 2 p.x(c) - c.x(c) for predicted p and true c, with subgradient 2 (x(c) - x(2p - c)).
    It needs true costs; a generator has none (see `make_estimator`).

    Args:
        oracle: solver and rules.
    """

    def __init__(self, oracle: Oracle) -> None:
        super().__init__()
        self.oracle = oracle

    def forward(self, predicted: Tensor, true: Tensor) -> Tensor:
        """Loss `[B]` of `predicted [B, n]` against `true [B, n]`; 0 without gradient where a solve failed."""
        check_costs(predicted, self.oracle.n, what="predicted costs")
        check_costs(true, self.oracle.n, what="true costs")
        _same_rows(predicted, true)
        p, c = predicted.double(), true.detach().to(predicted.device, torch.float64)
        best = self.oracle(c).to(p.device)
        tilted = self.oracle(2 * p - c).to(p.device)
        found = ~(best + tilted).isnan().any(1)
        best, tilted = (torch.where(found[:, None], x, 0.0) for x in (best, tilted))
        loss = ((c - 2 * p) * tilted + 2 * p * best - c * best).sum(1)
        return loss.to(predicted.dtype)


class FenchelYoung(nn.Module):
    """Perturbed Fenchel-Young loss p.y - mean_m min_x (p + sigma z_m).x (Berthet et al. 2020), up to a constant in y.

    Its gradient is y - mean_m x(p + sigma z_m); it is convex in p. It needs a target y; a generator has none.

    Args:
        oracle: solver and rules.
        sigma: size of the normal noise, > 0.
        samples: M >= 1 solves a row.
        seed: stream of the noise, >= 0; the number of calls is a buffer, so a resumed training draws the same noise.
    """

    step: Tensor  # calls so far

    def __init__(self, oracle: Oracle, *, sigma: float = 0.1, samples: int = 8, seed: int = 0) -> None:
        super().__init__()
        if not sigma > 0 or samples < 1 or seed < 0:
            raise InvalidInput(f"need sigma > 0, samples >= 1 and seed >= 0, got {sigma}, {samples} and {seed}")
        self.oracle = oracle
        self.sigma = sigma
        self.samples = samples
        self.seed = seed
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Loss `[B]` of `predicted [B, n]` costs against the wanted `target [B, n]`; 0 where a solve failed."""
        check_costs(predicted, self.oracle.n, what="predicted costs")
        check_costs(target, self.oracle.n, what="targets")
        _same_rows(predicted, target)
        p, y = predicted.double(), target.detach().to(predicted.device, torch.float64)
        z = draw("normal", (len(p), self.samples, self.oracle.n), generator(self.seed, int(self.step)))
        self.step += 1
        noisy = p[:, None] + self.sigma * z.to(p.device)
        x = self.oracle(noisy.flatten(0, 1)).reshape(noisy.shape).to(p.device)
        found = ~x.isnan().flatten(1).any(1)
        value = (noisy * torch.nan_to_num(x)).sum(2).mean(1)
        return torch.where(found, (p * y).sum(1) - value, 0.0).to(predicted.dtype)


def _same_rows(a: Tensor, b: Tensor) -> None:
    if len(a) != len(b):
        raise InvalidInput(f"{len(a)} predictions meet {len(b)} truths")
