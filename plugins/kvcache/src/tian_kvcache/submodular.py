"""Greedy choice of a set and the best one by enumeration: the guarantee H2O's theorem starts from, at a size one can check.

For a monotone submodular value, greedy reaches at least 1 - 1/e of the best set of the same size. H2O's own score is a sum
over the kept tokens, for which greedy is optimal at each step; what it loses over time is measured by `kvcache/regret`.
Source: Nemhauser, Wolsey, Fisher 1978; H2O, arXiv 2306.14048, theorem 4.3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Value = Callable[[Sequence[int]], float]


def greedy(value: Value, n: int, k: int) -> list[int]:
    """Choose k of 0..n-1, each the one that adds most; the lowest of equals. In the order of choice."""
    chosen: list[int] = []
    for _ in range(min(k, n)):
        rest = [j for j in range(n) if j not in chosen]
        chosen.append(max(rest, key=lambda j: value([*chosen, j])))
    return chosen


def best_set(value: Value, n: int, k: int) -> list[int]:
    """The best k of 0..n-1, all tried."""
    return list(max(combinations(range(n), k), key=lambda chosen: value(list(chosen))))


def facility_location(near: NDArray[np.floating[Any]]) -> Value:
    """Every row is served by its nearest chosen column: a monotone submodular value. `near [rows, n]`, >= 0."""
    return lambda chosen: float(near[:, list(chosen)].max(axis=1).sum()) if len(chosen) else 0.0
