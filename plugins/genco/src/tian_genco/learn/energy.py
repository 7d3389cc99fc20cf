"""Energy distance between two sets of features, block by block (Szekely and Rizzo, 2013), unbiased."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def _between(a: Tensor, b: Tensor) -> Tensor:
    """Mean distance of rows of `a` to rows of `b`."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").mean()


def _within(a: Tensor) -> Tensor:
    """Mean distance between two different rows of `a`."""
    n = a.shape[0]
    return torch.cdist(a, a, compute_mode="donot_use_mm_for_euclid_dist").sum() / (n * (n - 1))


def _blocks(features: Tensor, sizes: Sequence[int]) -> tuple[Tensor, ...]:
    return torch.split(features, list(sizes), dim=1)


def energy_distance(fake: Tensor, real: Tensor, sizes: Sequence[int]) -> Tensor:
    """Sum over blocks of 2 E|f - r| - E|f - f'| - E|r - r'|; 0 in the mean for two samples of one distribution.

    Args:
        fake: `[n, F]`.
        real: `[m, F]`.
        sizes: of the blocks that make up F.
    """
    parts = zip(_blocks(fake, sizes), _blocks(real, sizes), strict=True)
    return torch.stack([2 * _between(f, r) - _within(f) - _within(r) for f, r in parts]).sum()


def energy_loss(fake: Tensor, real: Tensor, sizes: Sequence[int]) -> Tensor:
    """The same without the last term, which does not depend on the generator; arguments as above."""
    parts = zip(_blocks(fake, sizes), _blocks(real, sizes), strict=True)
    return torch.stack([2 * _between(f, r) - _within(f) for f, r in parts]).sum()


def witness_loss(fake: Tensor, real: Tensor, frozen: Tensor, sizes: Sequence[int]) -> Tensor:
    """Mean over `fake` of the witness 2 E|f - r| - 2 E|f - f0| of a fixed set `frozen [k, F]` of earlier fakes f0.

    What a discriminator that is never trained again does: the fixed adversary of the paper.
    """
    blocks = (_blocks(t, sizes) for t in (fake, real, frozen))
    return torch.stack([2 * _between(f, r) - 2 * _between(f, f0) for f, r, f0 in zip(*blocks, strict=True)]).sum()
