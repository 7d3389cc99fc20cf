"""How a set of designs is judged beside reference designs; designs are tile indices `[n, H, W]` uint8.

Beware: distances between one-hot grids have hubs (a single repeated design once reached coverage 0.46 and density 93), so
no single number here says that a set is good. Read unique, Hamming, patterns and density/coverage together, and beside
the row of data against data.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Grids = NDArray[np.uint8]
K = 5  # neighbours of density and coverage


def one_hot(grids: Grids, tiles: int) -> NDArray[np.float32]:
    """`[n, H, W]` -> `[n, tiles*H*W]` float32, tile-major."""
    planes = [(grids == t).reshape(len(grids), -1) for t in range(tiles)]
    return np.concatenate(planes, axis=1).astype(np.float32)


def copies(grids: Grids) -> NDArray[np.int64]:
    """`[n]`: how often each design occurs in the set; the mean of 1/copies is the share of unique designs."""
    flat = np.ascontiguousarray(grids.reshape(len(grids), -1))
    _, inverse, counts = np.unique(flat, axis=0, return_inverse=True, return_counts=True)
    found: NDArray[np.int64] = counts[inverse.reshape(-1)]
    return found


def novel(grids: Grids, known: Grids) -> NDArray[np.bool_]:
    """`[n]`: whether a design is not among `known`."""
    seen = {g.tobytes() for g in np.ascontiguousarray(known)}
    return np.array([g.tobytes() not in seen for g in np.ascontiguousarray(grids)], dtype=bool)


def hamming(a: Grids, b: Grids, tiles: int) -> NDArray[np.float32]:
    """`[n, m]` float32: cells in which design i of `a` differs from design j of `b`."""
    cells = a[0].size
    found: NDArray[np.float32] = cells - one_hot(a, tiles) @ one_hot(b, tiles).T
    return found


def mean_hamming(grids: Grids, tiles: int) -> NDArray[np.float64]:
    """`[n]`: mean number of cells in which a design differs from the others."""
    n, x = len(grids), one_hot(grids, tiles).astype(np.float64)
    if n < 2:
        return np.zeros(n)
    same = x @ x.sum(axis=0)  # with itself included
    found: NDArray[np.float64] = (n * grids[0].size - same) / (n - 1)
    return found


def pattern_shares(grids: Grids, tiles: int, size: int = 2) -> NDArray[np.float64]:
    """`[tiles**(size*size)]`: shares of the size x size patterns over all designs and places."""
    h, w = grids.shape[1:]
    code = np.zeros((len(grids), h - size + 1, w - size + 1), np.int64)
    for r in range(size):
        for c in range(size):
            code = code * tiles + grids[:, r : h - size + 1 + r, c : w - size + 1 + c]
    counts = np.bincount(code.ravel(), minlength=tiles ** (size * size))
    shares: NDArray[np.float64] = counts / counts.sum()
    return shares


def jensen_shannon(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """Divergence of two distributions in bits, 0 to 1."""
    m = (p + q) / 2

    def to_middle(a: NDArray[np.float64]) -> float:
        some = a > 0
        return float((a[some] * np.log2(a[some] / m[some])).sum())

    return (to_middle(p) + to_middle(q)) / 2


def pattern_jsd(grids: Grids, reference: Grids, tiles: int) -> float:
    """Jensen-Shannon divergence of the 2x2 patterns of two sets, bits."""
    return jensen_shannon(pattern_shares(grids, tiles), pattern_shares(reference, tiles))


def density_coverage(grids: Grids, reference: Grids, tiles: int, k: int = K) -> tuple[NDArray[np.float64], float]:
    """Density of each design, `[n]`, and coverage (Naeem et al., 2020), with distances in cells.

    A reference's ball reaches to its k-th nearest other reference. Density counts, over k, the balls a design lies in;
    coverage is the share of balls with at least one design in them. Balls are the same for distances in cells and for
    Euclidean distances of one-hot grids, sqrt(2 x cells).
    """
    within = hamming(reference, reference, tiles)
    np.fill_diagonal(within, np.inf)
    radius = np.partition(within, k - 1, axis=1)[:, k - 1]
    inside = hamming(reference, grids, tiles) <= radius[:, None]  # [R, n]
    return inside.sum(axis=0) / k, float(inside.any(axis=1).mean())
