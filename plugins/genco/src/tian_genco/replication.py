"""Recipe `genco/replication`: ways of training and repairing side by side, on the same data, start and noise."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tian.claims.stats import interval
from tian.config.compose import options_of
from tian.types import Measurement
from tian_genco.learn.pipeline import Pipeline
from tian_genco.learn.task import repair_costs, solve_all
from tian_genco.replication_options import ARMS
from tian_genco.zelda import level_task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tian.runs.rundir import Run
    from tian_genco.learn.generator import TileGenerator
    from tian_genco.replication_options import ReplicationOptions

RATIOS = ("energy distance", "pattern JSD", "unique")
PENALTY = 1.0
STRIDE = 1_000_003  # between the seeds of repeats


def replication(cfg: Any, run: Run) -> list[Measurement]:
    """See `ReplicationOptions`. Finished arms are read from the run directory when it is resumed.

    Raises:
        DataError: unusable levels. RunError: too many solves without a design.
    """
    options: ReplicationOptions = options_of(cfg)
    torch.set_num_threads(options.threads)
    arms = list(dict.fromkeys([options.method, options.baseline, *options.compare]))
    rows: dict[str, dict[str, float]] = run.read_json("rows.json") or {}
    for repeat in range(options.repeats):
        todo = [a for a in ("data", *arms) if f"{repeat}/{a}" not in rows]
        if not todo:
            continue
        bench = Bench(options, run, seed=int(cfg.seed) + STRIDE * repeat, repeat=repeat)
        for arm in todo:
            rows[f"{repeat}/{arm}"] = bench.row(arm)
            run.write_json("rows.json", rows)
    return measurements(rows, options)


class Bench:
    """The arms of one repeat, which share data, features, first weights and the plain stage.

    Args:
        options: of the run.
        run: its directory.
        seed: of this repeat.
        repeat: its number.
    """

    def __init__(self, options: ReplicationOptions, run: Run, *, seed: int, repeat: int) -> None:
        self.options, self.run, self.seed, self.repeat = options, run, seed, repeat
        self.task = level_task(options.data, seed=seed)
        self.pipeline = Pipeline(self.task, options, run, seed=seed)
        self.judge = self.task.judge(options.eval)
        self._shared: TileGenerator | None = None

    def row(self, arm: str) -> dict[str, float]:
        """All numbers of one arm, or of the data against the data."""
        self.run.info(f"repeat {self.repeat + 1} of {self.options.repeats}: {arm}")
        if arm == "data":
            grids = self.task.train[: self.options.sample.n]
            return self._judged(grids, arm)
        shared = self.shared() if ARMS[arm].stage in ("plain", "solver") else None
        start = time.process_time()
        grids, extra = self._designs(arm, shared)
        return {**self._judged(grids, arm), **extra, "CPU": time.process_time() - start}

    def shared(self) -> TileGenerator:
        """The generator after the plain stage, from which most arms go on."""
        if self._shared is None:
            net = self.pipeline.fresh()
            self.pipeline.plain(net, self.options.train, critic=None, part=f"{self.repeat}-plain-stage")
            self._shared = net
        return self._shared

    def _designs(self, arm: str, shared: TileGenerator | None) -> tuple[NDArray[np.uint8], dict[str, float]]:
        """Train, sample, check; the designs and what is known of them."""
        options, pipeline = self.options, self.pipeline
        way = ARMS[arm]
        if way.stage == "random":
            return self._random()
        train = replace(options.train, adversary=way.adversary, penalty=PENALTY if arm == "penalty" else 0.0)
        net = copy.deepcopy(shared) if shared is not None else pipeline.fresh()
        part = f"{self.repeat}-{arm}"
        if way.grad is not None:
            pipeline.through(net, train, replace(options.grad, name=way.grad), critic=None, part=part)
        else:
            long = way.stage == "none"
            steps, lr = (options.plain_long, train.lr) if long else (options.plain_again, train.lr_through)
            pipeline.plain(net, replace(train, plain=steps, lr=lr), critic=None, part=part)
        net.eval()
        samples = pipeline.samples(net, train.costs)
        found = pipeline.validity(samples, by={})
        return samples.grids, {m.name: m.value for m in found}

    def _random(self) -> tuple[NDArray[np.uint8], dict[str, float]]:
        """Tiles drawn cell by cell with the data's overall frequencies, then repaired."""
        layout, n = self.task.layout, self.options.sample.n
        rng = np.random.default_rng([self.seed, n])
        shares = np.bincount(self.task.train.ravel(), minlength=layout.tiles) / self.task.train.size
        raw = rng.choice(layout.tiles, p=shares, size=(n, layout.height, layout.width)).astype(np.uint8)
        costs = repair_costs(self.pipeline.head("logit"), raw)
        solver = self.run.load("solver", self.options.sampler)
        batch = solve_all(
            solver,
            self.task.problem,
            costs,
            time_limit_s=self.options.solve.time_limit_s,
            run=self.run,
            desc="repairs",
        )
        grids = layout.grids(batch.x[batch.found])
        return grids, {"valid": float(np.mean([not self.task.problem.broken(x) for x in layout.x(grids)]))}

    def _judged(self, grids: NDArray[np.uint8], arm: str) -> dict[str, float]:
        found = self.judge.measure(
            grids,
            by={},
            run=self.run,
            trainer=self.options.trainer,
            seed=self.seed,
            part=f"{self.repeat}-{arm}-critic",
        )
        walls = float((grids == 0).sum(axis=(1, 2)).mean())
        return {**{m.name: m.value for m in found}, "walls": walls}


def measurements(rows: dict[str, dict[str, float]], options: ReplicationOptions) -> list[Measurement]:
    """Means over repeats with intervals (Student's t), and ratios to the baseline, paired by repeat."""
    out: list[Measurement] = []
    arms = list(dict.fromkeys(key.split("/", 1)[1] for key in rows))
    for arm in arms:
        of_arm = [rows[f"{r}/{arm}"] for r in range(options.repeats)]
        by = {"designs": arm}
        out.extend(over_repeats(name, [row[name] for row in of_arm], by) for name in of_arm[0])
    for arm in arms:
        if arm in ("data", options.baseline):
            continue
        for name in RATIOS:
            ratios = [
                max(rows[f"{r}/{arm}"][name], 1e-9) / max(rows[f"{r}/{options.baseline}"][name], 1e-9)
                for r in range(options.repeats)
            ]
            by = {"method": arm, "baseline": options.baseline}
            out.append(over_repeats(f"{name} over the baseline's", ratios, by))
    own = [rows[f"{r}/{options.method}"]["energy distance"] for r in range(options.repeats)]
    return [*out, over_repeats("energy distance of the method", own, {"method": options.method})]


def over_repeats(name: str, values: list[float], by: dict[str, str]) -> Measurement:
    """Mean and interval of one number."""
    mean, low, high = interval(values)
    ci = (low, high) if len(values) > 1 and math.isfinite(low) else None
    unit = {"CPU": "s", "Hamming": "cells", "pattern JSD": "bit"}.get(name, "1")
    return Measurement(name, mean, unit, len(values), ci, None, by)
