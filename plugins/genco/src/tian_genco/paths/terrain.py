"""Terrain maps made from noise: deterministic, unlimited, no files needed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tian.errors import InvalidInput
from tian_genco.paths.grid import GridPathSolver
from tian_genco.paths.options import TerrainSpec
from tian_genco.paths.problem import PathProblem
from tian_genco.problem import Floats

Bytes = NDArray[np.uint8]

VERSION = 1  # of the maps and images a seed stands for; raised whenever they change
NAMES = ("grass", "earth", "forest", "water", "rock")
TILE = 8  # pixels of a cell's side
TIES = 1e-6  # size of the fixed noise that tells paths of equal cost apart
COLOURS = np.array([[132, 190, 84], [238, 214, 164], [24, 96, 64], [64, 140, 208], [128, 120, 122]], np.uint8)
_TEXTURE = 10.0  # standard deviation of the noise on a pixel's brightness, of 255


def make_terrain(n: int, *, seed: int, size: int = 12, spec: TerrainSpec = TerrainSpec()) -> Bytes:  # noqa: B008 - frozen
    """Maps of terrain classes; map i depends on seed, size and i only.

    White noise through a Gaussian filter, scaled to unit variance in every cell, and cut.

    Args:
        n: number of maps, >= 0.
        seed: >= 0.
        size: cells of a side, >= 2.
        spec: smoothness and cuts.

    Returns:
        `[n, size, size]` uint8, indices into `NAMES`.

    Raises:
        InvalidInput: an argument outside these ranges.

    Source:
        Stand-in for the Warcraft II maps of Vlastelica et al. 2020; smoothness, cuts and costs are ours.

    Example:
        >>> make_terrain(2, seed=0, size=4).shape
        (2, 4, 4)
    """
    if n < 0 or size < 2 or seed < 0:
        raise InvalidInput(f"need n >= 0, size >= 2 and seed >= 0, got n={n}, size={size}, seed={seed}")
    reach = int(np.ceil(4 * spec.sigma))
    offset = np.arange(size + 2 * reach)[None, :] - reach - np.arange(size)[:, None]
    kernel = np.where(np.abs(offset) <= reach, np.exp(-0.5 * (offset / spec.sigma) ** 2), 0.0)
    kernel /= np.sqrt((kernel**2).sum(axis=1, keepdims=True))
    wide = size + 2 * reach
    noise = np.empty((n, wide, wide))
    for i in range(n):
        _stream(seed, i, purpose=0).standard_normal(out=noise[i])
    return np.searchsorted(spec.cuts, kernel @ noise @ kernel.T, side="right").astype(np.uint8)


def costs_of(classes: Bytes, spec: TerrainSpec = TerrainSpec()) -> Floats:  # noqa: B008 - frozen
    """What each cell costs: `[..., H, W]` classes to float64 of the same shape."""
    return np.asarray(spec.costs, np.float64)[classes]


def paths_of(classes: Bytes, spec: TerrainSpec = TerrainSpec()) -> Bytes:  # noqa: B008 - frozen
    """The shortest path of each map; ties are settled by one fixed noise of 1e-6 a cell, the same for all maps.

    Args:
        classes: `[n, H, W]` uint8.
        spec: costs of the classes.

    Returns:
        `[n, H, W]` uint8, 1 on the path.
    """
    n, H, W = classes.shape
    ties = TIES * np.random.default_rng([VERSION, H, W]).random((H, W))
    costs = costs_of(classes, spec) + ties
    found = GridPathSolver().solve_costs(PathProblem(H, W).instance(), costs.reshape(n, H * W), time_limit_s=60.0)
    return found.x.reshape(n, H, W).astype(np.uint8)


def render(classes: Bytes, *, seed: int) -> Bytes:
    """Images: a colour for each class, its brightness noisy from pixel to pixel.

    Args:
        classes: `[n, H, W]` uint8.
        seed: of the texture, >= 0; image i depends on seed, i and its map only.

    Returns:
        `[n, 8H, 8W, 3]` uint8.
    """
    n, H, W = classes.shape
    image = COLOURS[classes].repeat(TILE, axis=1).repeat(TILE, axis=2)
    for i in range(n):
        grain = _stream(seed, i, purpose=1).standard_normal((TILE * H, TILE * W, 1), dtype=np.float32)
        image[i] = np.clip(np.rint(image[i] + np.float32(_TEXTURE) * grain), 0, 255)
    return image


def _stream(seed: int, i: int, *, purpose: int) -> np.random.Generator:
    return np.random.default_rng([VERSION, seed, i, purpose])
