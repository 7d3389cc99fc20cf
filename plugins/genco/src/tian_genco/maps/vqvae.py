"""Autoencoder of map images with discrete codes, one a cell (VQ-VAE)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

EMPTY = 1e-5  # added to counts (Laplace smoothing)
UNUSED = 0.02  # moving average of uses a batch below which a code is moved to a random encoding


class Codebook(nn.Module):
    """Vectors that are moving averages of the encodings nearest to them; no gradient reaches them.

    Args:
        codes: K.
        dims: length of a vector.
        decay: of the moving averages.

    Source:
        van den Oord et al. 2017, appendix A.1. Ours: a code that is hardly used moves to a random encoding of the batch,
        which also is how the vectors start.
    """

    vectors: Tensor  # [K, D]
    uses: Tensor  # [K] moving average of encodings a batch
    sums: Tensor  # [K, D] moving average of their sums

    def __init__(self, *, codes: int, dims: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("vectors", torch.zeros(codes, dims))
        self.register_buffer("uses", torch.zeros(codes))
        self.register_buffer("sums", torch.zeros(codes, dims))

    def nearest(self, encodings: Tensor) -> Tensor:
        """`[B, D, h, w]` -> `[B, h, w]` int64, the code at the least Euclidean distance."""
        flat = encodings.permute(0, 2, 3, 1).flatten(0, 2)
        far = self.vectors.square().sum(dim=1) - 2 * flat @ self.vectors.T
        B, _, h, w = encodings.shape
        return far.argmin(dim=1).view(B, h, w)

    def lookup(self, index: Tensor) -> Tensor:
        """`[B, h, w]` -> vectors `[B, D, h, w]`."""
        return self.vectors[index].permute(0, 3, 1, 2)

    @torch.no_grad()
    def update(self, encodings: Tensor, index: Tensor, pick: Tensor) -> None:
        """One step of the moving averages.

        Args:
            encodings: `[B, D, h, w]`.
            index: `[B, h, w]`, the codes they went to.
            pick: `[K]` floats in [0, 1): which encoding an unused code moves to, as a share of the batch.
        """
        flat = encodings.permute(0, 2, 3, 1).flatten(0, 2)
        members = functional.one_hot(index.flatten(), len(self.uses)).to(flat.dtype)
        self.uses.mul_(self.decay).add_(members.sum(dim=0), alpha=1 - self.decay)
        self.sums.mul_(self.decay).add_(members.T @ flat, alpha=1 - self.decay)
        unused = (self.uses < UNUSED)[:, None]
        moved = flat[(pick * len(flat)).long()]
        self.sums.copy_(torch.where(unused, moved, self.sums))
        self.uses.copy_(torch.where(unused[:, 0], 1.0, self.uses))
        self.vectors.copy_(self.sums / (self.uses[:, None] + EMPTY))


def pass_through(encodings: Tensor, vectors: Tensor) -> Tensor:
    """The value of `vectors`, the gradient of `encodings` (straight-through)."""
    return encodings + (vectors - encodings).detach()


class VQVAE(nn.Module):
    """Images of 8 pixels a cell <-> codes.

    Args:
        codes: K.
        dims: length of a code's vector.
        channels: of the hidden maps.
        decay: of the codebook's moving averages.
        commitment: weight of keeping encodings near their codes.
    """

    def __init__(self, *, codes: int, dims: int, channels: int, decay: float, commitment: float) -> None:
        super().__init__()
        self.commitment = commitment
        self.codebook = Codebook(codes=codes, dims=dims, decay=decay)
        deep = 2 * channels
        self.down = nn.Sequential(
            nn.Conv2d(3, channels, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, deep, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(deep, dims, 1),
        )
        self.up = nn.Sequential(
            nn.Conv2d(dims, deep, 3, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(deep, channels, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(channels, 3, 4, stride=2, padding=1),
        )

    def codes_of(self, pixels: Tensor) -> Tensor:
        """Normalised images `[B, 3, 8h, 8w]` -> `[B, h, w]` int64."""
        return self.codebook.nearest(self.down(pixels))

    def decode(self, vectors: Tensor) -> Tensor:
        """`[B, D, h, w]` -> normalised images `[B, 3, 8h, 8w]`."""
        pixels: Tensor = self.up(vectors)
        return pixels

    def forward(self, pixels: Tensor, pick: Tensor) -> dict[str, Tensor]:
        """Scalars `loss`, `reconstruction` (mean square, in variances of a channel) and `commitment`; moves the codes.

        Args:
            pixels: `[B, 3, 8h, 8w]` normalised images.
            pick: see `Codebook.update`.
        """
        encodings = self.down(pixels)
        index = self.codebook.nearest(encodings)
        vectors = self.codebook.lookup(index)
        lost = functional.mse_loss(self.decode(pass_through(encodings, vectors)), pixels)
        away = functional.mse_loss(encodings, vectors)
        if self.training:
            self.codebook.update(encodings.detach(), index, pick)
        return {"loss": lost + self.commitment * away, "reconstruction": lost, "commitment": away}


class CostHead(nn.Module):
    """Reads the class of each cell off an image.

    Args:
        classes: L.
        channels: of the hidden maps.
    """

    def __init__(self, *, classes: int, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, channels, 8, stride=8),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, classes, 1),
        )

    def logits(self, pixels: Tensor) -> Tensor:
        """Normalised images `[B, 3, 8h, 8w]` -> `[B, L, h, w]`."""
        found: Tensor = self.net(pixels)
        return found

    def forward(self, pixels: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """Scalars `loss` (nats a cell) and `accuracy` against the true `classes [B, h, w]` int64."""
        logits = self.logits(pixels)
        right = (logits.argmax(dim=1) == classes).float().mean()
        return {"loss": functional.cross_entropy(logits, classes), "accuracy": right}
