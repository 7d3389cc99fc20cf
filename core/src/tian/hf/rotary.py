"""Rotary positions: cos and sin of any position from the model's own frequencies, with angles in float64.

Float32 angles are off by 6e-5 rad at position 1,000 and by 0.2 rad at position 4 million, which is where a stream gets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

if TYPE_CHECKING:
    from torch import Tensor

# Angles that depend on the current length cannot be computed once.
LENGTH_FREE_TYPES = frozenset({"default", "linear", "llama3", "yarn"})

Angles = tuple["Tensor", "Tensor"]  # cos, sin: `[.., R/2]`, one column a pair of channels (i, i + R/2)


class Rotary:
    """cos and sin for the first R channels of a head.

    The model itself runs at position zero throughout (see `tian.hf.attach`), where cos is the rotary type's attention
    factor and sin is 0; so the factor enters query and key once each there, and here there is none.

    Args:
        rotary: the model's rotary module, of which `inv_freq [R/2]` is read (already scaled by the rotary type).
        dtype: of the model's activations.
        device: of the model.
    """

    rotates: ClassVar[bool] = True

    def __init__(self, rotary: Any, *, dtype: torch.dtype, device: torch.device) -> None:
        self._frequency = rotary.inv_freq.detach().to(device=device, dtype=torch.float64)
        self._dtype = dtype
        self._device = device
        self._table: Angles = (torch.empty(0, device=device), torch.empty(0, device=device))
        self._recent: dict[tuple[int, int], Angles] = {}

    def angles(self, position: Tensor) -> Angles:
        """Of any positions, computed anew; nothing is read back from the device.

        Args:
            position: int `[..]`.

        Returns:
            cos and sin `[.., R/2]` in the model's dtype.
        """
        angle = position[..., None].double() * self._frequency
        return angle.cos().to(self._dtype), angle.sin().to(self._dtype)

    def span(self, start: int, count: int) -> Angles:
        """Of `count` positions from `start` on, `[count, R/2]`; the layers of one step share the computation."""
        key = (start, count)
        if key not in self._recent:
            if len(self._recent) >= 8:
                self._recent.clear()
            self._recent[key] = self.angles(torch.arange(start, start + count, device=self._device))
        return self._recent[key]

    def table(self, n: int) -> Angles:
        """Of positions 0..n-1 at least, `[>= n, R/2]`; grown by doubling, so ask for what is bounded only."""
        if n > self._table[0].shape[0]:
            self._table = self.angles(torch.arange(max(n, 2 * self._table[0].shape[0]), device=self._device))
        return self._table

    def turn(self, x: Tensor, angles: Angles) -> Tensor:
        """Rotate the first R channels.

        Args:
            x: `[B, H, n, D]` queries or keys.
            angles: broadcastable to `[B, H, n, R/2]`.

        Returns:
            `[B, H, n, D]`, same dtype, a new tensor.
        """
        cos, sin = angles
        half = cos.shape[-1]
        lo, hi = x[..., :half], x[..., half : 2 * half]
        out = torch.empty_like(x)
        # Two products and two fused updates, written where they belong: a long cache is passed over three times, not ten.
        torch.mul(lo, cos, out=out[..., :half]).addcmul_(hi, sin, value=-1)
        torch.mul(hi, cos, out=out[..., half : 2 * half]).addcmul_(lo, sin)
        if 2 * half < x.shape[-1]:
            out[..., 2 * half :] = x[..., 2 * half :]
        return out


class NoRotary(Rotary):
    """For models whose positions are not rotary: leaves queries and keys as they are."""

    rotates: ClassVar[bool] = False

    def __init__(self) -> None:
        self._none: Angles = (torch.empty(0), torch.empty(0))

    def angles(self, position: Tensor) -> Angles:
        """Nothing."""
        return self._none

    def span(self, start: int, count: int) -> Angles:
        """Nothing."""
        return self._none

    def table(self, n: int) -> Angles:
        """Nothing."""
        return self._none

    def turn(self, x: Tensor, angles: Angles) -> Tensor:
        """`x` itself."""
        return x
