"""The run `@@name@@/demo`: train the model on a sine and test it on points it has not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tian.config.compose import options_of
from tian.types import Measurement

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from torch import Tensor

    from tian.runs.rundir import Run
    from @@package@@.demo_options import DemoOptions


def points(n: int, generator: torch.Generator) -> dict[str, Tensor]:
    """`x [n, 1]` within -1..1 and `target [n]`, sin(3 x), float32."""
    x = torch.rand(n, 1, generator=generator) * 2 - 1
    return {"x": x, "target": (3 * x[:, 0]).sin()}


def demo(config: DictConfig, run: Run) -> list[Measurement]:
    """Measure the error on new points, as a share of the error of always giving the mean."""
    options: DemoOptions = options_of(config)
    model = run.load("model", options.subject)
    generator = torch.Generator().manual_seed(config.seed)
    train, test = points(256, generator), points(256, generator)
    optimizer = torch.optim.Adam(model.module().parameters(), lr=options.lr)
    for step in range(options.steps):
        loss = model.forward(train)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.log_metrics({"step": step, "loss": float(loss.detach())})
    model.save_weights(run.path / "weights")
    with torch.no_grad():
        error = float(model.forward(test)["loss"] / test["target"].var())
    return [Measurement("relative error", error, n=len(test["x"]), higher_is_better=False)]
