"""Distances and paths of a batch of grids, compiled: passes over the grid instead of a heap."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@njit(cache=True)
def sweep(costs: Floats) -> Floats:
    """Shortest paths by Gauss-Seidel passes, forward and backward in turns, until a pass changes nothing.

    A forward pass takes the cells in reading order and relaxes each from the three above and the one on the left, with
    values of the same pass; a backward pass is the same from the other end. A path is found in as many passes as it
    changes between these two sorts of moves. Without branches, since what changes next cannot be predicted.

    Args:
        costs: `[B, H, W]` float64, C-contiguous, finite and nowhere below `relax.least_cost`.

    Returns:
        `[B, H, W]` float64 zeros and ones. Distances and ties are those of `relax.min_plus` and `relax.trace`.
    """
    B, H, W = costs.shape
    paths = np.zeros((B, H, W))
    d = np.empty((H + 2, W + 2))
    for b in range(B):
        c = costs[b]
        d[:] = np.inf
        d[1, 1] = c[0, 0]
        _pass(c, d)
        while _pass(c[::-1, ::-1], d[::-1, ::-1]) and _pass(c, d):
            pass
        _walk_back(d, paths[b])
    return paths


@njit(cache=True)
def _pass(c: Floats, d: Floats) -> bool:
    """Relax `d [H+2, W+2]` in reading order; says whether that changed it."""
    H, W = c.shape
    changed = False
    for i in range(H):
        cost, above, row = c[i], d[i], d[i + 1]
        left = np.inf
        for j in range(W):
            near = min(above[j], above[j + 1], above[j + 2], left)
            old = row[j + 1]
            left = min(near + cost[j], old)
            changed |= left < old
            row[j + 1] = left
    return changed


@njit(cache=True)
def _walk_back(d: Floats, path: Floats) -> None:
    """Mark the way from the goal to the start in `path [H, W]`."""
    i, j = path.shape
    path[i - 1, j - 1] = 1.0
    while i > 1 or j > 1:
        least, move = np.inf, 0
        for k in range(9):
            there = d[i - 1 + k // 3, j - 1 + k % 3]
            better = (there < least) & (k != 4)  # 4 is the cell itself
            least = there if better else least
            move = k if better else move
        i, j = i - 1 + move // 3, j - 1 + move % 3
        path[i - 1, j - 1] = 1.0
