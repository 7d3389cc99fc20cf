"""Maps as classes, images and paths, made on the spot or read from a folder of Warcraft II maps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tian.errors import DataError
from tian_genco.paths.options import TerrainSpec
from tian_genco.paths.terrain import COLOURS, NAMES, VERSION, Bytes, make_terrain, paths_of, render
from tian_genco.paths.warcraft import load_maps
from tian_genco.problem import Floats

if TYPE_CHECKING:
    from tian_genco.maps.options import MapData

REFERENCE_SEED = 2**30  # offset: reference maps are none of those learned from
LEVELS = 16  # distinct costs at most: cells are classified by their cost
_MEASURED = 256  # images that mean and deviation of the made ones are taken of


@dataclass(frozen=True, eq=False)
class MapSet:
    """Some maps.

    Attributes:
        classes: `[n, H, W]` uint8, indices into the levels of cost.
        paths: `[n, H, W]`, 1 on the shortest path.
        images: `[n, 8H, 8W, 3]` uint8, or None where they were not asked for.
    """

    classes: Bytes
    paths: Bytes
    images: Bytes | None


@dataclass(frozen=True, eq=False)
class Maps:
    """What is learned from and compared with.

    Attributes:
        train: to learn from.
        reference: not seen in training.
        levels: `[L]` float64, ascending: the cost of each class.
        mean: `[3]` channel means of training images, in units of a byte.
        std: `[3]` their deviations.
        label: where they come from.
        made: they were made on the spot.
    """

    train: MapSet
    reference: MapSet
    levels: Floats
    mean: Floats
    std: Floats
    label: str
    made: bool

    def pixels(self, images: Bytes) -> Tensor:
        """`[B, 8H, 8W, 3]` bytes -> `[B, 3, 8H, 8W]` float32, normalised."""
        scaled = (images.astype(np.float32) - self.mean.astype(np.float32)) / self.std.astype(np.float32)
        return torch.from_numpy(np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)))

    def bytes_of(self, pixels: Tensor) -> Bytes:
        """The way back, clipped to what a byte can hold."""
        plain = pixels.permute(0, 2, 3, 1).cpu().numpy() * self.std + self.mean
        return np.clip(np.rint(plain), 0, 255).astype(np.uint8)

    def names(self) -> list[str]:
        """Of the classes: known for maps that were made."""
        return list(NAMES) if self.made else ["cost"] * len(self.levels)

    def colours(self) -> Bytes:
        """`[L, 3]`: a colour for each class."""
        if len(self.levels) <= len(COLOURS):
            return COLOURS[: len(self.levels)]
        import matplotlib as mpl

        shades: Bytes = mpl.colormaps["viridis"](np.linspace(0, 1, len(self.levels)), bytes=True)[:, :3]
        return shades


def load(options: MapData, *, images: bool, seed: int) -> Maps:
    """The maps that the options ask for.

    Args:
        options: of the data.
        images: they are needed.
        seed: of maps that are made.

    Raises:
        DataError: unusable files, fewer than two maps, or costs that are no classes.
    """
    return _made(options, images=images, seed=seed) if options.path is None else _read(Path(options.path), options)


def _made(options: MapData, *, images: bool, seed: int) -> Maps:
    spec = TerrainSpec()

    def some(n: int, start: int) -> MapSet:
        classes = make_terrain(n, seed=start, size=options.size, spec=spec)
        return MapSet(classes, paths_of(classes, spec), render(classes, seed=start) if images else None)

    train, reference = some(options.train, seed), some(options.reference, REFERENCE_SEED + seed)
    mean, std = np.zeros(3), np.ones(3)
    if train.images is not None:
        few = train.images[:_MEASURED].reshape(-1, 3).astype(np.float64)
        mean, std = few.mean(axis=0), np.maximum(few.std(axis=0), 1.0)
    label = f"terrain made on the spot (synthetic, generator version {VERSION}, {options.size} x {options.size})"
    return Maps(train, reference, np.asarray(spec.costs, np.float64), mean, std, label, made=True)


def _read(folder: Path, options: MapData) -> Maps:
    train = load_maps(folder, "train", limit=options.train)
    test = load_maps(folder, "test", limit=options.reference)
    if min(len(train.costs), len(test.costs)) < 2 or test.costs.shape[1:] != train.costs.shape[1:]:
        raise DataError(
            f"the maps to learn from are {list(train.costs.shape)}, those of the split test {list(test.costs.shape)}",
            where=str(folder),
            hint="give two maps or more in each split, all of one size",
        )
    levels = np.unique(np.asarray(train.costs, np.float64))
    if len(levels) > LEVELS:
        raise DataError(
            f"the maps have {len(levels)} distinct weights, {LEVELS} at most can be learned as classes",
            where=str(folder / "train_vertex_weights.npy"),
            hint="round the weights: those of the Warcraft II maps are five",
        )

    def some(maps: Any, split: str) -> MapSet:
        costs = np.asarray(maps.costs, np.float64)
        classes = np.minimum(np.searchsorted(levels, costs), len(levels) - 1)
        strange = np.argwhere(levels[classes] != costs)
        if len(strange):
            i, r, c = (int(k) for k in strange[0])
            raise DataError(
                f"map {i}, cell ({r}, {c}) has the weight {costs[i, r, c]:g}, which no training map has",
                where=str(folder / f"{split}_vertex_weights.npy"),
                hint=f"the weights in training are {', '.join(f'{v:g}' for v in levels)}; raise data.train",
            )
        return MapSet(classes.astype(np.uint8), (np.asarray(maps.paths) > 0).astype(np.uint8), maps.images)

    label = f"{len(train.costs)} maps and {len(test.costs)} others from {folder.name}"
    return Maps(some(train, "train"), some(test, "test"), levels, train.mean, train.std, label, made=False)
