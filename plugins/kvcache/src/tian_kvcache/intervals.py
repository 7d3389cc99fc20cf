"""Intervals of means and of shares, and McNemar's exact test of paired answers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

Z = 1.959964  # two-sided 95 %


def wilson(right: int, n: int) -> tuple[float, float]:
    """95 % interval of a share; within 0..1 and sensible at both ends. Source: Wilson, 1927.

    Example:
        >>> [round(x, 3) for x in wilson(8, 10)]
        [0.49, 0.943]
    """
    share, z2 = right / n, Z * Z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))  # rounding stays outside


def mean_interval(x: Tensor | Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """Mean of n numbers and its 95 % normal interval, None for one number. `x [n]`."""
    x = torch.as_tensor(x, dtype=torch.float64)
    mean = float(x.mean())
    if x.numel() < 2:
        return mean, None
    half = Z * float(x.std()) / math.sqrt(x.numel())
    return mean, (mean - half, mean + half)


def mcnemar(ours: Sequence[bool], theirs: Sequence[bool]) -> float:
    """Exact two-sided p that two ways of answering the same questions are equally often right.

    Only questions on which one is right and the other wrong tell them apart. Source: McNemar, 1947, binomial form.

    Example:
        >>> mcnemar([True] * 5 + [False], [False] * 5 + [False])
        0.0625
    """
    won = sum(a and not b for a, b in zip(ours, theirs, strict=True))
    lost = sum(b and not a for a, b in zip(ours, theirs, strict=True))
    n = won + lost
    tail = sum(math.comb(n, i) for i in range(min(won, lost) + 1))
    return min(1.0, tail / float(2 ** (n - 1)) if n else 1.0)
