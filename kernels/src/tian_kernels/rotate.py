"""Rotary positions by table: rotate half-split channel pairs to given positions."""

# Parameters of kernels are pointers and numbers, typed at the launch:
# ruff: noqa: ANN001
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tian_kernels._triton import Launch, jit, pow2, run, tl
from tian_kernels.dispatch import use_triton

MAX_HEAD = 256  # channels; a tile of a head must fit into registers


@dataclass(frozen=True)
class Rotary:
    """cos and sin by position. Build them from float64 angles: float32 ones are off by 6e-5 rad at position 1000."""

    cos: Tensor  # [P, W], W >= channels / 2; only the first channels / 2 columns are read
    sin: Tensor  # [P, W]
    channels: int  # R, leading channels that rotate: pair i is (i, i + R/2); even

    def check(self, D: int, *, positions: int) -> None:
        """Refuse tables that do not fit heads of D channels, or hold fewer than `positions` rows.

        Raises:
            ValueError: naming what does not fit.
        """
        R = self.channels
        if R < 2 or R % 2 or R > D:
            raise ValueError(f"rotary channels must be even, in 2..{D} (the head size), got {R}")
        if self.cos.shape != self.sin.shape or self.cos.dim() != 2 or self.cos.shape[1] < R // 2:
            raise ValueError(
                f"cos and sin must be [P, >= {R // 2}], got {tuple(self.cos.shape)} and {tuple(self.sin.shape)}"
            )
        if self.cos.shape[0] < positions:
            raise ValueError(f"rotary tables must reach position {positions - 1}, they have {self.cos.shape[0]} rows")

    def obstacle(self) -> str:
        """Why the kernels cannot read the tables; empty when they can."""
        same = self.cos.stride() == self.sin.stride() and self.cos.dtype == self.sin.dtype
        return "" if same and self.cos.stride(1) == 1 else "cos and sin differ in layout, or rows are not contiguous"


def rotate_by_table_reference(x: Tensor, position: Tensor, rotary: Rotary) -> Tensor:
    """The meaning of `rotate_by_table`, in float32 torch; also takes float64."""
    half = rotary.channels // 2
    work = torch.promote_types(x.dtype, torch.float32)
    index = position.long()
    cos, sin = rotary.cos[:, :half].to(work)[index], rotary.sin[:, :half].to(work)[index]
    lo, hi = x[..., :half].to(work), x[..., half : 2 * half].to(work)
    turned = torch.cat([lo * cos - hi * sin, hi * cos + lo * sin], dim=-1).to(x.dtype)
    return torch.cat([turned, x[..., 2 * half :]], dim=-1)


