"""Rotary positions by table: cos and sin of any position, taken from the model's own rotary module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor

# Angles that depend on the current length cannot be kept in one table.
LENGTH_FREE_TYPES = frozenset({"default", "linear", "llama3", "yarn"})


class RotaryTable:
    """cos and sin for positions 0..n-1, grown by doubling when a larger position is asked for.

    The model itself runs at position zero throughout (see `tian.hf.attach`), where cos is the type's attention factor
    and sin is 0; that factor is divided out here, so it enters query and key once each, as in the model.

    Args:
        rotary: the model's rotary module, `rotary(x, position_ids) -> (cos, sin)` of shape `[1, n, R]`.
        dtype: of the model's activations.
        device: of the model.
    """

    def __init__(self, rotary: Any, *, dtype: torch.dtype, device: torch.device) -> None:
        self._rotary = rotary
        self._dtype = dtype
        self._device = device
        self._cos = self._sin = torch.empty(0, device=device)
        self.ensure(256)

    def ensure(self, n: int) -> None:
        """Make positions 0..n-1 available."""
        if n <= self._cos.shape[0]:
            return
        size = max(n, 2 * self._cos.shape[0])
        where = torch.arange(size, device=self._device)[None]
        with torch.no_grad():
            cos, sin = self._rotary(torch.empty(1, dtype=torch.float32, device=self._device), where)
        factor = float(getattr(self._rotary, "attention_scaling", 1.0))
        self._cos = (cos[0] / factor).to(self._dtype)
        self._sin = (sin[0] / factor).to(self._dtype)

    def rotate(self, x: Tensor, position: Tensor) -> Tensor:
        """Rotate the first R channels of `x` to `position`.

        Args:
            x: `[B, H, n, D]` unrotated queries or keys.
            position: int, broadcastable to `[B, H, n]`; every value below the last `ensure`.

        Returns:
            `[B, H, n, D]`, same dtype.
        """
        cos, sin = self._cos[position], self._sin[position]
        r = cos.shape[-1]
        head = x[..., :r]
        half = torch.cat([-head[..., r // 2 :], head[..., : r // 2]], dim=-1)
        turned = head * cos + half * sin
        return turned if r == x.shape[-1] else torch.cat([turned, x[..., r:]], dim=-1)


class NoRotary:
    """For models whose positions are not rotary: leaves queries and keys as they are."""

    def ensure(self, n: int) -> None:
        """Nothing to prepare."""

    def rotate(self, x: Tensor, position: Tensor) -> Tensor:
        """`x` itself."""
        return x
