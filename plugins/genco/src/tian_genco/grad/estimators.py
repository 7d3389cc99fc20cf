"""Estimators of the gradient through x(c) = argmin c.x; d = dL/dx is what comes from above, min sense throughout."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tian.errors import InvalidInput
from tian_genco.grad.noise import NoiseName, draw, generator, score, sum_of_gamma

Solve = Callable[[Tensor], Tensor]  # costs [K, n] -> optima [K, n] float64, NaN where a solve failed
Saved = tuple[Tensor, ...]  # tensors with B rows each; the layer keeps the rows whose gradient is wanted


@dataclass(frozen=True)
class Estimator(ABC):
    """How x is computed from costs and how a gradient comes back; linear in d, so that d = 0 needs no solve."""

    def forward(self, solve: Solve, cost: Tensor, *, step: int) -> tuple[Tensor, Saved]:
        """The x `[B, n]` for `cost [B, n]` float64, and what `backward` needs; `step` numbers the call for the noise."""
        x = solve(cost)
        return x, (cost, x)

    @abstractmethod
    def backward(self, solve: Solve, saved: Saved, d: Tensor) -> Tensor:
        """dL/dc `[B, n]` from `d [B, n]`, float64; NaN in rows where a solve failed."""


@dataclass(frozen=True)
class Identity(Estimator):
    """dL/dc = -d: a lower cost means more of the entry (Sahoo et al. 2023). No further solve.

    Blind to what x ignores, hence to be used on normalised costs, whose chain rule removes it.
    """

    def backward(self, solve: Solve, saved: Saved, d: Tensor) -> Tensor:
        """-d."""
        return -d


@dataclass(frozen=True)
class BlackBox(Estimator):
    """dL/dc = (x(c + l d) - x(c)) / l (Vlastelica et al. 2020): the slope of L linearised between c and c + l d.

    Attributes:
        lam: how far the cost moves, > 0. With unit `rms` the step l d has RMS lam: l = lam / RMS(d), per row.
        unit: `raw` takes l = lam.
    """

    lam: float = 0.05
    unit: Literal["rms", "raw"] = "rms"

    def __post_init__(self) -> None:
        _positive(lam=self.lam)

    def backward(self, solve: Solve, saved: Saved, d: Tensor) -> Tensor:
        """One further solve."""
        cost, x = saved
        size, direction = _direction(d, self.unit)
        return (solve(torch.add(cost, direction, alpha=self.lam)) - x) * (size / self.lam)


@dataclass(frozen=True)
class Perturbed(Estimator):
    """x = mean of x(c + sigma z_m); dL/dc = (1 / (M - 1) sigma) sum_m s(z_m) (x_m - mean x).d (Berthet et al. 2020).

    s = -grad log p, which is z for normal noise. Exact in expectation for x = E[x(c + sigma z)]. The mean of the other
    samples is each sample's baseline, which costs no solve and, being independent of its noise, no bias.

    Attributes:
        sigma: size of the noise, > 0.
        samples: M >= 2 solves a row.
        seed: stream of the noise, >= 0.
        noise: `normal`, or `gumbel` for minus standard Gumbel.
    """

    sigma: float = 0.1
    samples: int = 8
    seed: int = 0
    noise: NoiseName = "normal"

    def __post_init__(self) -> None:
        _positive(sigma=self.sigma)
        _seed(self.seed)
        if self.samples < 2:
            raise InvalidInput(f"samples must be >= 2, for one to be the other's baseline, got {self.samples}")

    def forward(self, solve: Solve, cost: Tensor, *, step: int) -> tuple[Tensor, Saved]:
        """M solves a row."""
        z = draw(self.noise, (len(cost), self.samples, cost.shape[1]), generator(self.seed, step))
        x = _solve_samples(solve, cost[:, None] + self.sigma * z)
        return x.mean(1), (z, x)

    def backward(self, solve: Solve, saved: Saved, d: Tensor) -> Tensor:
        """No further solve."""
        z, x = saved
        along = torch.einsum("bmn,bn->bm", x - x.mean(1, keepdim=True), d)
        return torch.einsum("bm,bmn->bn", along, score(self.noise, z)) / ((self.samples - 1) * self.sigma)


@dataclass(frozen=True)
class IMLE(Estimator):
    """x = mean of x(c_m), c_m = c - sigma g_m; dL/dc = mean_m (x(c_m + l d) - x(c_m)) / l (Niepert et al. 2021).

    g is sum-of-gamma noise, subtracted because it is meant for utilities -c.

    Attributes:
        sigma: size of the noise, > 0.
        lam: as in `BlackBox`, in units of RMS(d).
        samples: M >= 1.
        two_sided: (x(c_m + l d) - x(c_m - l d)) / 2 l instead: 2 M further solves for M.
        k: entries that are 1 in a typical x; the noise of k entries together is nearly Gumbel.
        seed: stream of the noise, >= 0.
    """

    sigma: float = 0.1
    lam: float = 0.05
    samples: int = 4
    two_sided: bool = False
    k: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        _positive(sigma=self.sigma, lam=self.lam, samples=self.samples, k=self.k)
        _seed(self.seed)

    def forward(self, solve: Solve, cost: Tensor, *, step: int) -> tuple[Tensor, Saved]:
        """M solves a row."""
        g = sum_of_gamma((len(cost), self.samples, cost.shape[1]), generator(self.seed, step), k=self.k)
        noisy = cost[:, None] - self.sigma * g
        x = _solve_samples(solve, noisy)
        return x.mean(1), (noisy, x)

    def backward(self, solve: Solve, saved: Saved, d: Tensor) -> Tensor:
        """M further solves a row, or 2 M."""
        noisy, x = saved
        size, direction = _direction(d, "rms")
        move = self.lam * direction[:, None]
        after = _solve_samples(solve, noisy + move)
        before, reach = (_solve_samples(solve, noisy - move), 2 * self.lam) if self.two_sided else (x, self.lam)
        return size * (after - before).mean(1) / reach


def _solve_samples(solve: Solve, costs: Tensor) -> Tensor:
    """`[B, M, n]` optima of as many costs."""
    return solve(costs.flatten(0, 1)).reshape(costs.shape)


def _direction(d: Tensor, unit: Literal["rms", "raw"]) -> tuple[Tensor, Tensor]:
    """Sizes `[B, 1]` and `[B, n]` with d = size * direction; no row of d is zero."""
    if unit == "raw":
        return torch.ones_like(d[:, :1]), d
    largest = d.abs().amax(1, keepdim=True)  # squares of tiny gradients would underflow
    size = largest * torch.linalg.vector_norm(d / largest, dim=1, keepdim=True) / d.shape[1] ** 0.5
    return size, d / size


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise InvalidInput(f"{name} must be > 0, got {value}")


def _seed(seed: int) -> None:
    if seed < 0:
        raise InvalidInput(f"seed must be >= 0, got {seed}")
