"""Trainers of transformers and trl in a run directory: same rows, same heartbeat, same way to stop and to resume.

What is trusted: only checkpoints in the run's own directory are loaded, weights as safetensors, the rest (optimizer,
schedule, generators, which transformers pickles) with `torch.load(weights_only=True)`, which builds tensors, numbers
and arrays and calls nothing else. Whoever can write in the run directory can still change what is trained.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from transformers import TrainerCallback

from tian.errors import DataError, NanError
from tian.training.checkpoints import archive_damage
from tian.training.files import full_disk
from tian.training.nan_guard import LOWER, all_finite
from tian.training.rows import BEAT_SECONDS, rewind_rows
from tian.training.stop import GracefulStop

if TYPE_CHECKING:
    from tian.runs.rundir import Run

NAMES = {"learning_rate": "lr"}  # ours for theirs
# Clock times, and counts that begin anew with the process: they differ from one resume to the next.
LEFT_OUT = ("runtime", "per_second", "step_time", "total_flos", "num_tokens", "num_input_tokens_seen")


def row_of(step: int, logs: dict[str, Any]) -> dict[str, Any] | None:
    """A row of metrics.jsonl from what a trainer logs, or None for its closing summary.

    Example:
        >>> row_of(3, {"loss": 1.5, "learning_rate": 0.1, "train_steps_per_second": 9.0})
        {'step': 3, 'loss': 1.5, 'lr': 0.1}
    """
    if "train_runtime" in logs:
        return None
    kept = {NAMES.get(k, k): v for k, v in logs.items() if not any(word in k for word in LEFT_OUT)}
    return {"step": step, **kept} if kept else None


class RunCallback(TrainerCallback):
    """Ties a Trainer to a run directory; `train` adds it.

    Args:
        run: receives metrics.jsonl, the heartbeat and the progress.
        stop: holds signals back; a waiting one makes the trainer save and stop at the end of the step.
    """

    def __init__(self, run: Run, stop: GracefulStop | None = None) -> None:
        self._run = run
        self._stop = stop or GracefulStop()
        self._bar: Any = None
        self._beat = time.monotonic()

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """Drop the rows past the checkpoint: they are about to be written again."""
        if state.is_world_process_zero:
            rewind_rows(self._run.path / "metrics.jsonl", step=state.global_step, part="")
            self._bar = self._run.progress(state.max_steps, "training", done=state.global_step)
            self._bar.__enter__()

    def on_step_end(self, _args: Any, state: Any, control: Any, *, model: Any = None, **_kwargs: Any) -> None:
        """Beat, count, look at the weights before they are saved, and stop when a signal asked for it."""
        if self._stop.requested():
            control.should_save = control.should_training_stop = True
        if control.should_save and model is not None and not all_finite(model):
            raise NanError(
                f"a weight is not finite after step {state.global_step}", where=str(self._run.path), hint=LOWER
            )
        if self._bar is not None:
            self._bar.advance(1)
            if time.monotonic() - self._beat >= BEAT_SECONDS:
                self._beat = time.monotonic()
                self._run.beat()

    def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, Any] | None = None, **_kwargs: Any) -> None:
        """Write the row; a loss that is not finite ends the run."""
        row = row_of(state.global_step, logs or {})
        if row is None:
            return
        loss = row.get("loss", 0.0)
        if not math.isfinite(loss):
            raise NanError(
                f"the training loss is {loss} at step {state.global_step}", where=str(self._run.path), hint=LOWER
            )
        if state.is_world_process_zero:
            with full_disk(self._run.path, f"the metrics of step {state.global_step}"):
                self._run.log_metrics(row)

    def on_train_end(self, *_args: Any, **_kwargs: Any) -> None:
        """End the progress bar."""
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None


def _problem(folder: Path) -> str | None:
    """What makes a checkpoint folder unreadable; its last file, trainer_state.json, tells that all were written."""
    try:
        json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
        for weights in folder.glob("*.safetensors"):
            with safe_open(weights, "pt"):
                pass
    except (OSError, ValueError, SafetensorError) as error:
        return f"{type(error).__name__}: {error}"
    found = {p.name: archive_damage(p) for p in [*folder.glob("*.pt"), *folder.glob("*.pth")]}
    return next((f"{name}: {wrong}" for name, wrong in found.items() if wrong), None)


def newest_folder(folder: Path, run: Run) -> Path | None:
    """The newest `checkpoint-N` that can be read, or None when there is none at all.

    Raises:
        DataError: there are some, and none can be read.
    """
    found = sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]), reverse=True)
    for path in found:
        wrong = _problem(path)
        if wrong is None:
            return path
        run.info(f"warning: {path.name} is not complete ({wrong}); it is passed over")
    # A run that was killed while it saved its first one has nothing to lose and starts over.
    if len(found) > 1 or any((p / "trainer_state.json").exists() for p in found):
        raise DataError(
            f"no checkpoint can be read: {', '.join(p.name for p in found)}",
            where=str(folder),
            hint=f"put back a copy of one, or delete them to start this training over: rm -r {folder}/checkpoint-*",
        )
    return None


def train(trainer: Any, run: Run) -> None:
    """Train with a `transformers.Trainer` or one of trl, from the newest checkpoint of the run when there is one.

    Checkpoints go to `checkpoints/` of the run, every `args.save_steps` steps, at the last step, and when a signal
    asks to stop; two are kept. On a CPU with one process a run that was killed and resumed ends with the weights of
    one that was not; its rows are the same too when `args.logging_steps` divides the steps it was stopped at,
    since a trainer's `loss` is the mean since its last row in this process.

    Args:
        trainer: its `args.output_dir`, save settings and NaN filter are set here.
        run: the run directory.

    Raises:
        NanError: the loss or a weight is not finite; no checkpoint holds such a weight.
        KeyboardInterrupt, SystemExit(143): Ctrl-C or SIGTERM, after the step and its checkpoint.
        DataError: no checkpoint can be read.
    """
    folder = run.path / "checkpoints"
    args = trainer.args
    args.output_dir = str(folder)
    args.save_strategy = type(args.save_strategy)("steps")
    args.save_total_limit = 2
    args.save_only_model = False
    args.logging_nan_inf_filter = False  # it would print a mean instead of the NaN
    folder.mkdir(exist_ok=True)
    newest = newest_folder(folder, run)
    stop = GracefulStop()
    trainer.add_callback(RunCallback(run, stop))
    with stop.held():
        trainer.train(resume_from_checkpoint=str(newest) if newest else None)
