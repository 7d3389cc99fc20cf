"""Column sums of causal attention: how much each prompt token was attended to, without a T x T matrix."""

# Parameters of kernels are pointers and numbers, typed at the launch:
# ruff: noqa: ANN001
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import torch
from torch import Tensor

from tian_kernels._triton import Launch, jit, pow2, run, tl
from tian_kernels.dispatch import use_triton
from tian_kernels.rotate import MAX_HEAD

REFERENCE_ROWS = 128  # query rows the reference materialises at a time


def prefill_colsum_reference(q: Tensor, k: Tensor, lse: Tensor, *, scale: float, start: Tensor | None = None) -> Tensor:
    """The meaning of `prefill_colsum`, in float32 torch by blocks of queries."""
    B, H, m, D = q.shape
    H_kv, T = k.shape[1:3]
    key = torch.arange(T, device=q.device)
    first = torch.zeros(B, dtype=torch.int64, device=q.device) if start is None else start.long()
    out = torch.zeros(B, H_kv, T, device=q.device)
    grouped = q.view(B, H_kv, H // H_kv, m, D)
    normal = lse.view(B, H_kv, H // H_kv, m).float()
    for at in range(0, m, REFERENCE_ROWS):
        rows = slice(at, min(at + REFERENCE_ROWS, m))
        query = key[T - m :][rows]  # place of the queries among the keys
        logits = grouped[:, :, :, rows].float() @ k.float()[:, :, None].transpose(-1, -2) * scale
        seen = (key <= query[:, None]) & (key >= first[:, None, None]) & (query[:, None] >= first[:, None, None])
        p = (logits - normal[:, :, :, rows, None]).exp().masked_fill(~seen[:, None, None], 0.0)
        out += p.sum(dim=(2, 3))
    return out


@jit
def _colsum(
    q_ptr, k_ptr, lse_ptr, start_ptr, out_ptr, scale, m, T,
    H_KV: tl.constexpr, G: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, BQ: tl.constexpr,
    BK: tl.constexpr,
) -> None:  # fmt: skip
    # One block of keys stays in registers; every later query of the group passes by. One writer per sum: no atomics,
    # and the same order of additions each time. Early key blocks have the most queries and are launched first.
    row = tl.program_id(0)
    j = tl.program_id(1) * BK + tl.arange(0, BK)
    d = tl.arange(0, BD)
    first = 0
    if start_ptr is not None:
        first = tl.load(start_ptr + row // H_KV)
    k_mask = (j < T)[:, None] & (d < D)[None, :]
    k = tl.load(k_ptr + row.to(tl.int64) * T * D + j[:, None] * D + d[None, :], mask=k_mask, other=0.0)
    shift = T - m  # place of query 0 among the keys
    begin = tl.maximum(tl.program_id(1) * BK - shift, 0) // BQ * BQ
    acc = tl.zeros([BK], dtype=tl.float32)
    for g in range(G):
        head = row.to(tl.int64) * G + g
        for i0 in range(begin, m, BQ):
            i = i0 + tl.arange(0, BQ)
            live = i < m
            q_mask = live[:, None] & (d < D)[None, :]
            q = tl.load(q_ptr + head * m * D + i[:, None] * D + d[None, :], mask=q_mask, other=0.0)
            lse = tl.load(lse_ptr + head * m + i, mask=live, other=0.0)
            logits = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
            place = i + shift
            seen = (j[None, :] <= place[:, None]) & (j >= first)[None, :] & (live & (place >= first))[:, None]
            acc += tl.sum(tl.where(seen, tl.exp(logits - lse[:, None]), 0.0), axis=0)
    tl.store(out_ptr + row.to(tl.int64) * T + j, acc, mask=j < T)


def plan(
    q: Tensor, k: Tensor, lse: Tensor, out: Tensor, *, scale: float, start: Tensor | None, block: int | None = None
) -> list[Launch]:
    """The launch that fills `out` `[B, H_kv, T]`. Blocks of 64 keys by 64 queries; 32 in float32, which spills at 64."""
    block = block or (32 if q.dtype == torch.float32 else 64)
    H, m, D = q.shape[1:]
    B, H_kv, T = out.shape
    constants = {"H_KV": H_kv, "G": H // H_kv, "D": D, "BD": pow2(D, least=16), "BQ": block, "BK": block}
    args = (q, k, lse, start, out, scale, m, T)
    return [Launch(_colsum, (B * H_kv, -(-T // block)), args, constants)]


def _obstacle(q: Tensor, k: Tensor, lse: Tensor) -> str:
    if not (q.is_contiguous() and k.is_contiguous() and lse.is_contiguous()):
        return "q, k and lse must be contiguous"
    if q.dtype not in (torch.float16, torch.bfloat16, torch.float32) or q.shape[-1] > MAX_HEAD:
        return f"q must be float16, bfloat16 or float32 with at most {MAX_HEAD} channels, got {q.dtype}, {q.shape[-1]}"
    return ""


def supported(q: Tensor, k: Tensor, lse: Tensor) -> bool:
    """Whether the triton kernel takes these tensors (else the reference runs)."""
    return not _obstacle(q, k, lse)


def bytes_moved(q: Tensor, k: Tensor) -> int:
    """B (H m D + H_kv T D) e + 4 B H m + 4 B H_kv T, in bytes: q, k and lse read, sums written, each once.

    Compute bound: flops are 2 B H D m (T - (m - 1) / 2) for the products, of which m = T gives B H D T (T + 1).
    """
    B, H, m, D = q.shape
    H_kv, T = k.shape[1:3]
    return B * (H * m * D + H_kv * T * D) * q.element_size() + 4 * B * H * m + 4 * B * H_kv * T


def prefill_colsum(
    q: Tensor, k: Tensor, lse: Tensor, *, scale: float, start: Tensor | None = None, kernel: str = "auto"
) -> Tensor:
    """Sum over queries and grouped heads of softmax(q k^T scale), causal, from the row normalisers of a first pass.

    Args:
        q: `[B, H, m, D]` rotated; the queries of the last m of T tokens, m <= T.
        k: `[B, H_kv, T, D]` rotated, dtype of q.
        lse: `[B, H, m]` float32, log of the sum of exp of each query's logits, as flash attention returns it.
        scale: factor of the logits.
        start: `[B]` int32, first real token of each left-padded row; padding neither gives nor gets. None: no padding.
        kernel: `auto`, `triton` or `torch`, see `choose`.

    Returns:
        `[B, H_kv, T]` float32; sums to H times the number of real queries of a row. Memory beyond it: none (triton),
        128 rows of logits (torch). Deterministic.

    Raises:
        ValueError: shapes that do not fit, or a kernel that cannot run.

    Source: the accumulated attention of arXiv 2306.14048 section 4; the two passes are ours.
    """
    B, H, m, D = q.shape
    H_kv, T = k.shape[1:3]
    if k.shape != (B, H_kv, T, D) or k.dtype != q.dtype or H % H_kv or m > T:
        raise ValueError(
            f"q [B, H, m, D] and k [B, H_kv, T, D] need one dtype, H a multiple of H_kv and m <= T, got "
            f"{tuple(q.shape)} {q.dtype} and {tuple(k.shape)} {k.dtype}"
        )
    if lse.shape != (B, H, m) or lse.dtype != torch.float32:
        raise ValueError(f"lse must be {(B, H, m)} float32, got {tuple(lse.shape)} {lse.dtype}")
    if start is not None and (start.shape != (B,) or start.dtype != torch.int32):
        raise ValueError(f"start must be ({B},) int32, got {tuple(start.shape)} {start.dtype}")
    if not use_triton(kernel, q.device, _obstacle(q, k, lse)):
        return prefill_colsum_reference(q, k, lse, scale=scale, start=start)
    out = torch.empty(B, H_kv, T, device=q.device)
    run(plan(q, k, lse, out, scale=scale, start=start), q.device)
    return out
