"""`fit`: the one training loop, a Lightning Trainer built from the config and tied to a run directory."""

from __future__ import annotations

import logging
import math
import signal
import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from tian.errors import InvalidInput, NanError, NoDevice

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tian.runs.rundir import Run
    from tian.training.loader import StepLoader
    from tian.training.module import TianModule
    from tian.training.options import TrainerOptions


LOWER = "lower optim.lr or set trainer.clip=1.0 in a new run; the last good checkpoint is kept"


def _finite(module: torch.nn.Module) -> bool:
    return all(bool(torch.isfinite(p).all()) for p in module.parameters())


@contextmanager
def _ctrl_c() -> Iterator[None]:
    """Let Ctrl-C stay a KeyboardInterrupt: Lightning makes `exit(1)` of it and leaves SIGINT ignored."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGINT, handler)


class _RunLog(Callback):
    """Rows of metrics.jsonl, the progress bar, and a stop at the first loss that is not finite."""

    def __init__(self, run: Run, options: TrainerOptions) -> None:
        self.run = run
        self.options = options
        self.bar: Any = None

    def on_train_start(self, trainer: Any, _module: Any) -> None:
        self.run.rewind_metrics(trainer.global_step)  # rows past the checkpoint are about to be written again
        self.bar = self.run.progress(self.options.max_steps, "training", done=trainer.global_step)
        self.bar.__enter__()

    def on_train_batch_end(self, trainer: Any, module: Any, _outputs: Any, _batch: Any, _index: int) -> None:
        step = trainer.global_step
        self.bar.advance(1)
        logs = step % self.options.log_every == 0 or step == self.options.max_steps
        saves = step % self.options.checkpoint_every == 0
        if not (logs or saves):
            return
        loss = float(module.last_loss)
        if not math.isfinite(loss):
            raise NanError(f"the training loss is {loss} at step {step}", where=str(self.run.path), hint=LOWER)
        if saves and not _finite(module):  # the checkpoint callback comes after this one
            raise NanError(f"a weight is not finite after step {step}", where=str(self.run.path), hint=LOWER)
        if logs:
            lr = trainer.optimizers[0].param_groups[0]["lr"]
            self.run.log_metrics({"step": step, "loss": loss, "lr": lr})

    def teardown(self, _trainer: Any, _module: Any, stage: str) -> None:
        if self.bar is not None:
            self.bar.__exit__(None, None, None)
            self.bar = None


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the highest step in `folder`, or None."""
    found = sorted(folder.glob("step-*.ckpt"))
    return found[-1] if found else None


def _trainer(options: TrainerOptions, callbacks: list[Callback]) -> lightning.Trainer:
    try:
        return lightning.Trainer(
            accelerator=options.accelerator,
            devices=options.devices,
            precision=options.precision,
            max_steps=options.max_steps,
            gradient_clip_val=options.clip or None,
            callbacks=callbacks,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
    except MisconfigurationException as error:
        raise NoDevice(
            f"the accelerator {options.accelerator!r} with {options.devices} devices is not available: "
            f"{str(error).splitlines()[0]}",
            where="trainer.accelerator, trainer.devices",
            hint="set trainer.accelerator=cpu trainer.devices=1",
        ) from None
    except ValueError as error:
        raise InvalidInput(
            f"the trainer refuses these options: {str(error).splitlines()[0]}",
            where="trainer",
            hint="see `tian show lm/train` for accelerator, devices and precision",
        ) from None


def fit(module: TianModule, loader: StepLoader, options: TrainerOptions, *, run: Run, seed: int) -> None:
    """Train `module` on `loader`, from the newest checkpoint of the run directory when there is one.

    Args:
        module: what to train; its parameters are changed in place.
        loader: batches, in an order that depends on the seed alone.
        options: trainer options.
        run: receives metrics.jsonl, progress and checkpoints/.
        seed: seeds python, numpy and torch before the first step.

    Raises:
        NanError: the loss or a weight stopped being finite; no checkpoint holds such a weight.
        KeyboardInterrupt: Ctrl-C; resuming continues from the newest checkpoint.
        NoDevice: the accelerator is not present. InvalidInput: no such accelerator or precision.
    """
    lightning.seed_everything(seed, verbose=False)
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    folder = run.path / "checkpoints"
    keep_two = ModelCheckpoint(
        dirpath=folder,
        filename="step-{step:07d}",
        auto_insert_metric_name=False,
        every_n_train_steps=options.checkpoint_every,
        monitor="step",
        mode="max",
        save_top_k=2,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's hints on workers and log intervals do not apply to a StepLoader
        trainer = _trainer(options, [keep_two, _RunLog(run, options)])
        with _ctrl_c():
            trainer.fit(module, loader, ckpt_path=latest_checkpoint(folder), weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    if not _finite(module):
        raise NanError("a weight is not finite after training", where=str(run.path), hint=LOWER)
