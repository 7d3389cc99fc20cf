"""Which implementation runs: triton where there is a GPU and triton, else torch."""

from __future__ import annotations

import torch

from tian_kernels import _triton

KERNELS = ("auto", "triton", "torch")


def triton_imports() -> bool:
    """Whether triton could be imported."""
    return _triton.triton is not None


def choose(kernel: str, device: torch.device | str) -> str:
    """Settle `kernel` for tensors on `device`.

    Args:
        kernel: `auto` (triton exactly when the device is CUDA, present, and triton imports), `triton` or `torch`.
        device: where the tensors are.

    Returns:
        `triton` or `torch`.

    Raises:
        ValueError: another name; or `triton` was asked for and CUDA or triton is missing (the text says which).

    Example:
        >>> choose("auto", "cpu")
        'torch'
    """
    if kernel not in KERNELS:
        raise ValueError(f"kernel must be one of {', '.join(KERNELS)}, got {kernel!r}")
    if kernel == "torch":
        return "torch"
    missing = []
    if torch.device(device).type != "cuda" or not torch.cuda.is_available():
        missing.append(f"a CUDA device (tensors are on {device})")
    if not triton_imports():
        missing.append("the triton package (pip install 'tian-kernels[triton]')")
    if not missing:
        return "triton"
    if kernel == "triton":
        raise ValueError(f"kernel=triton needs {' and '.join(missing)}; use kernel=auto or kernel=torch")
    return "torch"


def use_triton(kernel: str, device: torch.device, obstacle: str) -> bool:
    """`choose`, and whether the kernel can take these very tensors.

    Args:
        kernel: as in `choose`.
        device: as in `choose`.
        obstacle: why the kernel cannot take the tensors; empty when it can.

    Raises:
        ValueError: `triton` was asked for and there is an obstacle.
    """
    if choose(kernel, device) == "torch":
        return False
    if obstacle and kernel == "triton":
        raise ValueError(f"kernel=triton cannot take this: {obstacle}; use kernel=auto or kernel=torch")
    return not obstacle
