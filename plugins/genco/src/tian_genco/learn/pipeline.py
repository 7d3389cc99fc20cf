"""From a task and options to a trained generator, its designs, their certificates and all measures."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tian.errors import RunError
from tian.training.fit import fit
from tian.training.options import OptimOptions
from tian.types import Measurement
from tian_genco.grad.costs import Normaliser
from tian_genco.grad.make import make_layer
from tian_genco.grad.options import GradOptions
from tian_genco.learn.adversary import Adversarial, adversarial_batches
from tian_genco.learn.critic import TileCritic
from tian_genco.learn.generator import straight_through
from tian_genco.learn.match import CostHead, Matching, MatchTraining, batches, features_of, fitted_features
from tian_genco.learn.model import DesignGenerator, GeneratorShape, build, seeded
from tian_genco.learn.task import costs_of, draw_samples

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from tian.runs.rundir import Run
    from tian_genco.grad.layer import SolverLayer
    from tian_genco.learn.generator import TileGenerator
    from tian_genco.learn.options import TrainOptions
    from tian_genco.learn.task import Samples, Task

FILTERS = 1  # seed offset of the filters of training; the held-out measure uses others
SHOWN = 20  # designs in a gallery


class Pipeline:
    """The parts of one run, made once.

    Args:
        task: rules and data.
        options: of the run; see `tian_genco.options`.
        run: its directory.
        seed: of first weights, filters and noise.
    """

    def __init__(self, task: Task, options: Any, run: Run, *, seed: int) -> None:
        self.task, self.options, self.run, self.seed = task, options, run, seed
        self.features = fitted_features(task.layout, task.train, unique=task.unique, seed=FILTERS + self.seed)
        self.real = features_of(self.features, task.layout, task.train)
        self.shape = GeneratorShape(task.layout, options.generator.nz, options.generator.channels)
        self.normaliser = Normaliser(task.problem)

    def fresh(self) -> TileGenerator:
        """An untrained generator, which knows how often the tiles of the data are seen in each place."""
        net, layout = build(self.shape, seed=self.seed), self.task.layout
        shares = np.stack([(self.task.train == t).mean(axis=0) for t in range(layout.tiles)])
        net.start_from(torch.from_numpy(shares))
        return net

    def critic(self) -> TileCritic:
        """An untrained critic."""
        with seeded(self.seed):
            layout = self.task.layout
            return TileCritic(tiles=layout.tiles, height=layout.height, width=layout.width)

    def head(self, kind: str) -> CostHead:
        """Costs of kind `logit` or `softmax`."""
        return CostHead(self.task.layout, kind, normaliser=self.normaliser, tie_seed=self.options.grad.tie_seed)

    def layer(self, grad: GradOptions) -> SolverLayer:
        """The solver as a layer."""
        limits = self.options.solve
        return make_layer(
            grad,
            self.run.load("solver", self.options.solver),
            self.task.problem,
            time_limit_s=limits.time_limit_s,
            max_fail_rate=limits.max_fail_rate,
            seed=self.seed,
        )

    def plain(self, net: TileGenerator, train: TrainOptions, *, critic: TileCritic | None, part: str = "plain") -> None:
        """The stage without a solver in the loop, in place; a penalty asks it all the same, without a gradient."""
        layer = self.layer(GradOptions()) if train.penalty else None
        self._stage(
            net,
            train,
            straight_through,
            critic=critic,
            steps=train.plain,
            lr=train.lr,
            part=part,
            ask=layer,
            frozen=self.fakes(net, train),
        )

    def through(
        self,
        net: TileGenerator,
        train: TrainOptions,
        grad: GradOptions,
        *,
        critic: TileCritic | None,
        part: str = "through",
    ) -> dict[str, Any]:
        """The stage through the solver, in place; returns the counts of its solves."""
        if not train.through:
            return {}
        head, layer = self.head(train.costs), self.layer(grad)

        def designs(logits: torch.Tensor) -> torch.Tensor:
            return head.layout.planes(layer(head(logits)))

        self._stage(
            net,
            train,
            designs,
            critic=critic,
            steps=train.through,
            lr=train.lr_through,
            part=part,
            layer=layer,
            frozen=self.fakes(net, train),
        )
        return layer.counts()

    def _stage(
        self,
        net: TileGenerator,
        train: TrainOptions,
        designs: Callable[[torch.Tensor], torch.Tensor],
        *,
        critic: TileCritic | None,
        steps: int,
        lr: float,
        part: str,
        layer: SolverLayer | None = None,
        ask: SolverLayer | None = None,
        frozen: torch.Tensor | None = None,
    ) -> None:
        if not steps:
            return
        seed = (self.seed + zlib.crc32(part.encode())) % 2**32
        module: Any
        if critic is not None:
            planes = self.task.judge(self.options.eval).planes(self.task.train)
            module = Adversarial(net, critic, planes, designs=designs, train=train, lr=lr, steps=steps)
            loader = adversarial_batches(net, train=train, n_real=len(planes), seed=seed, steps=steps)
        else:
            penalty = self._asking(ask, train.costs) if ask else None
            matching = Matching(
                net,
                self.features,
                self.real,
                designs=designs,
                penalty=penalty,
                weight=train.penalty,
                frozen=frozen,
            )
            optim = OptimOptions(lr=lr, betas=[0.9, 0.99], weight_decay=0.0, warmup=0.0, final=0.1)
            module = MatchTraining(matching, optim=optim, steps=steps)
            loader = batches(net, train=train, n_real=len(self.real), seed=seed, steps=steps)
        if layer is not None:
            module.add_module("solver_layer", layer)  # its noise counter belongs into the checkpoint
        trainer = replace(self.options.trainer, max_steps=steps)
        fit(module, loader, trainer, run=self.run, seed=seed, part=part)

    def _asking(self, layer: SolverLayer, kind: str) -> Callable[[torch.Tensor], torch.Tensor]:
        head = self.head(kind)
        return lambda logits: head.layout.planes(layer(head(logits).detach()))

    def fakes(self, net: TileGenerator, train: TrainOptions) -> torch.Tensor | None:
        """Features of designs of `net` as it is now, for the fixed witness; None for an adversary that is updated."""
        if train.adversary == "updated" or train.loss != "energy":
            return None
        _, raw = costs_of(net, self.head("logit"), train.reals, seed=self.seed)
        return features_of(self.features, self.task.layout, raw)

    def samples(self, net: TileGenerator, kind: str) -> Samples:
        """`sample.n` designs."""
        solver = self.run.load("solver", self.options.sampler)
        return draw_samples(
            net,
            self.head(kind),
            solver,
            self.task.problem,
            self.options.sample.n,
            seed=self.seed,
            time_limit_s=self.options.solve.time_limit_s,
            run=self.run,
        )

    def validity(self, samples: Samples, *, by: dict[str, str]) -> list[Measurement]:
        """Shares of designs, and of most likely tiles, that the independent checker accepts.

        Raises:
            RunError: the solver left some sample without a design.
        """
        missing = int((~samples.batch.found).sum())
        if missing:
            raise RunError(
                f"{missing} of {len(samples.batch)} samples ended without a design",
                where=f"solve.time_limit_s={self.options.solve.time_limit_s}",
                hint="raise solve.time_limit_s",
            )
        layout, problem = self.task.layout, self.task.problem
        out = []
        for name, grids in (("valid", samples.grids), ("valid without the solver", samples.raw)):
            good = np.array([not problem.broken(x) for x in layout.x(grids)], np.float64)
            out.append(share(name, good, by))
        return out


def share(name: str, good: NDArray[np.float64], by: dict[str, str]) -> Measurement:
    """A share with its Wilson interval."""
    n, p, z = len(good), float(good.mean()), 1.96
    middle, half = (p + z * z / (2 * n)), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    low, high = ((middle + s * half) / (1 + z * z / n) for s in (-1, 1))
    return Measurement(name, p, "1", n, (max(0.0, min(low, p)), min(1.0, max(high, p))), higher_is_better=True, by=by)


def generate(task: Task, options: Any, *, run: Run) -> list[Measurement]:
    """Train, sample, judge; leaves `generator/`, `designs.npz` and `results.json` in the run directory."""
    judge = task.judge(options.eval)
    pipeline = Pipeline(task, options, run, seed=int(run.config.seed))
    run.info(f"data: {task.label}")
    net = pipeline.fresh()
    critic = pipeline.critic() if options.train.loss == "wgan-gp" else None
    pipeline.plain(net, replace(options.train, adversary="updated"), critic=critic)
    counts = pipeline.through(net, options.train, options.grad, critic=critic)
    net.eval()
    DesignGenerator.of(pipeline.shape, net).save_weights(run.path / "generator")
    samples = pipeline.samples(net, options.train.costs)
    np.savez_compressed(run.path / "raw.npz", raw=samples.raw)
    if not options.sample.solver:
        samples = replace(samples, grids=samples.raw)
    if options.sample.solver and options.sample.certify and task.record is not None:
        task.record(run.path, samples.costs, samples.batch)
    else:
        np.savez_compressed(run.path / "designs.npz", designs=samples.grids)
    by = {"designs": "ours"}
    found = pipeline.validity(samples, by=by)
    found += judge.measure(samples.grids, by=by, run=run, trainer=options.trainer, seed=pipeline.seed, part="critic")
    rows = min(len(task.train), len(samples.grids))
    found += judge.measure(
        task.train[:rows],
        by={"designs": "data"},
        run=run,
        trainer=options.trainer,
        seed=pipeline.seed,
        part="critic-data",
    )
    write_gallery(task, samples, run)
    results = {"title": task.title, "label": task.label, "counts": counts, "routes": routes(samples)}
    run.write_json("results.json", results)
    return found


def write_gallery(task: Task, samples: Samples, run: Run) -> None:
    """Draw the first designs to `plots/designs.svg`."""
    (run.path / "plots").mkdir(exist_ok=True)
    svg = task.gallery(samples.grids[:SHOWN], [])
    (run.path / "plots" / "designs.svg").write_text(svg, encoding="utf-8")


def routes(samples: Samples) -> dict[str, int]:
    """How many designs were found in which way."""
    names = [
        f"{route or 'solver'}, {status}"
        for route, status in zip(samples.batch.route, samples.batch.status, strict=True)
    ]
    return {name: names.count(name) for name in sorted(set(names))}
