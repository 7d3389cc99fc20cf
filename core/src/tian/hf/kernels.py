"""Where the fused decode kernel of `tian-kernels` stands in for the torch step, and why it does not.

`tian-kernels` is optional: without it, or without a CUDA device, every policy runs in torch with the same result.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from tian.errors import InvalidInput, MissingDependency

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tian.hf.attention import Logits
    from tian.hf.slots import SlotLayer

KERNELS = ("auto", "triton", "torch")
Fused = Callable[..., Any]  # tian_kernels.decode_attention with its `kernel` bound


def fused_kernel(kernel: str, device: torch.device) -> Fused | None:
    """The fused decode step for tensors on `device`, or None: torch.

    Args:
        kernel: `auto` (triton whenever the device is CUDA and it can be imported), `triton` or `torch`.
        device: of the model.

    Raises:
        InvalidInput: another name, or `triton` where it cannot run.
        MissingDependency: `triton` without the package tian-kernels.
    """
    if kernel not in KERNELS:
        raise InvalidInput(f"kernel must be one of {', '.join(KERNELS)}, got {kernel!r}", where="kernel")
    if kernel == "torch" or (kernel == "auto" and device.type != "cuda"):
        return None
    if find_spec("tian_kernels") is None:
        if kernel == "auto":
            return None
        raise MissingDependency(
            "kernel=triton needs the package tian-kernels, which is not installed",
            where="kernel",
            hint="pip install 'tian-kernels[triton]', or set kernel=torch",
        )
    from tian_kernels import choose, decode_attention

    try:
        chosen = choose(kernel, device)
    except ValueError as error:
        raise InvalidInput(str(error), where="kernel", hint="set kernel=auto or kernel=torch") from None
    return partial(decode_attention, kernel="triton") if chosen == "triton" else None


def describe() -> str:
    """What kernel=auto picks on this machine, and why, in one line."""
    if find_spec("tian_kernels") is None:
        return "torch (tian-kernels, which brings fused kernels for CUDA, is not installed)"
    from tian_kernels import choose

    try:
        choose("triton", "cuda")
    except ValueError as error:
        missing = str(error).partition(" needs ")[2].partition(";")[0].replace(" (tensors are on cuda)", "")
        return f"torch (triton would need {missing})"
    return "triton"


def obstacle(layer: SlotLayer, how: Logits) -> str:
    """Why this layer's step cannot run fused; empty when it can. No value is read from the device."""
    policy = layer.policy
    if layer.capacity is None:
        return "the cache is unbounded"
    if policy.victim_ranks(layer.capacity) is None or not policy.needs <= {"colsum"}:
        return f"{type(policy).__name__} chooses its victim in code of its own"
    if layer.pads is not None:
        return "rows of the batch are padded"
    if how.window is not None and how.window <= layer.capacity:
        return f"the model's own sliding window of {how.window} tokens cuts into the cache"
    if how.slopes is not None and policy.positions == "original":
        return "the kernel's bias counts distances inside the cache"
    return ""


def fused_step(
    layer: SlotLayer,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    how: Logits,
) -> Tensor | None:
    """The step in two launches, in place; None when the layer needs the torch step.

    Shapes as in `tian.hf.step.step`; a turned layer brings query and key rotated.
    """
    if layer.fused is None or layer.capacity is None or obstacle(layer, how):
        return None
    from tian_kernels import Rotary, Slots, Victim

    ranks = layer.policy.victim_ranks(layer.capacity)
    assert ranks is not None  # noqa: S101 - see obstacle
    slots = Slots(layer.keys, layer.values, layer.rank, layer.free, layer.used, layer.score)
    cos, sin = layer.rotary.table(layer.keys.shape[2])
    rotary = Rotary(cos, sin, 2 * cos.shape[-1]) if layer.rotary.rotates and not layer.turned else None
    layer.tok.scatter_(2, layer.free.long()[..., None], layer.clock.expand(*layer.free.shape, 1))
    out: Tensor = layer.fused(
        query[:, :, 0],
        key[:, :, 0],
        value[:, :, 0],
        slots,
        victim=Victim(*ranks, decay=float(layer.policy.decay)),
        scale=how.scale,
        rotary=rotary,
        sink=how.sink,
        slope=how.slopes,
    )
    layer.tok.scatter_(2, layer.free.long()[..., None], -1)  # the next token's slot is empty in either case
    return out[:, :, None]
