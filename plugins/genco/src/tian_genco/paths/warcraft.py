"""Loader of the Warcraft II maps of Vlastelica et al. 2020, which a user must have on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from tian.errors import DataError, InvalidInput
from tian_genco.paths.grid import GridPathSolver
from tian_genco.paths.problem import PathProblem
from tian_genco.paths.terrain import TILE
from tian_genco.problem import Floats

if TYPE_CHECKING:
    from numpy.typing import NDArray

Split = Literal["train", "val", "test"]
CHECKED = 64  # maps whose stored path is compared with ours, spread evenly
_CHUNK = 256  # images read at once for mean and deviation
_SOURCE = "the folders 12x12 to 30x30 of warcraft_maps.tar.gz, edmond.mpg.de, Vlastelica et al. 2020"


@dataclass(frozen=True, eq=False)
class Maps:
    """Maps of a split. The arrays are mapped from disk, read-only.

    Attributes:
        images: `[n, 8H, 8W, 3]` uint8.
        costs: `[n, H, W]` floating point as stored, cost of each cell.
        paths: `[n, H, W]` as stored, 1 on the shortest path.
        mean: `[3]` float64, channel means of all training images, in units of a byte.
        std: `[3]` float64, their standard deviations.
    """

    images: NDArray[np.uint8]
    costs: NDArray[Any]
    paths: NDArray[Any]
    mean: Floats
    std: Floats

    def normalised(self, rows: slice) -> NDArray[np.float32]:
        """The images of some rows, `[k, 8H, 8W, 3]` float32, with mean and deviation of the training images taken out."""
        scaled = (self.images[rows] - self.mean) / self.std
        return scaled.astype(np.float32)


def load_maps(folder: Path | str, split: Split, *, limit: int | None = None) -> Maps:
    """Map a split into memory and check it.

    Read are `SPLIT_maps.npy` (uint8 images, 8 pixels a cell), `SPLIT_vertex_weights.npy` (floats >= 0) and
    `SPLIT_shortest_paths.npy` (0 and 1), besides `train_maps.npy` for mean and deviation. Of 64 maps, spread evenly,
    the stored path must be a path and cost as much as ours does, up to the precision of the stored weights.

    Args:
        folder: with the files, e.g. `warcraft_shortest_path/12x12`.
        split: train, val or test.
        limit: maps at most, the first ones; None: all.

    Raises:
        DataError: a file is missing, damaged or of another format, or a stored path is not shortest; file and index
            are named.
        InvalidInput: another split, or a limit < 1.
    """
    if split not in get_args(Split):
        raise InvalidInput(f"split must be one of {', '.join(get_args(Split))}, got {split!r}")
    if limit is not None and limit < 1:
        raise InvalidInput(f"limit must be >= 1 or none, got {limit}")
    folder = Path(folder)
    weights_file, paths_file = folder / f"{split}_vertex_weights.npy", folder / f"{split}_shortest_paths.npy"
    costs, paths = _array(weights_file, "f", 3), _array(paths_file, "biuf", 3)
    images = _images(folder / f"{split}_maps.npy")
    n, H, W = costs.shape
    if n == 0 or H * W < 2:
        raise _wrong(weights_file, f"has shape {list(costs.shape)}, which holds no map")
    for file, found, due in (
        (paths_file, paths.shape, costs.shape),
        (folder / f"{split}_maps.npy", images.shape, (n, TILE * H, TILE * W, 3)),
    ):
        if found != due:
            raise _wrong(file, f"has shape {list(found)}, due is {list(due)} by {weights_file.name}")
    mean, std = _moments(images if split == "train" else _images(folder / "train_maps.npy"))
    n = min(n, limit or n)
    maps = Maps(images[:n], costs[:n], paths[:n], mean, std)
    _check_paths(maps, weights_file, paths_file)
    return maps


def _check_paths(maps: Maps, weights_file: Path, paths_file: Path) -> None:
    n, H, W = maps.costs.shape
    problem = PathProblem(H, W)
    rows = np.unique(np.linspace(0, n - 1, min(n, CHECKED)).astype(int))
    costs = np.asarray(maps.costs[rows], np.float64).reshape(-1, problem.n)
    stored = np.asarray(maps.paths[rows], np.float64).reshape(-1, problem.n)
    for i, c in zip(rows, costs, strict=True):
        if not (np.isfinite(c).all() and c.min() >= 0):
            raise _wrong(weights_file, f"has a weight that is negative or not finite in map {i}")
    best = GridPathSolver().solve_costs(problem.instance(), costs, time_limit_s=60.0).objective
    precision = max(float(np.finfo(maps.costs.dtype).eps), 1e-9)
    for i, x, c, least in zip(rows, stored, costs, best, strict=True):
        fault = problem.broken(x)
        if fault:
            raise _wrong(paths_file, f"has no path in map {i}: {fault}")
        cost = float(c @ x)
        if cost > least * (1 + precision):
            raise _wrong(paths_file, f"has a path of cost {cost:.9g} in map {i}, the shortest costs {least:.9g}")


def _images(file: Path) -> NDArray[np.uint8]:
    images = _array(file, "u", 4)
    if images.dtype != np.uint8 or images.shape[3] != 3 or not len(images):
        raise _wrong(file, f"is {images.dtype} {list(images.shape)}, due is uint8 [n, height, width, 3]")
    return images


def _array(file: Path, types: str, dimensions: int) -> NDArray[Any]:
    """A mapped array with one of the kinds of type (numpy's letters) and so many dimensions."""
    if not file.is_file():
        raise DataError(f"there is no {file.name} in {file.parent}", where=str(file), hint=f"get {_SOURCE}")
    try:
        array: Any = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise _wrong(file, f"cannot be read as an array: {error}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in types or array.ndim != dimensions:
        found = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
        raise _wrong(file, f"is {found}, due are {dimensions} dimensions and a type of kind {types!r}")
    checked: NDArray[Any] = array
    return checked


def _moments(images: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Channel means and standard deviations, exact sums."""
    total, squares, count = np.zeros(3, np.int64), np.zeros(3, np.int64), 0
    for start in range(0, len(images), _CHUNK):
        pixels = images[start : start + _CHUNK].reshape(-1, 3).astype(np.int64)
        total, squares, count = total + pixels.sum(0), squares + (pixels**2).sum(0), count + len(pixels)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    return mean, np.where(std > 0, std, 1.0)


def _wrong(file: Path, what: str) -> DataError:
    return DataError(f"{file.name} {what}", where=str(file), hint=f"replace it: {_SOURCE}")
