"""How every part here is trained: plain Adam through the framework's `fit`."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from tian.training.fit import fit
from tian.training.loader import StepLoader
from tian.training.module import TianModule, lr_share
from tian.training.options import OptimOptions
from tian_genco.learn.match import generator_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from tian.runs.rundir import Run
    from tian.training.options import TrainerOptions


class Adam(TianModule):
    """`TianModule` without weight decay; all numbers the model returns beside the loss are metrics."""

    @property
    def metrics(self) -> dict[str, Tensor]:
        """The numbers of the last step."""
        return self.last

    def training_step(self, batch: dict[str, Tensor], _index: int) -> Tensor:
        """Loss of one batch."""
        found = self.model(**batch)
        self.last = {name: value.detach() for name, value in found.items()}
        loss: Tensor = found["loss"]
        return loss

    def configure_optimizers(self) -> Any:
        """Adam on what is trained, and the schedule of the options."""
        optimizer = torch.optim.Adam([p for p in self.model.parameters() if p.requires_grad], lr=self.optim.lr)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: lr_share(step, steps=self.steps, warmup=0.0, final=self.optim.final)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def train(
    model: nn.Module,
    batch: Callable[[torch.Generator], dict[str, Tensor]],
    *,
    steps: int,
    lr: float,
    trainer: TrainerOptions,
    run: Run,
    seed: int,
    part: str,
    like: str = "",
    final: float = 1.0,
) -> None:
    """Train `model` in place, from its checkpoint when the run is resumed; leaves it in evaluation mode.

    Args:
        model: its forward takes what `batch` returns as keywords and returns `loss` and other scalars.
        batch: draws a batch; what it draws is a function of (seed, part, step).
        steps: of training.
        lr: learning rate.
        trainer: options; its `max_steps` plays no part.
        run: receives rows and checkpoints.
        seed: of the run.
        part: names the training within the run.
        like: takes the batches of the part of this name, so that trainings can be compared pair by pair.
        final: share of the learning rate at the last step, a cosine away; 1: constant.
    """
    stream = (seed + zlib.crc32((like or part).encode())) % 2**32

    def at(step: int) -> dict[str, Tensor]:
        return batch(generator_of(stream, step))

    module = Adam(model, optim=OptimOptions(lr=lr, final=final), steps=steps)
    model.train()
    fit(module, StepLoader(at, steps=steps), replace(trainer, max_steps=steps), run=run, seed=stream, part=part)
    model.eval()
