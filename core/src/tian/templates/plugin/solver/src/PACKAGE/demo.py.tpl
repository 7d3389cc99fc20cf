"""The run `@@name@@/demo`: random knapsacks, solved and compared with the exact optimum."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tian.config.compose import options_of
from tian.spec import Instance
from tian.types import Measurement

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from tian.runs.rundir import Run
    from @@package@@.demo_options import DemoOptions


def knapsack(items: int, rng: np.random.Generator) -> Instance:
    """Whole weights and values within 10..99; a third of all fits."""
    weights = rng.integers(10, 100, items)
    cost = -(weights + rng.integers(-5, 6, items)).astype(np.float64)  # value goes with weight: hard for greed
    return Instance("knapsack", cost, {"weights": weights.tolist(), "capacity": int(weights.sum()) // 3})


def optimum(inst: Instance) -> float:
    """The least cost, by dynamic programming over the whole capacities: independent of the solver."""
    best = np.zeros(inst.payload["capacity"] + 1)
    for cost, weight in zip(inst.cost, inst.payload["weights"], strict=True):
        if weight < len(best):
            best[weight:] = np.minimum(best[weight:], best[: len(best) - weight] + cost)
    return float(best[-1])


def demo(config: DictConfig, run: Run) -> list[Measurement]:
    """Measure the share of instances that are solved to the optimum."""
    options: DemoOptions = options_of(config)
    solver = run.load("solver", options.subject)
    rng = np.random.default_rng(config.seed)
    solved, seconds = [], []
    for _ in range(options.instances):
        inst = knapsack(options.items, rng)
        answer = solver.solve(inst, time_limit_s=30.0, seed=config.seed)
        solved.append(answer.x is not None and abs(answer.objective - optimum(inst)) < 1e-6)
        seconds.append(answer.seconds)
        run.log_metrics({"status": answer.status, "objective": answer.objective, "bound": answer.bound})
    return [
        Measurement("solved", float(np.mean(solved)), n=len(solved), higher_is_better=True),
        Measurement("time", float(np.mean(seconds)), "s", n=len(seconds), higher_is_better=False),
    ]
