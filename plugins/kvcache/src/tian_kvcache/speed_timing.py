"""Measure several ways in turns, so that what a shared machine does to one it does to all; ratios by round."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass
class Timed:
    """One way to do a step.

    Attributes:
        label: e.g. `streaming 1024`.
        step: does one step.
        batch: rows a step serves; it makes one token for each.
        steps: steps a turn.
        bytes_: bytes a step must read at least.
        flops: operations a step must do at least.
        cache_bytes: allocated for keys, values and bookkeeping.
    """

    label: str
    step: Callable[[], object]
    batch: int
    steps: int
    bytes_: float
    flops: float
    cache_bytes: int


class Clock:
    """CPU time of this process where one thread works, else the wall clock with the device waited for."""

    def __init__(self, device: torch.device, threads: int) -> None:
        self.cpu_time = device.type == "cpu" and threads == 1
        self._cuda = device.type == "cuda"

    @property
    def name(self) -> str:
        """What is measured, for reports."""
        return "CPU time, one thread" if self.cpu_time else "wall clock"

    def now(self) -> float:
        """Seconds."""
        if self._cuda:
            torch.cuda.synchronize()
        return time.process_time() if self.cpu_time else time.perf_counter()

    def time(self, work: Callable[[], object]) -> float:
        """Seconds one call takes."""
        start = self.now()
        work()
        return self.now() - start


@torch.inference_mode()
def in_turns(
    ways: Sequence[Timed], *, rounds: int, clock: Clock, advance: Callable[[], object] = lambda: None
) -> dict[str, list[float]]:
    """Seconds a step of each way, one entry a round; every round begins with another way.

    Args:
        ways: what is compared.
        rounds: turns of each.
        clock: how time is taken.
        advance: called after each round.
    """
    found: dict[str, list[float]] = {way.label: [] for way in ways}
    for way in ways:
        way.step()  # warms up
    for i in range(rounds):
        for j in range(len(ways)):
            way = ways[(i + j) % len(ways)]
            start = clock.now()
            for _ in range(way.steps):
                way.step()
            found[way.label].append((clock.now() - start) / way.steps)
        advance()
    return found


def ratios(above: Sequence[float], below: Sequence[float], *, factor: float = 1.0) -> list[float]:
    """`factor * above / below`, round by round."""
    return [factor * a / b for a, b in zip(above, below, strict=True)]


def quartiles(x: Sequence[float]) -> tuple[float, float]:
    """First and third quartile; both the value itself when there is one."""
    if len(x) < 2:
        return x[0], x[0]
    low, _, high = statistics.quantiles(x, n=4, method="inclusive")
    return low, high


def median_interval(x: Sequence[float]) -> tuple[float, float] | None:
    """95 % interval of the median from order statistics, no distribution assumed; None for fewer than 6 values.

    Example:
        >>> median_interval([3.0, 1.0, 2.0, 5.0, 4.0, 6.0])
        (1.0, 6.0)
    """
    n, tail, k = len(x), 0.0, 0
    while k < n // 2 and tail + math.comb(n, k) / 2**n <= 0.025:
        tail += math.comb(n, k) / 2**n
        k += 1
    ordered = sorted(x)
    return (ordered[k - 1], ordered[n - k]) if k else None
