"""Networks from noise to tile logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

NOISE = 8  # channels of noise that enter at full size, so that details need not all come through z
# The first logits must differ between designs by more than one step can move all of them together; else the most likely
# tiles of a whole batch change at once, and training goes in jumps.
SPREAD = 8.0
RARE = 3e-3  # added to shares before the logarithm: a tile never seen in a place is unlikely there, not impossible


class TileGenerator(nn.Module):
    """Noise -> logits of T tiles on an H x W grid.

    A coarse map grown twice by transposed convolutions, cropped, mixed with fresh noise of full size, refined by two
    residual convolutions; a bias per position starts from how often each tile is seen there.

    Args:
        tiles: T.
        height: H.
        width: W.
        nz: length of z.
        channels: width of the hidden maps.
    """

    def __init__(self, *, tiles: int, height: int, width: int, nz: int = 32, channels: int = 32) -> None:
        super().__init__()
        self.tiles, self.height, self.width, self.nz, self.channels = tiles, height, width, nz, channels
        self.coarse = (-(-height // 4), -(-width // 4))
        self.start = nn.Linear(nz, channels * self.coarse[0] * self.coarse[1])
        self.grow = nn.ModuleList(
            nn.ConvTranspose2d(channels, channels, kernel_size=4, stride=2, padding=1) for _ in range(2)
        )
        self.mix = nn.Conv2d(channels + NOISE, channels, kernel_size=3, padding=1)
        self.refine = nn.ModuleList(nn.Conv2d(channels, channels, kernel_size=3, padding=1) for _ in range(2))
        self.head = nn.Conv2d(channels, tiles, kernel_size=3, padding=1)
        with torch.no_grad():
            self.head.weight.mul_(SPREAD)
        self.place = nn.Parameter(torch.zeros(tiles, height, width))

    def forward(self, z: Tensor, noise: Tensor) -> Tensor:
        """`z [B, nz]`, `noise [B, 8, H, W]` f32 -> logits `[B, T, H, W]` f32."""
        h = torch.relu(self.start(z)).view(-1, self.channels, *self.coarse)
        for layer in self.grow:
            h = torch.relu(layer(h))
        h = torch.relu(self.mix(torch.cat([h[..., : self.height, : self.width], noise], dim=1)))
        for layer in self.refine:
            h = h + torch.relu(layer(h))
        logits: Tensor = self.head(h) + self.place
        return logits

    def start_from(self, shares: Tensor) -> None:
        """Set the bias to the logarithm of how often tiles are seen, `shares [T, H, W]`."""
        with torch.no_grad():
            self.place.copy_((shares + RARE).log())

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`(z [n, nz], noise [n, 8, H, W])` standard normal, on the CPU."""
        z = torch.randn(n, self.nz, generator=generator)
        return z, torch.randn(n, NOISE, self.height, self.width, generator=generator)


def straight_through(logits: Tensor) -> Tensor:
    """One-hot argmax over tiles, `[B, T, H, W]`, whose gradient is that of the softmax."""
    soft = logits.softmax(dim=1)
    hard = torch.zeros_like(soft).scatter_(1, logits.argmax(dim=1, keepdim=True), 1.0)
    return hard + soft - soft.detach()
