"""How a grid of tiles is written as the x of a problem, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """A design is a grid of T tiles; x is its one-hot planes, or with two tiles the plane of tile 1 alone.

    Attributes:
        tiles: T.
        height: H.
        width: W.
        binary: x holds one number a cell instead of T.
    """

    tiles: int
    height: int
    width: int
    binary: bool = False

    @property
    def n(self) -> int:
        """Length of x."""
        return self.height * self.width * (1 if self.binary else self.tiles)

    def costs(self, logits: Tensor) -> Tensor:
        """`[B, T, H, W]` -> `[B, n]`: the likelier a tile, the cheaper."""
        if self.binary:
            return (logits[:, 0] - logits[:, 1]).flatten(1)
        return -logits.flatten(1)

    def planes(self, x: Tensor) -> Tensor:
        """`x [B, n]` -> one-hot planes `[B, T, H, W]`."""
        if self.binary:
            ones = x.view(-1, 1, self.height, self.width)
            return torch.cat([1 - ones, ones], dim=1)
        return x.view(-1, self.tiles, self.height, self.width)

    def grids(self, x: NDArray[np.float64]) -> NDArray[np.uint8]:
        """`x [B, n]` -> tile indices `[B, H, W]` uint8."""
        if self.binary:
            return np.rint(x).astype(np.uint8).reshape(-1, self.height, self.width)
        best: NDArray[np.int64] = x.reshape(-1, self.tiles, self.height, self.width).argmax(axis=1)
        return best.astype(np.uint8)

    def x(self, grids: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Tile indices `[B, H, W]` -> `x [B, n]` float64."""
        if self.binary:
            return grids.reshape(len(grids), -1).astype(np.float64)
        planes: NDArray[np.bool_] = grids[:, None] == np.arange(self.tiles, dtype=np.uint8)[:, None, None]
        return planes.reshape(len(grids), -1).astype(np.float64)
