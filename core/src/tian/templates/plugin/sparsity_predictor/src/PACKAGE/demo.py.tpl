"""The run `@@name@@/demo`: predict which neurons of a random layer are the most active."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tian.config.compose import options_of
from tian.spec import Site, Trace
from tian.types import Measurement

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from tian.runs.rundir import Run
    from @@package@@.demo_options import DemoOptions

D, UNITS, K = 16, 64, 16


def demo(config: DictConfig, run: Run) -> list[Measurement]:
    """Measure the recall of the K most active of the neurons, on tokens that were not learned from."""
    options: DemoOptions = options_of(config)
    predictor = run.load("sparsity_predictor", options.subject)
    generator = torch.Generator().manual_seed(config.seed)
    weight = torch.randn(D, UNITS, generator=generator)
    x = torch.randn(options.tokens + options.tokens // 2, D, generator=generator)
    magnitude = (x @ weight).relu()
    site = Site("neuron", 0, UNITS)
    learn, test = x[: options.tokens], x[options.tokens :]
    if options.shuffled:
        learn = learn[torch.randperm(len(learn), generator=generator)]
    report = predictor.fit([Trace(site, learn, magnitude[: options.tokens])], seed=config.seed)
    units = predictor.select(site, test, K).long()
    picked = torch.zeros(len(test), UNITS).scatter(1, units, 1.0)
    recall = float(picked.gather(1, magnitude[options.tokens :].topk(K, dim=1).indices).mean())
    run.write_json("fit.json", dict(report.recall))
    return [
        Measurement("recall", recall, n=len(test), higher_is_better=True),
        Measurement("predictor", float(predictor.cost(site, 1).bytes_), "B", higher_is_better=False),
    ]
