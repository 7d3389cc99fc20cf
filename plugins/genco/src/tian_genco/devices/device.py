"""Recipe `genco/device`: inverse design under manufacturing rules, three ways of training side by side.

A stand-in for photonics: what is simulated is a network of resistors, not electromagnetics.
"""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tian.config.compose import options_of
from tian.types import Measurement
from tian_genco.devices.draw import gallery_svg
from tian_genco.devices.make import VERSION, make_designs, ports, rules_of
from tian_genco.devices.network import Network
from tian_genco.devices.training import Objective, first_stage, second_stage
from tian_genco.learn.designs import Layout
from tian_genco.learn.model import DesignGenerator
from tian_genco.learn.pipeline import Pipeline, routes
from tian_genco.learn.task import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tian.runs.rundir import Run
    from tian_genco.devices.options import DeviceData, DeviceOptions
    from tian_genco.learn.generator import TileGenerator
    from tian_genco.learn.task import Samples

RESULTS, TRAINING = "devices.json", "training.json"
REFERENCE_SEED = 2**30  # offset: reference designs are none of those learned from
SHOWN = 6  # designs of each arm in the gallery
CHUNK = 100  # designs simulated at a time
BASE = "postprocess"


def device(cfg: Any, run: Run) -> list[Measurement]:
    """See `DeviceOptions`. Each training goes on from its checkpoint when the run is resumed; finished ones are read.

    Raises:
        InvalidInput: a gradient that does not apply. RunError: too many failed solves.
    """
    options: DeviceOptions = options_of(cfg)
    torch.set_num_threads(options.threads)
    task = device_task(options.data, seed=int(cfg.seed))
    pipeline = Pipeline(task, options, run, seed=int(cfg.seed))
    run.info(f"data: {task.label}; simulation: a resistor network, no electromagnetics")
    objective = Objective(network_of(options.data), options.objective.targets, options.objective.weight)
    first: dict[bool, TileGenerator] = {}
    samples = {arm: _sampled(arm, pipeline, objective, first) for arm in options.arms}
    found, losses = [], {}
    for arm, drawn in samples.items():
        found += pipeline.validity(drawn, by={"arm": arm})
        found += _judged(pipeline, drawn.grids, arm)
        losses[arm] = simulate(objective, drawn.grids)
        raw = simulate(objective, drawn.raw)
        found += [_mean("simulated loss", losses[arm], arm), _mean("simulated loss without the solver", raw, arm)]
        if arm != BASE and BASE in losses:
            found.append(ratio(losses[arm], losses[BASE], arm))
    data = task.train[: options.sample.n]
    found += [*_judged(pipeline, data, "data"), _mean("simulated loss", simulate(objective, data), "data")]
    _keep(run, task, objective, samples, losses)
    return found


def device_task(data: DeviceData, *, seed: int) -> Task:
    """Rules, and designs made on the spot."""
    rules = rules_of(data.height, data.width, data.brush)
    return Task(
        problem=rules,
        layout=Layout(2, data.height, data.width, binary=True),
        train=make_designs(data.train, seed=seed, rules=rules),
        reference=make_designs(data.reference, seed=REFERENCE_SEED + seed, rules=rules),
        unique=[],
        label=f"wires made on the spot (synthetic, generator version {VERSION}, {data.height} x {data.width}, "
        f"brush {data.brush})",
        title="devices",
        gallery=lambda grids, captions: gallery_svg(
            grids, network_of(data), columns=SHOWN, captions=captions, alt=f"{len(grids)} devices"
        ),
    )


def network_of(data: DeviceData) -> Network:
    """The simulation of designs of this size."""
    source, *sinks = ports(data.height, data.width)
    return Network(height=data.height, width=data.width, source=source, sinks=sinks)


@torch.no_grad()
def simulate(objective: Objective, grids: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Simulated losses `[n]` of designs `[n, H, W]`."""
    x = torch.from_numpy(grids).double()
    return np.concatenate([objective(x[i : i + CHUNK]).numpy() for i in range(0, len(x), CHUNK)])


def ratio(losses: NDArray[np.float64], base: NDArray[np.float64], arm: str) -> Measurement:
    """Mean of `losses` over mean of `base`, both `[n]` from the same noise; interval by the delta method, paired."""
    value = float(losses.mean() / base.mean())
    half = 1.96 * float((losses - value * base).std() / base.mean()) / len(base) ** 0.5
    return Measurement(
        "simulated loss over that of post-processing",
        value,
        "1",
        len(base),
        (value - half, value + half),
        higher_is_better=False,
        by={"arm": arm},
    )


def _sampled(arm: str, pipeline: Pipeline, objective: Objective, first: dict[bool, TileGenerator]) -> Samples:
    """Designs of a generator trained in one way; arms that begin alike share that stage through `first`."""
    aims = pipeline.options.objective.weight > 0 and arm != "through"
    own = objective if aims else None
    start = time.process_time()
    if aims not in first:
        first[aims] = pipeline.fresh()
        first_stage(pipeline, first[aims], own, part="first-objective" if aims else "first")
    net = copy.deepcopy(first[aims])
    half = time.process_time()
    counts = second_stage(pipeline, net, own, solved=arm != BASE, part=arm.replace("+", "-"))
    seconds = {"first": half - start, "second": time.process_time() - half}
    done: dict[str, Any] = pipeline.run.read_json(TRAINING) or {}
    pipeline.run.write_json(TRAINING, {arm: {"seconds": seconds, "counts": counts}} | done)
    net.eval()
    DesignGenerator.of(pipeline.shape, net).save_weights(pipeline.run.path / "generators" / arm)
    return pipeline.samples(net, pipeline.options.train.costs)


def _judged(pipeline: Pipeline, grids: NDArray[np.uint8], arm: str) -> list[Measurement]:
    return pipeline.task.judge(pipeline.options.eval).measure(
        grids,
        by={"arm": arm},
        run=pipeline.run,
        trainer=pipeline.options.trainer,
        seed=pipeline.seed,
        part=f"critic-{arm.replace('+', '-')}",
    )


def _mean(name: str, values: NDArray[np.float64], arm: str) -> Measurement:
    mean, half = float(values.mean()), 1.96 * float(values.std()) / len(values) ** 0.5
    return Measurement(
        name, mean, "1", len(values), (mean - half, mean + half), higher_is_better=False, by={"arm": arm}
    )


def _keep(
    run: Run,
    task: Task,
    objective: Objective,
    samples: dict[str, Samples],
    losses: dict[str, NDArray[np.float64]],
) -> None:
    """Write designs, gallery and what the report tells."""
    grids: dict[str, Any] = {arm: s.grids for arm, s in samples.items()}
    np.savez_compressed(run.path / "designs.npz", **grids)
    shown = {"data": task.train[:SHOWN]} | {arm: s.grids[:SHOWN] for arm, s in samples.items()}
    (run.path / "plots").mkdir(exist_ok=True)
    for arm, few in shown.items():
        captions = [f"loss {v:.3f}" for v in simulate(objective, few)]
        svg = task.gallery(few, captions)
        (run.path / "plots" / f"{arm}.svg").write_text(svg, encoding="utf-8")
    results = {
        "label": task.label,
        "targets": objective.targets,
        "weight": objective.weight,
        "losses": {arm: values.tolist() for arm, values in losses.items()},
        "routes": {arm: routes(s) for arm, s in samples.items()},
    }
    run.write_json(RESULTS, results)
