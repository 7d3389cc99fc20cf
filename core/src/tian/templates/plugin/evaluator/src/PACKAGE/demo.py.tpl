"""The run `@@name@@/demo`: do the intervals contain the truth? The subject's share of right answers is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tian.config.compose import options_of
from tian.types import Measurement

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from tian.runs.rundir import Run
    from @@package@@.demo_options import DemoOptions


def demo(config: DictConfig, run: Run) -> list[Measurement]:
    """Evaluate a calculator that is right at a known rate, often, and count the intervals that contain the rate."""
    options: DemoOptions = options_of(config)
    evaluator = run.load("evaluator", options.subject)
    rng = np.random.default_rng(config.seed)
    covered, widths = [], []
    for i in range(options.evaluations):
        data, answers = [], {}
        for a, b in rng.integers(0, 1_000_000, (options.questions, 2)).tolist():
            data.append((f"{a} + {b}", str(a + b)))
            answers[data[-1][0]] = str(a + b) if rng.random() < options.right else str(a + b + 1)
        rows = [evaluator.measure(answers.get, s) for s in evaluator.samples(data, limit=None, seed=i)]
        (found,) = evaluator.aggregate(rows)
        low, high = found.ci95
        covered.append(low <= options.right <= high)
        widths.append(high - low)
    return [
        Measurement("coverage", float(np.mean(covered)), n=len(covered), higher_is_better=True),
        Measurement("width", float(np.mean(widths)), n=len(widths), higher_is_better=False),
    ]
