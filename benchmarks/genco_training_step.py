"""A training step with the solver in it against the same step without, milliseconds of CPU time, in turns.

Two recipes, from one generator that was trained without a solver for a while: energy distance of features, and
WGAN-GP with five steps of the critic for one of the generator. Every round does one step of each way, in an order drawn
anew, each on its own copy of the generator; printed are quartiles, and quartiles and the worst of `with / without` by
round. The bound beside them is the step without. Below: the parts of what the solver adds, for one batch of designs.
Bar: at most 1.2 times the plain step of the GAN.
"""

from __future__ import annotations

import argparse
import copy
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from _result import save

from tian_genco.grad.options import GradOptions
from tian_genco.learn.adversary import BETAS, Adversarial, adversarial_batches
from tian_genco.learn.generator import straight_through
from tian_genco.learn.match import Matching, batches
from tian_genco.learn.options import TrainOptions
from tian_genco.learn.pipeline import Pipeline
from tian_genco.levels.options import OracleOptions
from tian_genco.levels.oracle import LevelOracle
from tian_genco.levels.steiner import solve_rows
from tian_genco.options import LevelData, ZeldaOptions
from tian_genco.zelda import level_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from tian_genco.learn.generator import TileGenerator

PLAIN = "without"
WAYS = (PLAIN, "identity", "blackbox")
AT = (0.25, 0.5, 0.75)


def timed(ways: dict[str, Callable[[], Any]], *, rounds: int, rng: np.random.Generator) -> dict[str, list[float]]:
    """Milliseconds of CPU time of each way and round, after one to warm up."""
    found: dict[str, list[float]] = {label: [] for label in ways}
    for way in ways.values():
        way()
    for _ in range(rounds):
        for label in rng.permutation(list(ways)):
            start = time.process_time()
            ways[label]()
            found[label].append(1e3 * (time.process_time() - start))
    return found


class Recipe:
    """Both recipes around one pipeline."""

    def __init__(self, *, seed: int) -> None:
        self.options = ZeldaOptions(data=LevelData(train=2000, reference=2))
        solver = LevelOracle(OracleOptions(limit="multiplier"))
        run: Any = SimpleNamespace(load=lambda _role, _node: solver)
        self.pipeline = Pipeline(level_task(self.options.data, seed=seed), self.options, run, seed=seed)
        self.head = self.pipeline.head("logit")

    def designs(self, way: str) -> Callable[[torch.Tensor], torch.Tensor]:
        """Logits -> designs."""
        if way == PLAIN:
            return straight_through
        layer = self.pipeline.layer(GradOptions(name=way))  # type: ignore[arg-type]
        return lambda logits: self.head.layout.planes(layer(self.head(logits)))

    def energy(self, net: TileGenerator, way: str, steps: int) -> Callable[[], None]:
        """One step of the energy distance."""
        p = self.pipeline
        loss_of = Matching(net, p.features, p.real, designs=self.designs(way))
        optimiser = torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.9, 0.99))
        feed = iter(batches(net, train=TrainOptions(), n_real=len(p.real), seed=0, steps=steps))

        def step() -> None:
            optimiser.zero_grad()
            loss_of(**next(feed))["loss"].backward()
            optimiser.step()

        return step

    def adversarial(self, net: TileGenerator, way: str, steps: int) -> Callable[[], None]:
        """One step of the generator and five of the critic."""
        p, train = self.pipeline, TrainOptions(loss="wgan-gp")
        planes = p.task.layout.planes(torch.from_numpy(p.task.layout.x(p.task.train)).float())
        module: Any = Adversarial(net, p.critic(), planes, designs=self.designs(way), train=train, lr=2e-4)
        optimisers = [torch.optim.Adam(m.parameters(), lr=2e-4, betas=BETAS) for m in (net, module.critic)]
        module.optimizers = lambda: optimisers  # what a trainer would give
        module.manual_backward = torch.Tensor.backward
        feed = iter(adversarial_batches(net, train=train, n_real=len(planes), seed=0, steps=steps))
        return lambda: module.training_step(next(feed), 0)

    def parts(self, net: TileGenerator) -> dict[str, Callable[[], Any]]:
        """What a solver adds to a step with black-box differences, part by part, for one batch of designs."""
        layer, problem = self.pipeline.layer(GradOptions()), self.pipeline.task.problem
        oracle, normaliser = layer.oracle, layer.normaliser
        rng = torch.Generator().manual_seed(0)
        with torch.no_grad():
            costs = self.head(net(*net.draw(TrainOptions().batch, rng)))
            u, above = normaliser(costs), torch.randn(costs.shape, generator=rng)
            rows = u.numpy() + oracle.ties
        wide = above.double()
        share = float(problem.enemy_share)

        def through() -> None:
            c = costs.clone().requires_grad_()
            normaliser(c).backward(wide)

        def whole() -> None:
            c = costs.clone().requires_grad_()
            layer(c).backward(above)

        return {
            "layer, forward and back": whole,
            "normaliser, forward and back": through,
            "projection of what comes from above": lambda: normaliser.project(wide),
            "one call of the counted solver": lambda: oracle(u),
            "of it: level oracle": lambda: oracle.solver.solve_costs(oracle.instance, rows, time_limit_s=10.0),
            "of that: search": lambda: solve_rows(rows, problem.height, problem.width, share, 5000),
            "of the call: ties": lambda: u.numpy() + oracle.ties,
        }


def summary(found: dict[str, list[float]], *, against: str) -> dict[str, Any]:
    """Quartiles of each, and of each over `against` with the worst."""
    row: dict[str, Any] = {}
    for label, ms in found.items():
        row[f"{label}, ms"] = [round(float(v), 2) for v in np.quantile(ms, AT)]
        if label != against:
            x = np.array(ms) / np.array(found[against])
            row[f"{label} / {against}"] = [round(float(v), 3) for v in (*np.quantile(x, AT), x.max())]
    return row


def main() -> None:
    """Both recipes, then the parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--before", type=int, default=100, help="plain steps before anything is timed")
    args = parser.parse_args()
    torch.set_num_threads(1)
    recipe, rng = Recipe(seed=0), np.random.default_rng(0)
    net = recipe.pipeline.fresh()
    warm = recipe.energy(net, PLAIN, args.before)
    for _ in range(args.before):
        warm()
    rows = []
    for name, make in (("energy distance", recipe.energy), ("wgan-gp, 5 critic steps", recipe.adversarial)):
        ways = {way: make(copy.deepcopy(net), way, args.rounds + 1) for way in WAYS}
        rows.append(
            {"recipe": name, "rounds": args.rounds, **summary(timed(ways, rounds=args.rounds, rng=rng), against=PLAIN)}
        )
        print("\n  ".join(f"{k} {v}" for k, v in rows[-1].items()), flush=True)
    parts = timed(recipe.parts(net), rounds=args.rounds, rng=rng)
    rows.append(
        {
            "recipe": "parts of one batch",
            "rounds": args.rounds,
            **{f"{label}, ms": [round(float(v), 2) for v in np.quantile(ms, AT)] for label, ms in parts.items()},
        }
    )
    print("\n  ".join(f"{k} {v}" for k, v in rows[-1].items()), flush=True)
    save("genco-training-step", {"clock": "CPU time, one thread", "cases": rows})


if __name__ == "__main__":
    main()
