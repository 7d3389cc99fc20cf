"""What a training tells while it goes on: rows of metrics.jsonl, loggers, the progress bar, speed, a heartbeat."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import Callback

from tian.files import write_atomic
from tian.training.files import full_disk
from tian.training.step_end import step_of

if TYPE_CHECKING:
    from tian.runs.rundir import Run
    from tian.training.options import TrainerOptions
    from tian.training.step_end import StepEnd

BEAT_SECONDS = 10.0


def rewind_rows(file: Path, *, step: int, part: str) -> list[dict[str, Any]]:
    """Drop the rows of `part` after `step`, and any line a crash tore; what stays is not rewritten.

    Returns:
        The rows of `part` that stay.
    """
    if not file.exists():
        return []
    old = file.read_bytes()
    lines, mine = [], []
    for line in old.split(b"\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        own = row.get("part", "") == part
        if own and row.get("step", 0) > step:
            continue
        lines.append(line + b"\n")
        if own:
            mine.append(row)
    if b"".join(lines) != old:
        write_atomic(file, b"".join(lines))
    return mine


class MetricRows(Callback):
    """A row every `log_every` steps, and one at the last: step, loss, lr (with one optimizer), other metrics."""

    def __init__(self, run: Run, options: TrainerOptions, end: StepEnd, *, part: str) -> None:
        self._run = run
        self._options = options
        self._end = end
        self._part = part
        self._bar: Any = None

    def on_train_start(self, trainer: Any, _module: Any) -> None:
        """Drop the rows past the checkpoint, which are about to be written again, and show the progress."""
        if not trainer.is_global_zero:
            return
        step = step_of(trainer)
        with full_disk(self._run.path, "metrics.jsonl"):
            kept = rewind_rows(self._run.path / "metrics.jsonl", step=step, part=self._part)
        for row in kept:
            self._tell_loggers(trainer, row, fresh=False)
        self._bar = self._run.progress(self._options.max_steps, f"training {self._part}".strip(), done=step)
        self._bar.__enter__()

    def on_train_batch_end(self, trainer: Any, module: Any, *_args: Any) -> None:
        """Write the row if one is due."""
        if self._bar is not None:
            self._bar.advance(1)
        if not self._end.logs:
            return
        values = dict(self._end.values(trainer, module))
        row: dict[str, Any] = {"step": self._end.step, "loss": values.pop("loss")}
        if len(trainer.optimizers) == 1:
            row["lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        row |= values
        if self._part:
            row["part"] = self._part
        if trainer.is_global_zero:
            with full_disk(self._run.path, f"the metrics of step {self._end.step}"):
                self._run.log_metrics(row)
            self._tell_loggers(trainer, row, fresh=True)

    def teardown(self, _trainer: Any, _module: Any, stage: str) -> None:
        """End the progress bar."""
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None

    @staticmethod
    def _tell_loggers(trainer: Any, row: dict[str, Any], *, fresh: bool) -> None:
        """Hand a row to the loggers; rows of before a resume only to those that begin their file anew."""
        numbers = {k: v for k, v in row.items() if k not in ("step", "part")}
        for logger in trainer.loggers:
            if fresh or getattr(logger, "starts_over", False):
                logger.log_metrics(numbers, step=row["step"])
                logger.save()


class Heartbeat(Callback):
    """Refreshes the heartbeat of status.json, at most every 10 s, so that others can see that the run goes on."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._last = time.monotonic()

    def on_train_batch_end(self, trainer: Any, *_args: Any) -> None:
        """Beat when it is time."""
        if trainer.is_global_zero and time.monotonic() - self._last >= BEAT_SECONDS:
            self._last = time.monotonic()
            with full_disk(self._run.path, "status.json"):
                self._run.beat()


class Throughput(Callback):
    """Batches and tokens a second since the row before, in throughput.jsonl.

    Not in metrics.jsonl: that file must come out the same however often a run was interrupted.
    """

    def __init__(self, run: Run, end: StepEnd) -> None:
        self._run = run
        self._end = end
        self._batches = self._tokens = 0
        self._since = 0.0

    def on_train_start(self, *_args: Any) -> None:
        """Start the clock."""
        self._since = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, _module: Any, _outputs: Any, batch: Any, _index: int) -> None:
        """Count the batch; write when a row is due."""
        self._batches += 1
        if isinstance(batch, dict) and hasattr(batch.get("input_ids"), "numel"):
            self._tokens += batch["input_ids"].numel() * trainer.world_size
        if not (self._end.logs and trainer.is_global_zero):
            return
        took = time.perf_counter() - self._since
        row: dict[str, float] = {"step": self._end.step, "batches_per_s": self._batches / took}
        if self._tokens:
            row["tokens_per_s"] = self._tokens / took
        with full_disk(self._run.path, "throughput.jsonl"), (self._run.path / "throughput.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        self._batches = self._tokens = 0
        self._since = time.perf_counter()
