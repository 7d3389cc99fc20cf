"""CPU time of a check, counted over all its runs while they go on."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

PATIENCE = 5  # times the budget, by the clock


class Meter:
    """Seconds of CPU time spent on one check by all its runs, those under way included; safe for several threads.

    CPU time, because a claim must not fail for what else a machine does; a run that waits instead of working is caught
    by the clock, at `PATIENCE` times the budget.
    """

    def __init__(self, budget_s: float) -> None:
        self.budget_s = budget_s
        self._spent = {"cpu": 0.0, "clock": 0.0}
        self._running: dict[object, dict[str, float]] = {}
        self._lock = threading.Lock()

    def update(self, run: object, *, cpu: float, clock: float) -> None:
        """What the run has used so far, seconds; `run` is anything that tells it from others."""
        with self._lock:
            self._running[run] = {"cpu": cpu, "clock": clock}

    def finish(self, run: object) -> float:
        """The run has ended; returns its CPU seconds."""
        with self._lock:
            used = self._running.pop(run, {"cpu": 0.0, "clock": 0.0})
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


class Meters:
    """The meters of all checks that share a run: each counts it in full, and it may go on while one of them allows it."""

    def __init__(self, meters: Sequence[Meter]) -> None:
        self._meters = meters

    @property
    def budget_s(self) -> float:
        """The largest of the budgets, seconds."""
        return max(m.budget_s for m in self._meters)

    def update(self, run: object, *, cpu: float, clock: float) -> None:
        """See `Meter.update`."""
        for m in self._meters:
            m.update(run, cpu=cpu, clock=clock)

    def finish(self, run: object) -> float:
        """See `Meter.finish`."""
        return max([m.finish(run) for m in self._meters])  # a list: every one of them must be told

    def add(self, seconds: float) -> None:
        """See `Meter.add`."""
        for m in self._meters:
            m.add(seconds)

    def over(self) -> bool:
        """Whether every one of the budgets is used up."""
        return all(m.over() for m in self._meters)


def cpu_seconds(pid: int) -> float | None:
    """CPU time of a living process and of its ended children, seconds; None where /proc cannot tell."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:  # noqa: PTH123 - a proc file, read often
            fields = file.read().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None
