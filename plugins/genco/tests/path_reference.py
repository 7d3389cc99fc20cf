"""Shortest grid paths with a heap, in Python and compiled: independent references of tests and benchmarks."""

from __future__ import annotations

import heapq

import numpy as np
from numba import njit


def python_heap(costs):
    """Cost of the cheapest path and its cells `[H, W]`, for costs `[H, W]`."""
    H, W = costs.shape
    c = costs.tolist()
    distance = [[float("inf")] * W for _ in range(H)]
    before = {}
    distance[0][0] = c[0][0]
    heap = [(c[0][0], 0, 0)]
    while heap:
        d, i, j = heapq.heappop(heap)
        if d > distance[i][j]:
            continue
        if (i, j) == (H - 1, W - 1):
            break
        for k in range(max(i - 1, 0), min(i + 2, H)):
            for m in range(max(j - 1, 0), min(j + 2, W)):
                new = d + c[k][m]
                if new < distance[k][m]:
                    distance[k][m] = new
                    before[k, m] = (i, j)
                    heapq.heappush(heap, (new, k, m))
    path = np.zeros((H, W))
    here = (H - 1, W - 1)
    path[here] = 1.0
    while here != (0, 0):
        here = before[here]
        path[here] = 1.0
    return distance[H - 1][W - 1], path


@njit
def numba_heap(costs):
    """The same, compiled."""
    H, W = costs.shape
    distance = np.full((H, W), np.inf)
    before = np.zeros((H, W), np.int64)
    distance[0, 0] = costs[0, 0]
    heap = [(costs[0, 0], 0)]
    while len(heap) > 0:
        d, v = heapq.heappop(heap)
        i, j = v // W, v % W
        if d > distance[i, j]:
            continue
        if v == H * W - 1:
            break
        for k in range(max(i - 1, 0), min(i + 2, H)):
            for m in range(max(j - 1, 0), min(j + 2, W)):
                new = d + costs[k, m]
                if new < distance[k, m]:
                    distance[k, m] = new
                    before[k, m] = v
                    heapq.heappush(heap, (new, k * W + m))
    path = np.zeros((H, W))
    v = H * W - 1
    path[H - 1, W - 1] = 1.0
    while v > 0:
        v = before[v // W, v % W]
        path[v // W, v % W] = 1.0
    return distance[H - 1, W - 1], path
