"""Run one task in a process of its own, within what is left of its check's budget; reuse it when it is finished."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tian.runs.files import read_json, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from tian.claims.plan import Task

POLL = 0.05  # seconds
PATIENCE = 5  # times the budget, by the clock
GRACE = 10.0  # seconds between asking a run to stop and killing it
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


class Meter:
    """Seconds of CPU time spent on one check by all its runs, those under way included; safe for several threads.

    CPU time, because a claim must not fail for what else a machine does; a run that waits instead of working is caught
    by the clock, at `PATIENCE` times the budget.
    """

    def __init__(self, budget_s: float) -> None:
        self.budget_s = budget_s
        self._spent = {"cpu": 0.0, "clock": 0.0}
        self._running: dict[int, dict[str, float]] = {}
        self._lock = threading.Lock()

    def update(self, pid: int, *, cpu: float, clock: float) -> None:
        """What the run `pid` has used so far, seconds."""
        with self._lock:
            self._running[pid] = {"cpu": cpu, "clock": clock}

    def finish(self, pid: int) -> float:
        """The run has ended; returns its CPU seconds."""
        with self._lock:
            used = self._running.pop(pid, {"cpu": 0.0, "clock": 0.0})
            for kind, seconds in used.items():
                self._spent[kind] += seconds
            return used["cpu"]

    def add(self, seconds: float) -> None:
        """Count a run of an earlier session, CPU seconds."""
        with self._lock:
            self._spent["cpu"] += seconds

    def over(self) -> bool:
        """Whether the budget is used up."""
        with self._lock:
            total = {k: self._spent[k] + sum(r[k] for r in self._running.values()) for k in self._spent}
        return total["cpu"] > self.budget_s or total["clock"] > PATIENCE * self.budget_s


def cpu_seconds(pid: int) -> float | None:
    """CPU time of a living process and of its ended children, seconds; None where /proc cannot tell."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:  # noqa: PTH123 - a proc file, read often
            fields = file.read().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


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


def execute(task: Task, meter: Meter, *, threads: int | None, cancel: threading.Event, fresh: bool = False) -> Outcome:
    """Run, continue or reuse the task.

    Args:
        task: what to run.
        meter: time of its check.
        threads: CPU threads of the run; None leaves the environment's choice.
        cancel: set by Ctrl-C; the run is asked to stop.
        fresh: run again even if it is finished.
    """
    if not fresh and (known := finished(task)) is not None:
        meter.add(known.seconds)
        return known
    if meter.over():
        return Outcome("over", f"not started: over the budget of {meter.budget_s:g} s")
    before = _seconds(task.path) if not fresh else 0.0
    meter.add(before)
    argv = [sys.executable, "-m", "tian", "run", task.config]
    if not fresh and state_of(task.path) and (task.path / "config.yaml").exists():
        argv += ["--resume", str(task.path)]
    else:
        shutil.rmtree(task.path, ignore_errors=True)
        argv += [*task.overrides, "--dir", str(task.path)]
    env = dict(os.environ)
    if threads is not None:
        env.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads)))
    ended, began = "", time.monotonic()
    with subprocess.Popen(
        [*argv, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=env,
        start_new_session=True,  # Ctrl-C reaches us first; the run is then asked to stop
    ) as process:
        text: list[bytes] = []
        reader = threading.Thread(target=lambda: text.append(process.stdout.read() if process.stdout else b""))
        reader.start()
        while process.poll() is None:
            clock = time.monotonic() - began
            used = cpu_seconds(process.pid)
            meter.update(process.pid, cpu=clock if used is None else used, clock=clock)
            if cancel.is_set() or meter.over():
                ended = "stopped" if cancel.is_set() else "over"
                _end(process)
                break
            time.sleep(POLL)
        reader.join()
    seconds = before + meter.finish(process.pid)
    if task.path.is_dir():
        with contextlib.suppress(OSError):
            write_json(task.path / "task.json", {"seconds": seconds, "command": argv[3:]})
    if ended:
        why = f"stopped: over the budget of {meter.budget_s:g} s" if ended == "over" else "interrupted"
        return Outcome(ended, why, seconds=seconds)
    return _outcome(b"".join(text), process.returncode, seconds)


def _seconds(path: Path) -> float:
    try:
        return float(read_json(path / "task.json")["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the run and all it started, SIGKILL if that does not help."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
            return


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
