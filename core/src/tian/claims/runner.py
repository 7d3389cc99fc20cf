"""Run one task in a process of its own, within what is left of its check's budget; reuse it when it is finished."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tian.runs.files import read_json, write_json

if TYPE_CHECKING:
    import threading
    from pathlib import Path

    from tian.claims.meter import Meter, Meters
    from tian.claims.plan import Task
    from tian.claims.processes import Process

POLL = 0.05  # seconds
NOT_HERE = 4  # exit code of a missing dependency, an unsupported model or an absent device


@dataclass
class Outcome:
    """How a task ended.

    Attributes:
        state: `done`, `skipped` (something it needs is not here), `error`, `over` (budget) or `stopped` (Ctrl-C).
        reason: why it is not done.
        measurements: what it measured.
        seconds: CPU time it took, also when that was in an earlier session.
        reused: True when nothing was run.
    """

    state: str
    reason: str = ""
    measurements: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    reused: bool = False


def state_of(path: Path) -> str:
    """State in the run directory's status.json, `` when there is none that can be read."""
    try:
        return str(read_json(path / "status.json")["state"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def finished(task: Task) -> Outcome | None:
    """What a finished run of this very task measured, or None."""
    if state_of(task.path) != "finished":
        return None
    try:
        rows = read_json(task.path / "metrics.json")
        seconds = float(read_json(task.path / "task.json")["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Outcome("done", measurements=rows, seconds=seconds, reused=True)


def execute(
    task: Task, meter: Meter | Meters, *, process: Process, cancel: threading.Event, fresh: bool = False
) -> Outcome:
    """Run, continue or reuse the task.

    Args:
        task: what to run.
        meter: time of its check, or of the checks that share it.
        process: what to run it in.
        cancel: set by Ctrl-C; the run is asked to stop.
        fresh: run again even if it is finished.
    """
    if not fresh and (known := finished(task)) is not None:
        meter.add(known.seconds)
        return known
    if cancel.is_set():
        return Outcome("stopped", "interrupted")
    if meter.over():
        return Outcome("over", f"not started: over the budget of {meter.budget_s:g} s")
    before = _seconds(task.path) if not fresh else 0.0
    meter.add(before)
    argv = ["run", task.config]
    if not fresh and state_of(task.path) and (task.path / "config.yaml").exists():
        argv += ["--resume", str(task.path)]
    else:
        shutil.rmtree(task.path, ignore_errors=True)
        argv += [*task.overrides, "--dir", str(task.path)]
    ended, began, key = "", time.monotonic(), object()
    process.start([*argv, "--json"], task.recipe)
    while (code := process.poll()) is None:
        _note(meter, key, process, began)
        if cancel.is_set() or meter.over():
            ended = "stopped" if cancel.is_set() else "over"
            process.end()
            break
        time.sleep(POLL)
    _note(meter, key, process, began)
    seconds = before + meter.finish(key)
    if task.path.is_dir():
        with contextlib.suppress(OSError):
            write_json(task.path / "task.json", {"seconds": seconds, "command": ["tian", *argv]})
    if ended:
        why = f"stopped: over the budget of {meter.budget_s:g} s" if ended == "over" else "interrupted"
        return Outcome(ended, why, seconds=seconds)
    return _outcome(process.text(), code or 0, seconds)


def _note(meter: Meter | Meters, key: object, process: Process, began: float) -> None:
    clock = time.monotonic() - began
    used = process.cpu()
    meter.update(key, cpu=clock if used is None else used, clock=clock)


def _seconds(path: Path) -> float:
    try:
        return float(read_json(path / "task.json")["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def _outcome(text: bytes, code: int, seconds: float) -> Outcome:
    try:
        answer = json.loads(text)
    except ValueError:
        answer = {}
    if code == 0 and "measurements" in answer:
        return Outcome("done", measurements=answer["measurements"], seconds=seconds)
    error = answer.get("error", {})
    reason = str(error.get("message", "")) or f"the process ended with code {code}"
    if error.get("where"):
        reason += f" ({error['where']})"
    return Outcome("skipped" if code == NOT_HERE else "error", reason, seconds=seconds)
