"""A small generator of costs for any binary problem: noise in, costs out, trained on designs through the solver."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from tian.training.fit import fit
from tian.training.loader import StepLoader
from tian.training.options import OptimOptions
from tian_genco.grad.make import make_layer
from tian_genco.grad.options import GradOptions
from tian_genco.learn.energy import energy_distance, energy_loss
from tian_genco.learn.match import MatchTraining, generator_of
from tian_genco.learn.model import seeded
from tian_genco.learn.options import small_trainer

if TYPE_CHECKING:
    from tian.runs.rundir import Run
    from tian.spec import Solver
    from tian_genco.problem import Floats, Problem
    from tian_genco.sampling.options import CustomOptions

FEATURES = 64  # random features: pairs and larger groups of entries, where x alone gives means and distances
REALS = 256  # designs of the data compared with in a step, at most
SAMPLE_SEED = 2**20  # offset: designs that are kept never repeat the noise of training


class BinaryFeatures(nn.Module):
    """x itself and random ReLU features, both centred and over sqrt(their number).

    Args:
        n: entries of x.
        seed: of the features; another seed gives others, for a held-out measure.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, n: int, seed: int) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.register_buffer("weight", torch.randn(n, FEATURES, generator=rng) * (2 / n**0.5))
        self.register_buffer("bias", torch.randn(FEATURES, generator=rng))
        self.sizes = [n, FEATURES]

    def forward(self, x: Tensor) -> Tensor:
        """`x [B, n]` -> `[B, n + 64]`."""
        y = 2 * x - 1
        random = torch.relu(y @ self.weight + self.bias)
        return torch.cat([y / x.shape[1] ** 0.5, random / FEATURES**0.5], dim=1)


class CostGenerator(nn.Module):
    """Noise `[B, n]` -> costs `[B, n]`: the noise itself plus a network of it that starts at 0.

    Untrained it gives random costs, as diverse as the rules allow; training moves them to where the data are.
    """

    def __init__(self, n: int, hidden: int) -> None:
        super().__init__()
        last = nn.Linear(hidden, n)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(nn.Linear(n, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), last)

    def forward(self, z: Tensor) -> Tensor:
        """See above."""
        costs: Tensor = z + self.layers(z)
        return costs


class _Matching(nn.Module):
    """Energy distance between the solver's designs and the data, as a loss."""

    def __init__(self, net: CostGenerator, layer: nn.Module, features: BinaryFeatures, data: Tensor) -> None:
        super().__init__()
        self.net, self.layer, self.features = net, layer, features
        self.real: Tensor
        self.register_buffer("real", features(data), persistent=False)

    def forward(self, z: Tensor, index: Tensor) -> dict[str, Tensor]:
        fake = self.features(self.layer(self.net(z)))
        return {"loss": energy_loss(fake, self.real[index], self.features.sizes)}


def learned_costs(
    problem: Problem, solver: Solver, data: Floats, options: CustomOptions, *, run: Run, seed: int
) -> Floats:
    """Train on `data [N, n]` and return costs `[options.n, n]` float64 of fresh noise."""
    o = options.train
    with seeded(seed):
        net = CostGenerator(problem.n, o.hidden)
    grad = GradOptions(name="blackbox", lam=o.lam)
    layer = make_layer(grad, solver, problem, time_limit_s=options.time_limit_s, seed=seed)
    features = BinaryFeatures(problem.n, seed + 1)
    matching = _Matching(net, layer, features, torch.from_numpy(data).float())
    optim = OptimOptions(lr=o.lr, betas=[0.9, 0.99], weight_decay=0.0, warmup=0.0, final=0.1)
    reals = min(REALS, len(data))

    def batch(step: int) -> dict[str, Tensor]:
        rng = generator_of(seed, step)
        z = torch.randn(o.batch, problem.n, generator=rng)
        return {"z": z, "index": torch.randint(len(data), (reals,), generator=rng)}

    module: Any = MatchTraining(matching, optim=optim, steps=o.steps)
    fit(module, StepLoader(batch, steps=o.steps), replace(small_trainer(), max_steps=o.steps), run=run, seed=seed)
    with torch.no_grad():
        z = torch.randn(options.n, problem.n, generator=torch.Generator().manual_seed(SAMPLE_SEED + seed))
        costs = net.eval()(z)
        ready = costs if layer.normaliser is None else layer.normaliser(costs)
        found: Floats = np.asarray(ready.double().numpy(), np.float64) + layer.oracle.ties
    return found


def set_distance(designs: Floats, data: Floats) -> float:
    """Energy distance of two sets of designs `[k, n]` in features no training has seen; 0 for equal distributions."""
    features = BinaryFeatures(data.shape[1], 0)
    fake, real = (features(torch.from_numpy(rows).float()) for rows in (designs, data))
    return float(energy_distance(fake, real, features.sizes))
