"""Progress on stderr: a bar on a terminal, a line every 30 s elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any, Self

EVERY_SECONDS = 30.0


class Progress:
    """Context manager around long work.

    Args:
        total: how many units there are.
        desc: what is being done.
        done: units already done by an earlier, interrupted run.
    """

    def __init__(self, total: int, desc: str, *, done: int = 0) -> None:
        self.total = total
        self.desc = desc
        self.done = done
        self._bar: Any = None
        self._task: Any = None
        self._spoke = 0.0
        self._start = 0.0
        self._start_done = done

    def __enter__(self) -> Self:
        self._start = self._spoke = time.monotonic()
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(self.desc, total=self.total, completed=self.done)
        else:
            self._say()
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._spoke > self._start or self.done >= self.total:
            self._say()

    def advance(self, n: int = 1, desc: str | None = None) -> None:
        """Count `n` more units, optionally under another description."""
        self.done += n
        self.desc = desc or self.desc
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, description=self.desc)
        elif time.monotonic() - self._spoke >= EVERY_SECONDS:
            self._say()

    def _say(self) -> None:
        self._spoke = time.monotonic()
        took = self._spoke - self._start
        rate = (self.done - self._start_done) / took if took > 0 else 0.0
        left = (
            f", about {(self.total - self.done) / rate:.0f} s left" if 0 < self.done < self.total and rate > 0 else ""
        )
        print(f"{self.desc}: {self.done}/{self.total}{left}", file=sys.stderr, flush=True)  # noqa: T201
