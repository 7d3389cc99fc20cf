"""A training that has diverged ends with advice, and leaves the last good checkpoint as it was."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import Callback

from tian.errors import NanError

if TYPE_CHECKING:
    from tian.training.step_end import StepEnd

LOWER = "lower optim.lr or set trainer.clip=1.0 in a new run; the last good checkpoint is kept"


def all_finite(module: torch.nn.Module) -> bool:
    """Whether every parameter is finite; of sharded ones, this process's part."""
    return all(bool(torch.isfinite(getattr(p, "_local_tensor", p)).all()) for p in module.parameters())


class NanGuard(Callback):
    """Looks at the loss when it is logged and at the weights before they are saved; comes before the checkpoint."""

    def __init__(self, end: StepEnd, *, where: str) -> None:
        self._end = end
        self._where = where

    def on_train_batch_end(self, trainer: Any, module: Any, *_args: Any) -> None:
        """Raise NanError when the loss or a weight is not finite."""
        end = self._end
        if not (end.logs or end.saves):
            return
        loss = end.values(trainer, module)["loss"]
        if not math.isfinite(loss):
            raise NanError(f"the training loss is {loss} at step {end.step}", where=self._where, hint=LOWER)
        if end.saves and not trainer.strategy.reduce_boolean_decision(all_finite(module), all=True):
            raise NanError(f"a weight is not finite after step {end.step}", where=self._where, hint=LOWER)
