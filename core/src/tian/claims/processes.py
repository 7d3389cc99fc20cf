"""The processes that runs of a claim live in: a fresh interpreter each, or a fork of one that has imported already.

Importing torch and transformers takes several seconds, more than many a run. On Linux, where a run has one thread, a
*nursery* therefore imports what the runs need and forks a child for each (`nursery.py`). A child begins with the same
memory whatever ran before it, so a run measures what it would measure alone. The import is nobody's run: its seconds are
not counted, so that what a run takes does not depend on which came first.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Protocol

from tian.claims.meter import cpu_seconds

GRACE = 10.0  # seconds between asking a run to stop and killing it


class Process(Protocol):
    """What the runner needs of a run's process."""

    def start(self, argv: list[str], recipe: str) -> None:
        """Begin `tian` with these arguments; `recipe` is what it will need."""

    def poll(self) -> int | None:
        """The exit code, None while it runs."""

    def cpu(self) -> float | None:
        """CPU seconds of this run so far, None where that is not known."""

    def end(self) -> None:
        """Ask it to stop and all it started, kill what does not."""

    def text(self) -> bytes:
        """What it printed, once it has ended."""

    def close(self) -> None:
        """Let go of everything."""


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


class Fresh:
    """An interpreter of its own for each run."""

    def __init__(self, threads: int | None) -> None:
        self._env = environment(threads)

    def start(self, argv: list[str], recipe: str) -> None:
        """Begin; see `Process`."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tian", *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._env,
            start_new_session=True,  # Ctrl-C reaches us first; the run is then asked to stop
        )
        self._text: list[bytes] = []
        self._cpu: float | None = 0.0
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - a pipe
        with self._process.stdout as stream:
            self._text.append(stream.read())

    def poll(self) -> int | None:
        """See `Process`."""
        return self._process.poll()

    def cpu(self) -> float | None:
        """See `Process`; of an ended process what was last seen."""
        if self._process.returncode is None:
            self._cpu = cpu_seconds(self._process.pid)
        return self._cpu

    def end(self) -> None:
        """See `Process`."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            _signal_group(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE)
                return

    def text(self) -> bytes:
        """See `Process`."""
        self._reader.join()
        return b"".join(self._text)

    def close(self) -> None:
        """See `Process`; an ended run holds nothing."""


class Forked:
    """Children of a nursery; one run at a time. A nursery that is lost is replaced by a new one."""

    def __init__(self, threads: int | None) -> None:
        self._env = environment(threads)
        self._nursery: subprocess.Popen[str] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="tian-claims-")
        self._child: int | None = None
        self._code: int | None = None
        self._cpu = 0.0

    def start(self, argv: list[str], recipe: str) -> None:
        """Begin; see `Process`."""
        self._child = self._code = None
        self._cpu = 0.0
        if self._nursery is None or self._nursery.poll() is not None:
            self._replace()
        assert self._nursery is not None  # noqa: S101 - just made
        self._out = Path(self._folder.name) / "stdout"
        self._out.unlink(missing_ok=True)
        order = json.dumps({"argv": argv, "recipe": recipe, "out": str(self._out)})
        with contextlib.suppress(BrokenPipeError):  # poll finds that it has ended
            print(order, file=self._nursery.stdin, flush=True)

    def _replace(self) -> None:
        self._drop()
        self._nursery = subprocess.Popen(
            [sys.executable, "-m", "tian.claims.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=self._env,
            start_new_session=True,
        )
        self._answers: queue.SimpleQueue[dict[str, float]] = queue.SimpleQueue()
        threading.Thread(target=_collect, args=(self._nursery.stdout, self._answers), daemon=True).start()

    def poll(self) -> int | None:
        """See `Process`."""
        assert self._nursery is not None  # noqa: S101 - started
        lost = self._nursery.poll()  # before the answers are read: all of them are there once it has ended
        with contextlib.suppress(queue.Empty):
            while self._code is None:
                answer = self._answers.get_nowait() if lost is None else self._answers.get(timeout=1)
                if "pid" in answer:
                    self._child = int(answer["pid"])
                else:
                    self._code, self._cpu = int(answer["code"]), answer["cpu"]
        if lost is not None and self._code is None and self._child is not None:
            _signal_group(self._child, signal.SIGKILL)  # nobody would hear of its end
        return lost if self._code is None else self._code

    def cpu(self) -> float | None:
        """See `Process`: of the child and all it waited for, exact once it has ended."""
        if self._child is not None and self._code is None:
            self._cpu = cpu_seconds(self._child) or self._cpu
        return self._cpu

    def end(self) -> None:
        """See `Process`. While the nursery still imports there is no child yet: then it goes itself."""
        assert self._nursery is not None  # noqa: S101 - started
        for number in (signal.SIGTERM, signal.SIGKILL):
            _signal_group(self._child if self._child is not None else self._nursery.pid, number)
            until = time.monotonic() + GRACE
            while time.monotonic() < until:
                if self.poll() is not None:
                    return
                time.sleep(0.02)
        self._drop()

    def text(self) -> bytes:
        """See `Process`."""
        try:
            return self._out.read_bytes()
        except OSError:
            return b""

    def _drop(self) -> None:
        if self._nursery is None:
            return
        assert self._nursery.stdin is not None  # noqa: S101 - a pipe
        with contextlib.suppress(OSError):
            self._nursery.stdin.close()
        try:
            self._nursery.wait(1)
        except subprocess.TimeoutExpired:
            _signal_group(self._nursery.pid, signal.SIGKILL)
            self._nursery.wait()
        self._nursery = None

    def close(self) -> None:
        """See `Process`."""
        self._drop()
        self._folder.cleanup()


def _collect(stream: Any, answers: queue.SimpleQueue[dict[str, float]]) -> None:
    with stream, contextlib.suppress(ValueError):
        for line in stream:
            answers.put(json.loads(line))


def environment(threads: int | None) -> dict[str, str]:
    """The environment of a run with so many CPU threads; None leaves that to the environment."""
    env = dict(os.environ)
    if threads is not None:
        env.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads)))
    return env


def new_process(threads: int | None) -> Process:
    """What runs are started with: forks where that is safe, which is on Linux and with a single thread."""
    return Forked(threads) if sys.platform == "linux" and threads == 1 else Fresh(threads)