@jit
def _rotate(
    x_ptr, out_ptr, position_ptr, cos_ptr, sin_ptr, n, table_stride,
    H: tl.constexpr, ROW_B: tl.constexpr, ROW_H: tl.constexpr, D: tl.constexpr, R2: tl.constexpr,
    BR2: tl.constexpr, BT: tl.constexpr, COPY: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    # Each program reads and writes its own tile only, all of it read before the first store: in place is safe.
    row = tl.program_id(0)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    live = at < n
    position = tl.load(position_ptr + ((row // H) * ROW_B + (row % H) * ROW_H) * n + at, mask=live, other=0)
    base = row.to(tl.int64) * n * D
    d = tl.arange(0, BR2)
    mask = live[:, None] & (d < R2)[None, :]
    table = position[:, None] * table_stride + d[None, :]
    cos = tl.load(cos_ptr + table, mask=mask, other=0.0).to(tl.float32)
    sin = tl.load(sin_ptr + table, mask=mask, other=0.0).to(tl.float32)
    where = at[:, None] * D + d[None, :]
    lo = tl.load(x_ptr + base + where, mask=mask, other=0.0).to(tl.float32)
    hi = tl.load(x_ptr + base + where + R2, mask=mask, other=0.0).to(tl.float32)
    tl.store(out_ptr + base + where, lo * cos - hi * sin, mask=mask)
    tl.store(out_ptr + base + where + R2, hi * cos + lo * sin, mask=mask)
    if COPY:
        t = 2 * R2 + tl.arange(0, BT)
        rest = at[:, None] * D + t[None, :]
        keep = live[:, None] & (t < D)[None, :]
        tl.store(out_ptr + base + rest, tl.load(x_ptr + base + rest, mask=keep), mask=keep)


def plan(x: Tensor, position: Tensor, rotary: Rotary, out: Tensor, *, block: int = 32) -> list[Launch]:
    """The launch that writes `x` rotated to `out`; `out` may be `x`."""
    B, H, n, D = x.shape
    rows_b, rows_h = position.shape[:2]
    half = rotary.channels // 2
    constants = {
        "H": H,
        "ROW_B": rows_h if rows_b > 1 else 0,
        "ROW_H": 1 if rows_h > 1 else 0,
        "D": D,
        "R2": half,
        "BR2": pow2(half),
        "BT": pow2(D - 2 * half),
        "COPY": int(out.data_ptr() != x.data_ptr() and 2 * half < D),
        "BLOCK": block,
    }
    args = (x, out, position, rotary.cos, rotary.sin, n, rotary.cos.stride(0))
    return [Launch(_rotate, (B * H, -(-n // block)), args, constants)]


def _obstacle(x: Tensor, position: Tensor, rotary: Rotary) -> str:
    if not (x.is_contiguous() and position.is_contiguous()):
        return "x and position must be contiguous"
    if x.dtype not in (torch.float16, torch.bfloat16, torch.float32) or x.shape[-1] > MAX_HEAD:
        return f"x must be float16, bfloat16 or float32 with at most {MAX_HEAD} channels, got {x.dtype}, {x.shape[-1]}"
    return rotary.obstacle()


def supported(x: Tensor, position: Tensor, rotary: Rotary) -> bool:
    """Whether the triton kernel takes these tensors (else the reference runs)."""
    return not _obstacle(x, position, rotary)


def bytes_moved(x: Tensor, rotary: Rotary, *, in_place: bool) -> int:
    """B H n (2 W e + 4) + min(n, P) R e_t, in bytes: each row read and written, positions, the table once.

    W is D out of place and R in place; e and e_t are the bytes of an element of x and of the tables.
    Flops: 3 B H n R.
    """
    B, H, n, D = x.shape
    width = rotary.channels if in_place else D
    table = min(n, rotary.cos.shape[0]) * rotary.channels * rotary.cos.element_size()
    return B * H * n * (2 * width * x.element_size() + 4) + table


def _checked(x: Tensor, position: Tensor, rotary: Rotary) -> None:
    if x.dim() != 4:
        raise ValueError(f"x must be [B, H, n, D], got {tuple(x.shape)}")
    B, H, n, D = x.shape
    ok = position.dim() == 3 and position.shape[0] in (1, B) and position.shape[1] in (1, H) and position.shape[2] == n
    if not ok or position.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            f"position must be int32 or int64 [{B} or 1, {H} or 1, {n}], got {position.dtype} {tuple(position.shape)}"
        )
    rotary.check(D, positions=1)


def rotate_by_table(x: Tensor, position: Tensor, rotary: Rotary, *, kernel: str = "auto") -> Tensor:
    """Rotate the first R channels of `x` to `position`.

    Args:
        x: `[B, H, n, D]` float16, bfloat16 or float32; arithmetic is float32.
        position: int32 or int64 `[B or 1, H or 1, n]`, each in 0..P-1 (not read back, hence not checked).
        rotary: tables.
        kernel: `auto`, `triton` or `torch`, see `choose`.

    Returns:
        `[B, H, n, D]`, dtype of `x`.

    Raises:
        ValueError: shapes that do not fit, or a kernel that cannot run.

    Source: arXiv 2104.09864 equation 34, with the pairs half a head apart as in GPT-NeoX and Llama.
    """
    _checked(x, position, rotary)
    if not use_triton(kernel, x.device, _obstacle(x, position, rotary)):
        return rotate_by_table_reference(x, position, rotary)
    out = torch.empty_like(x)
    run(plan(x, position, rotary, out), x.device)
    return out


def rotate_by_table_(x: Tensor, position: Tensor, rotary: Rotary, *, kernel: str = "auto") -> Tensor:
    """`rotate_by_table`, in place.

    For keys rotated once. In 16 bits each further rotation in place rounds again: 13 % after 256 shifts, so never once
    per eviction.
    """
    _checked(x, position, rotary)
    if use_triton(kernel, x.device, _obstacle(x, position, rotary)):
        run(plan(x, position, rotary, x), x.device)
        return x
    return x.copy_(rotate_by_table_reference(x, position, rotary))
