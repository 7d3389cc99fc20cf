"""Recipe `genco/warcraft`: train a generator of maps, steer its samples towards cheap shortest paths, and measure both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tian.config.compose import options_of
from tian.types import Measurement
from tian_genco.grad.oracle import Oracle
from tian_genco.learn.designs import Layout
from tian_genco.learn.judge import Judge
from tian_genco.learn.pipeline import share
from tian_genco.maps.arms import VaeArms, VqArms
from tian_genco.maps.data import MapSet, load
from tian_genco.maps.draw import Row, rows_svg
from tian_genco.maps.objective import Objective
from tian_genco.paths.problem import PathProblem

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tian.runs.rundir import Run
    from tian_genco.maps.arms import Arm, Arms
    from tian_genco.maps.data import Maps
    from tian_genco.maps.options import WarcraftOptions
    from tian_genco.paths.terrain import Bytes

OURS, WITHOUT, DATA = "ours", "without objective", "data"
BESIDE = {"none": WITHOUT, "path": "path instead", "tile-mean": "tile mean instead"}
ORDER = {DATA: 0, WITHOUT: 1, OURS: 2}  # of rows in the gallery, others after them
SHOWN = 6  # maps in a row of the gallery
LIMIT = 60.0  # seconds for a solve; it takes microseconds
TIES = 0  # seed of the field that tells paths of equal cost apart


@dataclass(frozen=True, eq=False)
class Plan:
    """An arm: its name in tables, and its objective (weight 0: none)."""

    name: str
    kind: str
    weight: float

    @property
    def part(self) -> str:
        """Its name in files."""
        return self.name.replace(" ", "-")


def plans_of(options: WarcraftOptions) -> list[Plan]:
    """The arms of a run, ours first."""

    def plan(name: str, kind: str, weight: float) -> Plan:
        return Plan(name, kind, weight) if kind != "none" and weight else Plan(name, "none", 0.0)

    kind, weight = options.objective.kind, options.objective.weight
    out = [plan(OURS, kind, weight)]
    out += [plan(BESIDE[other], other, weight) for other in dict.fromkeys(options.compare)]
    more = [w for w in dict.fromkeys(options.curve) if w != weight and kind != "none"]
    return out + [plan(f"{kind} x {w:g}", kind, w) for w in more]


def warcraft(cfg: Any, run: Run) -> list[Measurement]:
    """See `WarcraftOptions`. Training goes on from its checkpoints when the run is resumed.

    Leaves `models/ARM/*.safetensors`, `maps.npz`, `results.json` and `plots/maps.svg` in the run directory.

    Raises:
        DataError: unusable maps.
    """
    options: WarcraftOptions = options_of(cfg)
    torch.set_num_threads(options.threads)
    maps = load(options.data, images=options.model == "vqvae", seed=int(cfg.seed))
    run.info(f"data: {maps.label}")
    return Study(maps, options, run).measure()


class Study:
    """One run: its arms, and how their maps are judged.

    Args:
        maps: data.
        options: of the run.
        run: its directory; its config gives the seed.
    """

    def __init__(self, maps: Maps, options: WarcraftOptions, run: Run) -> None:
        self.maps, self.options, self.run, self.seed = maps, options, run, int(run.config.seed)
        height, width = (int(k) for k in maps.train.classes.shape[1:])
        self.problem = PathProblem(height, width)
        solver = run.load("solver", options.solver)
        self.oracle = Oracle(solver, self.problem, time_limit_s=LIMIT, tie_seed=TIES, least=0.0)
        layout = Layout(len(maps.levels), height, width)
        self.judge = Judge(layout, maps.train.classes, maps.reference.classes, [], options.eval)
        self.cells = float(maps.train.paths.sum(axis=(1, 2)).mean())

    def measure(self) -> list[Measurement]:
        """Train every arm, and measure it beside the data."""
        some = slice(0, self.options.sample.n)
        known = self.maps.train
        data = MapSet(known.classes[some], known.paths[some], None if known.images is None else known.images[some])
        drawn = {DATA: data}
        numbers = {DATA: self.path_numbers(data)}
        plans = plans_of(self.options)
        for plan, arm in zip(plans, self.trained(plans), strict=True):
            classes, images = arm.sample(self.options.sample.n, seed=self.seed)
            drawn[plan.name] = sampled = MapSet(classes, self.paths(classes), images)
            fit = arm.fit(self.maps.reference, seed=self.seed)
            numbers[plan.name] = {**self.path_numbers(sampled), **fit}
        out: list[Measurement] = []
        for name, sampled in drawn.items():
            out += self.row(name, sampled, numbers[name])
        if WITHOUT in numbers:
            out += [m for plan in plans if plan.name != WITHOUT for m in ratios(plan.name, numbers)]
        self.keep(drawn, plans, numbers)
        return out

    def trained(self, plans: list[Plan]) -> list[Arm]:
        """The arms, one for each distinct objective."""
        arms: Arms = (VaeArms if self.options.model == "vae" else VqArms)(self.maps, self.options, self.run)
        done: dict[tuple[str, float], Arm] = {}
        for plan in plans:
            key = plan.kind, plan.weight
            if key not in done:
                objective = Objective(plan.kind, plan.weight, self.oracle, self.cells) if plan.weight else None
                done[key] = arms.arm(objective, part=plan.part)
            done[key].save(self.run.path / "models" / plan.part)
        return [done[plan.kind, plan.weight] for plan in plans]

    def paths(self, classes: Bytes) -> Bytes:
        """The shortest path of each map `[n, H, W]`."""
        costs = torch.from_numpy(self.maps.levels[classes].reshape(len(classes), -1))
        return self.oracle(costs).numpy().astype(np.uint8).reshape(classes.shape)

    def path_numbers(self, maps: MapSet) -> dict[str, NDArray[np.float64]]:
        """`path cost` and `tile mean` of each map."""
        costs = self.maps.levels[maps.classes]
        return {"path cost": (costs * maps.paths).sum(axis=(1, 2)), "tile mean": costs.mean(axis=(1, 2))}

    def row(self, name: str, maps: MapSet, numbers: dict[str, NDArray[np.float64]]) -> list[Measurement]:
        """Everything measured of one set of maps."""
        by = {"maps": name}
        flat = maps.paths.reshape(len(maps.paths), -1).astype(np.float64)
        good = np.array([not self.problem.broken(x) for x in flat], np.float64)
        out = [mean_of(label, values, self.unit(label), by) for label, values in numbers.items()]
        out.append(share("valid path", good, by))
        part = f"critic-{name.replace(' ', '-')}"
        trainer = self.options.trainer
        return out + self.judge.measure(maps.classes, by=by, run=self.run, trainer=trainer, seed=self.seed, part=part)

    def unit(self, label: str) -> str:
        """Of a number of one map."""
        if label in ("divergence", "code nats"):
            return "nat"
        return "nat" if label == "reconstruction" and self.options.model == "vae" else "1"

    def keep(
        self, drawn: dict[str, MapSet], plans: list[Plan], numbers: dict[str, dict[str, NDArray[np.float64]]]
    ) -> None:
        """Write maps, gallery and what the report needs."""
        arrays: dict[str, Any] = {f"{name} classes": maps.classes for name, maps in drawn.items()}
        arrays |= {f"{name} paths": maps.paths for name, maps in drawn.items()}
        np.savez_compressed(self.run.path / "maps.npz", **arrays)
        shown = []
        for name, maps in sorted(drawn.items(), key=lambda item: ORDER.get(item[0], len(ORDER))):
            pictures = self.maps.colours()[maps.classes[:SHOWN]] if maps.images is None else maps.images[:SHOWN]
            shown.append(Row(name, pictures, maps.paths[:SHOWN], numbers[name]["path cost"]))
        (self.run.path / "plots").mkdir(exist_ok=True)
        svg = rows_svg(shown, legend=self.legend(), alt="maps with their shortest paths: " + ", ".join(drawn))
        (self.run.path / "plots" / "maps.svg").write_text(svg, encoding="utf-8")
        self.run.write_json(
            "results.json",
            {
                "label": self.maps.label,
                "made": self.maps.made,
                "model": self.options.model,
                "cells": self.cells,
                "arms": [{"name": p.name, "kind": p.kind, "weight": p.weight} for p in plans],
                "solves": self.oracle.counts(),
            },
        )

    def legend(self) -> dict[str, Any]:
        """Colour of each class by its name and cost; none where images are shown."""
        if self.options.model == "vqvae":
            return {}
        names = self.maps.names()
        return {f"{n} {c:g}": k for n, c, k in zip(names, self.maps.levels, self.maps.colours(), strict=True)}


def mean_of(name: str, values: NDArray[np.float64], unit: str, by: dict[str, str]) -> Measurement:
    """Mean with its normal 95 % interval over maps."""
    better = {"path cost": False, "reconstruction": False, "code nats": False, "cells read right": True}.get(name)
    mean, half = float(values.mean()), 1.96 * float(values.std()) / len(values) ** 0.5
    return Measurement(name, mean, unit, len(values), (mean - half, mean + half), better, by)


def ratios(name: str, numbers: dict[str, dict[str, NDArray[np.float64]]]) -> list[Measurement]:
    """Means of an arm over those of the arm without an objective, map by map on the same noise (delta method)."""
    out = []
    for label in ("path cost", "reconstruction", "code nats"):
        if label not in numbers[name]:
            continue
        a, b = numbers[name][label], numbers[WITHOUT][label]
        ratio = float(a.mean() / b.mean())
        half = 1.96 * float((a - ratio * b).std()) / (len(a) ** 0.5 * float(b.mean()))
        interval = (ratio - half, ratio + half)
        by = {"maps": name}
        title = f"{label} over that {WITHOUT}"
        out.append(Measurement(title, ratio, "1", len(a), interval, higher_is_better=False, by=by))
    return out
