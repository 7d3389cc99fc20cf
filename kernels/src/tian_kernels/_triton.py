"""The one place that imports triton, so that every module of the package imports without it.

A kernel module takes `jit` and `tl` from here. With `TRITON_INTERPRET=1` set before the import, kernels run on CPU
tensors, which is how they are tested without a GPU.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import triton
    import triton.language as tl
else:
    try:
        import triton
        import triton.language as tl
    except ImportError:
        triton = tl = None

__all__ = ["Launch", "jit", "pow2", "precision", "run", "tl", "triton"]

# Off by default from triton 3.10 on; the same program on every version is worth naming it.
OPTIONS = {"enable_fp_fusion": True}


def jit(function: Callable[..., None]) -> Any:
    """`triton.jit`, or the function as it is when there is no triton (it is then never called)."""
    return triton.jit(function) if triton is not None else function


@dataclass(frozen=True)
class Launch:
    """One kernel launch, complete; the compile tests build the same and stop before launching."""

    kernel: Any
    grid: tuple[int, ...]
    args: tuple[Any, ...]  # run-time arguments, in the kernel's order
    constants: dict[str, Any]  # its tl.constexpr arguments
    num_warps: int = 4
    num_stages: int = 2

    def options(self) -> dict[str, Any]:
        """Keyword arguments of the launch."""
        return {**self.constants, **OPTIONS, "num_warps": self.num_warps, "num_stages": self.num_stages}


def run(launches: Sequence[Launch], device: torch.device) -> None:
    """Launch one after the other on `device`'s current stream."""
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        for launch in launches:
            launch.kernel[launch.grid](*launch.args, **launch.options())


def pow2(n: int, *, least: int = 1) -> int:
    """The smallest power of two >= max(n, least): tile widths must be powers of two, tl.dot wants at least 16."""
    return max(least, 1 << max(n - 1, 0).bit_length())


def precision(dtype: torch.dtype) -> str:
    """How tl.dot treats operands that were upcast to float32 from `dtype`.

    tf32 keeps ten mantissa bits: all of bfloat16's and float16's, on tensor cores. float32 storage gets exact products.
    """
    return "ieee" if dtype == torch.float32 else "tf32"
