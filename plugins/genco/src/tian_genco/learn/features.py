"""Features of tile grids whose distributions are matched: counts, local patterns, densities, places and their offsets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

FILTERS = 96  # random filters of each size
WAVES = 24  # random Fourier features of a place
STILL = 1e-2  # least largest spread of a block: what is the same in all data is not divided by rounding errors
FLOOR = 0.3  # least spread of a feature, as a share of the largest in its block: rare features are not blown up


class TileFeatures(nn.Module):
    """Six blocks of features of one-hot (or soft) tiles, standardised on reference designs.

    Blocks: tile counts; mean ReLU of random 2x2 and of random 3x3 filters; 3x3 stride-2 averages of the interior;
    random Fourier features of the places of the unique tiles; the same of their pairwise offsets. Centred, over
    max(std, 0.3 x the block's largest std), over sqrt(size of the block), so that every block weighs alike.

    Args:
        tiles: T.
        height: H.
        width: W.
        unique: tiles of which a design has one each; without any, the last two blocks are left out.
        seed: of the random filters; another seed gives other filters, for a held-out measure.
    """

    def __init__(self, *, tiles: int, height: int, width: int, unique: Sequence[int], seed: int) -> None:
        super().__init__()
        self.two: Tensor
        self.three: Tensor
        self.cos: Tensor
        self.sin: Tensor
        self.phase: Tensor
        self.mean: Tensor
        self.scale: Tensor
        rng = torch.Generator().manual_seed(seed)
        self.unique = list(unique)
        self.register_buffer("two", torch.randn(FILTERS, tiles, 2, 2, generator=rng))
        self.register_buffer("three", torch.randn(FILTERS, tiles, 3, 3, generator=rng))
        rows = torch.arange(height, dtype=torch.float32).view(-1, 1).expand(height, width)
        columns = torch.arange(width, dtype=torch.float32).view(1, -1).expand(height, width)
        # Waves some 12 rows and 19 columns long: they tell halves of a 9x13 grid apart, and neighbours hardly.
        waves = torch.randn(WAVES, 2, generator=rng) * torch.tensor([1 / 2, 1 / 3])
        angle = waves[:, :1] * rows.reshape(1, -1) + waves[:, 1:] * columns.reshape(1, -1)
        phase = 2 * math.pi * torch.rand(WAVES, 1, generator=rng)
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())
        self.register_buffer("phase", phase[:, 0])
        self.register_buffer("mean", torch.zeros(0))
        self.register_buffer("scale", torch.ones(0))
        self.sizes: list[int] = []

    def blocks(self, x: Tensor) -> list[Tensor]:
        """Raw features of `x [B, T, H, W]` f32: a list of `[B, size]`."""
        out = [
            x.mean(dim=(2, 3)),
            torch.relu(functional.conv2d(x, self.two)).mean(dim=(2, 3)),
            torch.relu(functional.conv2d(x, self.three)).mean(dim=(2, 3)),
            functional.avg_pool2d(x[..., 1:-1, 1:-1], kernel_size=3, stride=2).flatten(1),
        ]
        if self.unique:
            where = x[:, self.unique].flatten(2)  # [B, U, H*W]
            # Of several the mean place: a product of two sums would grow with the square of their number.
            where = where / where.sum(dim=-1, keepdim=True).clamp_min(1.0)
            re, im = where @ self.cos.T, where @ self.sin.T  # [B, U, WAVES]
            c, s = self.phase.cos(), self.phase.sin()
            out.append((re * c - im * s).flatten(1))
            pairs = [(a, b) for a in range(len(self.unique)) for b in range(a)]
            apart = [  # cos(w.(p_a - p_b) + phase), written with the two sums
                (re[:, a] * re[:, b] + im[:, a] * im[:, b]) * c - (im[:, a] * re[:, b] - re[:, a] * im[:, b]) * s
                for a, b in pairs
            ]
            if apart:
                out.append(torch.cat(apart, dim=1))
        return out

    def fit(self, x: Tensor) -> None:
        """Take mean and scale from reference designs `x [R, T, H, W]`."""
        blocks = self.blocks(x)
        scales = []
        for b in blocks:
            spread = b.std(dim=0)
            top = spread.max().clamp_min(STILL)
            scales.append(torch.maximum(spread, FLOOR * top) * math.sqrt(b.shape[1]))
        self.sizes = [b.shape[1] for b in blocks]
        self.mean = torch.cat([b.mean(dim=0) for b in blocks])
        self.scale = torch.cat(scales)

    def forward(self, x: Tensor) -> Tensor:
        """Standardised features `[B, F]` of `x [B, T, H, W]`; the blocks follow one another."""
        return (torch.cat(self.blocks(x), dim=1) - self.mean) / self.scale
