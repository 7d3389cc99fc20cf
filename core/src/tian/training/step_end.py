"""What is due at the end of a step, found once and read by the callbacks behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import Callback

from tian.errors import ContractError

if TYPE_CHECKING:
    from lightning import LightningModule

    from tian.training.options import TrainerOptions


def step_of(trainer: Any) -> int:
    """Batches done. Lightning's `global_step` counts each optimizer of a batch and is not used here."""
    return int(trainer.fit_loop.total_batch_idx) + 1


def plain_metrics(module: Any) -> dict[str, float]:
    """The module's `metrics` as floats, `loss` first.

    Raises:
        ContractError: there is no `loss`, or a value is no number.
    """
    found = module.metrics
    name = type(module).__name__
    if not isinstance(found, Mapping) or "loss" not in found:
        raise ContractError(
            f"{name}.metrics has no `loss` after a step: it gave {found!r}",
            where=f"{type(module).__module__}:{name}",
            hint="let `metrics` return a dict with the detached loss of the last step",
        )
    try:
        return {k: float(found[k]) for k in ["loss", *(k for k in found if k != "loss")]}
    except (TypeError, ValueError, RuntimeError) as error:
        raise ContractError(
            f"a value of {name}.metrics is not one number: {error}",
            where=f"{type(module).__module__}:{name}",
            hint="let `metrics` return floats or tensors of one element",
        ) from None


class StepEnd(Callback):
    """The end of a step: runs the module's own hook, finds what is due, then calls the other callbacks, in order.

    They are called from here because Lightning calls each of a step's hooks on each callback, which takes longer than
    what the callbacks do; they get `on_train_start`, `on_train_batch_end`, `on_save_checkpoint` and
    `teardown`.

    Lightning calls a module's `on_train_batch_end` after the callbacks'. A checkpoint of theirs would lack what that
    hook changes (moving averages, target networks), and a resumed run does not call it again: so it comes first here.

    Attributes:
        parts: the callbacks.
        step: batches done.
        logs: a row of metrics is due.
        saves: a checkpoint is due.
        stops: a signal asked for the end, in this process or another.
    """

    def __init__(self, options: TrainerOptions, *, requested: Callable[[], bool]) -> None:
        self._options = options
        self._requested = requested
        self._hook: Callable[..., Any] | None = None
        self._values: dict[str, float] | None = None
        self.parts: list[Callback] = []
        self.step = 0
        self.logs = self.saves = self.stops = False

    @contextmanager
    def before_callbacks(self, module: LightningModule) -> Iterator[None]:
        """Take the module's own hook over for the time of a fit."""
        self._hook = module.on_train_batch_end
        module.on_train_batch_end = lambda *_args, **_kwargs: None
        try:
            yield
        finally:
            del module.on_train_batch_end

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
        """Find what is due and have it done."""
        if self._hook is not None:
            self._hook(outputs, batch, index)
        self._values = None
        self.step = step = step_of(trainer)
        last = step == self._options.max_steps
        stops = self._requested()
        if trainer.world_size > 1:  # all ranks leave at the same step
            stops = trainer.strategy.reduce_boolean_decision(stops, all=False)
        self.stops = stops
        self.logs = last or step % self._options.log_every == 0
        self.saves = last or stops or step % self._options.checkpoint_every == 0
        for part in self.parts:
            part.on_train_batch_end(trainer, module, outputs, batch, index)

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Pass it on."""
        for part in self.parts:
            part.on_train_start(trainer, module)

    def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        """Pass it on."""
        for part in self.parts:
            part.on_save_checkpoint(trainer, module, checkpoint)

    def teardown(self, trainer: Any, module: Any, stage: str) -> None:
        """Pass it on."""
        for part in self.parts:
            part.teardown(trainer, module, stage)

    def values(self, trainer: Any, module: Any) -> dict[str, float]:
        """The step's metrics, averaged over the processes; all of them must ask."""
        if self._values is None:
            self._values = plain_metrics(module)
            if trainer.world_size > 1:
                mine = torch.tensor(list(self._values.values()), dtype=torch.float64, device=module.device)
                mean = trainer.strategy.reduce(mine, reduce_op="mean").tolist()
                self._values = dict(zip(self._values, mean, strict=True))
        return self._values
