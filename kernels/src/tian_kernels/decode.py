"""One decoding step over a slot cache: write the new token, attend, score, evict. Two launches, no host sync.

Pass 1 reads every key and value once, over splits of the slots. Pass 2 joins the splits, adds the attention just
computed to the scores, and in its epilogue picks the victim, so that eviction reads nothing twice. All counts live on
the device: one CUDA graph serves a cache that fills and one that is full.
"""

# Parameters of kernels are pointers and numbers, typed at the launch:
# ruff: noqa: ANN001
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import torch
from torch import Tensor

from tian_kernels._triton import Launch, jit, pow2, precision, run, tl
from tian_kernels.dispatch import use_triton
from tian_kernels.rotate import MAX_HEAD, Rotary, rotate_by_table_reference
from tian_kernels.slots import Slots, Victim, settle_reference

MAX_GROUP = 64  # query heads of one key/value head
ONE_WAVE = 264  # programs that fill a GPU of 132 multiprocessors twice


def decode_attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slots: Slots,
    *,
    victim: Victim,
    scale: float,
    rotary: Rotary | None = None,
    sink: Tensor | None = None,
    slope: Tensor | None = None,
) -> Tensor:
    """The meaning of `decode_attention`, step by step in float32 torch."""
    B, H, D = q.shape
    H_kv, N = slots.keys.shape[1:3]
    G = H // H_kv
    free = slots.free.long()[..., None]
    where = free.expand(B, H_kv, 1)[..., None].expand(B, H_kv, 1, D)
    slots.keys.scatter_(2, where, k[:, :, None])
    slots.values.scatter_(2, where, v[:, :, None])
    slots.rank.scatter_(2, free, slots.count[..., None])
    rank = slots.rank.expand(B, H_kv, N)
    here = slots.count.expand(B, H_kv)[..., None]  # rank of the new token, position of the query
    query, keys = q.view(B, H_kv, G, D).float(), slots.keys.float()
    if rotary is not None:
        query = rotate_by_table_reference(query, here.expand(B, H_kv, G), rotary)
        keys = rotate_by_table_reference(keys, rank.clamp(min=0), rotary)
    logits = query @ keys.transpose(-1, -2) * scale  # [B, H_kv, G, N]
    if slope is not None:
        logits = logits - slope.float().view(1, H_kv, G, 1) * (here - rank)[:, :, None]
    logits = logits.masked_fill(rank[:, :, None] < 0, -torch.inf)
    if sink is not None:  # one more logit, whose value is zero
        logits = torch.cat([logits, sink.float().view(1, H_kv, G, 1).expand(B, -1, -1, -1)], dim=-1)
    p = logits.softmax(dim=-1)[..., :N]
    if slots.score is not None:
        # A slot's former tenant leaves its score behind.
        slots.score.mul_(victim.decay).scatter_(2, free, 0.0).add_(p.sum(dim=2))
    settle_reference(slots, victim)
    return (p @ slots.values.float()).view(B, H, D).to(q.dtype)


@jit
def _attend(
    q_ptr, k_ptr, v_ptr, keys_ptr, values_ptr, rank_ptr, free_ptr, count_ptr,
    cos_ptr, sin_ptr, slope_ptr, logits_ptr, m_ptr, l_ptr, acc_ptr,
    scale, N, per_split, table_stride, logits_stride,
    H_KV: tl.constexpr, G: tl.constexpr, GP: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, R2: tl.constexpr, BR2: tl.constexpr,
    BT: tl.constexpr, ROW_B: tl.constexpr, ROW_H: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
) -> None:  # fmt: skip
    # Pass 1. A head is three tiles: the halves lo and hi of its R2 rotating pairs, and a rest that keeps still. Every
    # operand becomes float32 right after its load.
    pid, split, splits = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    row = (pid // H_KV) * ROW_B + (pid % H_KV) * ROW_H
    free, count = tl.load(free_ptr + row), tl.load(count_ptr + row)
    g, d, r, t = tl.arange(0, GP), tl.arange(0, BD), tl.arange(0, BR2), 2 * R2 + tl.arange(0, BT)
    head = pid * G + g
    in_d, in_r, in_t = (d < D)[None, :], (r < R2)[None, :], (t < D)[None, :]
    group = (g < G)[:, None]
    base = pid.to(tl.int64) * N * D
    q_at = q_ptr + head[:, None] * D
    if R2 > 0:
        q_cos = tl.load(cos_ptr + count * table_stride + r, mask=r < R2, other=0.0).to(tl.float32)[None, :]
        q_sin = tl.load(sin_ptr + count * table_stride + r, mask=r < R2, other=0.0).to(tl.float32)[None, :]
        q_even = tl.load(q_at + r[None, :], mask=group & in_r, other=0.0).to(tl.float32) * scale
        q_odd = tl.load(q_at + R2 + r[None, :], mask=group & in_r, other=0.0).to(tl.float32) * scale
        q_lo, q_hi = q_even * q_cos - q_odd * q_sin, q_odd * q_cos + q_even * q_sin
        new_lo = tl.load(k_ptr + pid * D + r, mask=r < R2, other=0.0).to(tl.float32)[None, :]
        new_hi = tl.load(k_ptr + pid * D + R2 + r, mask=r < R2, other=0.0).to(tl.float32)[None, :]
    if 2 * R2 < D:
        q_rest = tl.load(q_at + t[None, :], mask=group & in_t, other=0.0).to(tl.float32) * scale
        new_rest = tl.load(k_ptr + pid * D + t, mask=t < D, other=0.0).to(tl.float32)[None, :]
    new_value = tl.load(v_ptr + pid * D + d, mask=d < D, other=0.0)
    if slope_ptr is not None:
        slope = tl.load(slope_ptr + (pid % H_KV) * G + g, mask=g < G, other=0.0).to(tl.float32)

    m = tl.full([GP], -1e30, dtype=tl.float32)  # not -inf: a split may be empty
    norm = tl.zeros([GP], dtype=tl.float32)
    acc = tl.zeros([GP, BD], dtype=tl.float32)
    begin = split * per_split
    end = tl.minimum(begin + per_split, N)
    for at in range(begin, end, BLOCK):
        slot = at + tl.arange(0, BLOCK)
        rank = tl.load(rank_ptr + row * N + slot, mask=slot < end, other=-1)
        # The new token's slot is never read: its split stores it below, while others may run.
        fresh = slot == free
        old = (rank >= 0) & (slot != free)
        here = tl.where(fresh, count, tl.maximum(rank, 0))
        keys_at = keys_ptr + base + slot[:, None] * D
        logits = tl.zeros([GP, BLOCK], dtype=tl.float32)
        if R2 > 0:
            table = here[:, None] * table_stride + r[None, :]
            k_mask = old[:, None] & in_r
            cos = tl.load(cos_ptr + table, mask=in_r, other=0.0).to(tl.float32)
            sin = tl.load(sin_ptr + table, mask=in_r, other=0.0).to(tl.float32)
            lo = tl.load(keys_at + r[None, :], mask=k_mask, other=0.0).to(tl.float32)
            hi = tl.load(keys_at + R2 + r[None, :], mask=k_mask, other=0.0).to(tl.float32)
            lo, hi = tl.where(fresh[:, None], new_lo, lo), tl.where(fresh[:, None], new_hi, hi)
            logits = tl.dot(q_lo, tl.trans(lo * cos - hi * sin), logits, input_precision=PRECISION)
            logits = tl.dot(q_hi, tl.trans(hi * cos + lo * sin), logits, input_precision=PRECISION)
        if 2 * R2 < D:
            rest = tl.load(keys_at + t[None, :], mask=old[:, None] & in_t, other=0.0).to(tl.float32)
            rest = tl.where(fresh[:, None], new_rest, rest)
            logits = tl.dot(q_rest, tl.trans(rest), logits, input_precision=PRECISION)
        if slope_ptr is not None:
            logits -= slope[:, None] * (count - here)[None, :].to(tl.float32)
        valid = (old | (fresh & (slot < end)))[None, :]
        logits = tl.where(valid, logits, -1e30)
        if logits_ptr is not None:
            tl.store(
                logits_ptr + head[:, None] * logits_stride + slot[None, :], logits, mask=group & (slot < end)[None, :]
            )
        above = tl.maximum(m, tl.max(logits, axis=1))
        shrink = tl.exp(m - above)
        p = tl.where(valid, tl.exp(logits - above[:, None]), 0.0)
        value = tl.load(values_ptr + base + slot[:, None] * D + d[None, :], mask=old[:, None] & in_d, other=0.0).to(
            tl.float32
        )
        value = tl.where(fresh[:, None], new_value.to(tl.float32)[None, :], value)
        norm = norm * shrink + tl.sum(p, axis=1)
        acc = tl.dot(p, value, acc * shrink[:, None], input_precision=PRECISION)
        m = above
    part = head * splits + split
    tl.store(m_ptr + part, m, mask=g < G)
    tl.store(l_ptr + part, norm, mask=g < G)
    tl.store(acc_ptr + part[:, None] * D + d[None, :], acc, mask=group & in_d)
    width = tl.where((free >= begin) & (free < end), D, 0)  # as a bound: the interpreter cannot mask by a scalar
    new_key = tl.load(k_ptr + pid * D + d, mask=d < D, other=0.0)
    tl.store(keys_ptr + base + free * D + d, new_key, mask=d < width)
    tl.store(values_ptr + base + free * D + d, new_value, mask=d < width)


@jit
def _settle(
    out_ptr, logits_ptr, m_ptr, l_ptr, acc_ptr, sink_ptr, score_ptr, rank_ptr,
    free_ptr, count_ptr, N, logits_stride, decay, first, last,
    SPLITS: tl.constexpr, SP: tl.constexpr, H_KV: tl.constexpr, G: tl.constexpr, GP: tl.constexpr, D: tl.constexpr, BD: tl.constexpr,
    ROW_B: tl.constexpr, ROW_H: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    # Pass 2, one program a key/value head.
    pid = tl.program_id(0)
    g, d, s = tl.arange(0, GP), tl.arange(0, BD), tl.arange(0, SP)
    head = pid * G + g
    group = g < G
    parts = head[:, None] * SPLITS + s[None, :]
    in_parts = group[:, None] & (s < SPLITS)[None, :]
    ms = tl.load(m_ptr + parts, mask=in_parts, other=-1e30)
    top = tl.max(ms, axis=1)
    if sink_ptr is not None:
        sink = tl.load(sink_ptr + (pid % H_KV) * G + g, mask=group, other=-1e30).to(tl.float32)
        top = tl.maximum(top, sink)
    norm = tl.sum(tl.load(l_ptr + parts, mask=in_parts, other=0.0) * tl.exp(ms - top[:, None]), axis=1)
    if sink_ptr is not None:
        norm += tl.exp(sink - top)
    norm = tl.where(group, norm, 1.0)
    acc = tl.zeros([GP, BD], dtype=tl.float32)
    for j in range(SPLITS):
        weight = tl.exp(tl.load(m_ptr + head * SPLITS + j, mask=group, other=-1e30) - top)
        part = (head * SPLITS + j)[:, None] * D + d[None, :]
        acc += weight[:, None] * tl.load(acc_ptr + part, mask=group[:, None] & (d < D)[None, :], other=0.0)
    tl.store(out_ptr + head[:, None] * D + d[None, :], acc / norm[:, None], mask=group[:, None] & (d < D)[None, :])

    # Shared rows of bookkeeping belong to the first program that uses them.
    if ((ROW_B > 0) | (pid // H_KV == 0)) & ((ROW_H > 0) | (pid % H_KV == 0)):
        row = (pid // H_KV) * ROW_B + (pid % H_KV) * ROW_H
        free, count = tl.load(free_ptr + row), tl.load(count_ptr + row)
        low = tl.full([], float("inf"), dtype=tl.float32)
        gone = tl.full([], 2147483647, dtype=tl.int32)
        victim = tl.full([], 0, dtype=tl.int32)
        for at in range(0, N, BLOCK):
            slot = at + tl.arange(0, BLOCK)
            inside = slot < N
            rank = tl.load(rank_ptr + row * N + slot, mask=inside, other=-1)
            rank = tl.where(slot == free, count, rank)
            eligible = inside & (rank >= first) & (rank <= last)
            key = tl.zeros([BLOCK], dtype=tl.float32)
            if score_ptr is not None:
                logits = tl.load(
                    logits_ptr + head[:, None] * logits_stride + slot[None, :],
                    mask=group[:, None] & inside[None, :],
                    other=-1e30,
                )
                p = tl.where(group[:, None], tl.exp(logits - top[:, None]) / norm[:, None], 0.0)
                score = tl.load(score_ptr + pid * N + slot, mask=inside, other=0.0) * decay
                # A slot's former tenant leaves its score behind.
                score = tl.where(slot == free, 0.0, score) + tl.sum(p, axis=0)
                tl.store(score_ptr + pid * N + slot, score, mask=inside)
                key = tl.where(score == score, score, float("-inf"))  # noqa: PLR0124 - not a number: goes first
            key = tl.where(eligible, key, float("inf"))
            low_here = tl.min(key, axis=0)
            gone_here = tl.min(tl.where(eligible & (key == low_here), rank, 2147483647), axis=0)
            slot_here = tl.min(tl.where(eligible & (rank == gone_here), slot, N), axis=0)
            better = (low_here < low) | ((low_here == low) & (gone_here < gone))
            low, gone = tl.where(better, low_here, low), tl.where(better, gone_here, gone)
            victim = tl.where(better, slot_here, victim)
        tl.debug_barrier()  # every thread has read what is overwritten now
        if count + 1 == N:
            for at in range(0, N, BLOCK):
                slot = at + tl.arange(0, BLOCK)
                rank = tl.load(rank_ptr + row * N + slot, mask=slot < N, other=-1)
                rank = tl.where(slot == free, count, rank)
                rank = tl.where(slot == victim, -1, tl.where(rank > gone, rank - 1, rank))
                tl.store(rank_ptr + row * N + slot, rank, mask=slot < N)
            tl.store(free_ptr + row, victim)
        else:
            tl.store(rank_ptr + row * N + free, count)
            tl.store(count_ptr + row, count + 1)
            tl.store(free_ptr + row, free + 1)


def _splits(rows: int, N: int, block: int, device: torch.device) -> int:
    """Splits of the slots: enough programs for two waves, at least one block each."""
    programs = ONE_WAVE
    if device.type == "cuda":
        programs = 2 * torch.cuda.get_device_properties(device).multi_processor_count
    return max(1, min(-(-programs // rows), -(-N // block)))


def plan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slots: Slots,
    out: Tensor,
    *,
    victim: Victim,
    scale: float,
    rotary: Rotary | None = None,
    sink: Tensor | None = None,
    slope: Tensor | None = None,
    block: int = 32,
    splits: int | None = None,
) -> list[Launch]:
    """Both launches, and the partial results between them. `block` slots at a time in pass 1."""
    B, H, D = q.shape
    H_kv, N = slots.keys.shape[1:3]
    G = H // H_kv
    blocks = -(-N // block)
    per_split = -(-blocks // (splits or _splits(B * H_kv, N, block, q.device))) * block
    S = -(-N // per_split)
    padded = blocks * block
    logits = None if slots.score is None else q.new_empty(B, H, padded, dtype=torch.float32)
    m, norm = q.new_empty(2, B, H, S, dtype=torch.float32)
    acc = q.new_empty(B, H, S, D, dtype=torch.float32)
    half = 0 if rotary is None else rotary.channels // 2
    cos, sin, stride = (None, None, 0) if rotary is None else (rotary.cos, rotary.sin, rotary.cos.stride(0))
    book = slots.rank.shape[:2]
    same = {
        "H_KV": H_kv,
        "G": G,
        "D": D,
        "ROW_B": book[1] if book[0] > 1 else 0,
        "ROW_H": 1 if book[1] > 1 else 0,
    }
    tiles = {
        "GP": pow2(G, least=16),
        "BD": pow2(D, least=16),
        "R2": half,
        "BR2": pow2(half, least=16),
        "BT": pow2(D - 2 * half, least=16),
        "BLOCK": block,
        "PRECISION": precision(q.dtype),
    }
    state = (slots.rank, slots.free, slots.count)
    attend = (q, k, v, slots.keys, slots.values, *state, cos, sin, slope, logits, m, norm, acc)
    numbers = (scale, N, per_split, stride, padded)
    settle = (out, logits, m, norm, acc, sink, slots.score, *state, N, padded)
    rule = (float(victim.decay), victim.first, victim.last)
    # 256 slots at a time in pass 2: no fewer than threads, so no two threads hold one slot.
    warps = 8 if q.dtype == torch.float32 else 4  # at 4 a wide head in float32 spills registers
    ends = {"SPLITS": S, "SP": pow2(S), "GP": pow2(G), "BD": pow2(D), "BLOCK": 256}
    return [
        Launch(_attend, (B * H_kv, S), (*attend, *numbers), {**same, **tiles}, num_warps=warps),
        Launch(_settle, (B * H_kv,), (*settle, *rule), {**same, **ends}, num_stages=1),
    ]


def _obstacle(q: Tensor, slots: Slots, rotary: Rotary | None) -> str:
    B, H, D = q.shape
    H_kv, N = slots.keys.shape[1:3]
    state = (slots.keys, slots.values, slots.rank, slots.free, slots.count, slots.score)
    if not all(x is None or x.is_contiguous() for x in state):
        return "slot tensors must be contiguous"
    if q.dtype not in (torch.float16, torch.bfloat16, torch.float32) or D > MAX_HEAD or MAX_GROUP * H_kv < H:
        return (
            f"needs float16, bfloat16 or float32, at most {MAX_HEAD} channels and {MAX_GROUP} query heads a key/value "
            f"head, got {q.dtype}, {D}, {H // H_kv}"
        )
    if max(N * D, B * H * (N + 64)) >= 2**31:
        return f"{B} rows of {H} heads and {N} slots pass 32-bit offsets"
    return "" if rotary is None else rotary.obstacle()


def supported(q: Tensor, slots: Slots, rotary: Rotary | None = None) -> bool:
    """Whether the triton kernels take these tensors (else the reference runs)."""
    return not _obstacle(q, slots, rotary)


def bytes_moved(q: Tensor, slots: Slots, rotary: Rotary | None = None) -> int:
    """Bytes of a step of full slots: what a device must move at least.

    B H_kv C 2 D e (keys, values) + B H_kv 4 D e (the new ones, read and written) + B H 2 D e (q, out)
    + rows N 12 (ranks: read by both passes, written) + N R e_t (tables, once: later reads come from L2)
    + with scores: B H N 8 (logits, out and in) + B H_kv N 8 (scores, in and out).
    Partial results of splits (B H S (8 D + 16)) stay in L2 and are not counted. Flops: B H N (4 D + 3 R / G).
    """
    B, H, D = q.shape
    H_kv, N = slots.keys.shape[1:3]
    e = slots.keys.element_size()
    total = B * H_kv * (2 * (N - 1) + 4) * D * e + B * H * 2 * D * e + slots.rank.numel() * 12
    if rotary is not None:
        total += N * rotary.channels * rotary.cos.element_size()
    if slots.score is not None:
        total += B * (H + H_kv) * N * 8
    return total


def decode_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slots: Slots,
    *,
    victim: Victim,
    scale: float,
    rotary: Rotary | None = None,
    sink: Tensor | None = None,
    slope: Tensor | None = None,
    kernel: str = "auto",
) -> Tensor:
    """Attend from one new token to the kept ones and itself, then evict one token from every full row.

    Args:
        q: `[B, H, D]`, unrotated; H is a multiple of H_kv.
        k: `[B, H_kv, D]`, the new token's key, unrotated.
        v: `[B, H_kv, D]`, its value.
        slots: the cache, updated in place.
        victim: who goes.
        scale: factor of the logits.
        rotary: tables of at least N rows; a token's position is its rank. None: no rotation.
        sink: `[H]`, a learned logit per head that takes part in the softmax and has no value; None: none.
        slope: `[H]`, ALiBi: logits lose slope times the distance in ranks; None: none.
        kernel: `auto`, `triton` or `torch`, see `choose`.

    Returns:
        `[B, H, D]`, dtype of q; accumulated in float32.

    Raises:
        ValueError: shapes, dtypes or a victim that do not fit, or a kernel that cannot run.

    Source: ours; "append, attend, evict to C" of arXiv 2309.17453 section 3.2 and arXiv 2306.14048 algorithm 1.
    """
    slots.check()
    slots.check_token(q, k, v)
    victim.check(slots)
    if rotary is not None:
        rotary.check(q.shape[-1], positions=slots.keys.shape[2])
    for name, per_head in (("sink", sink), ("slope", slope)):
        if per_head is not None and (per_head.shape != q.shape[1:2] or not per_head.is_contiguous()):
            raise ValueError(
                f"{name} must hold one number per query head, contiguous ({q.shape[1]},), got {tuple(per_head.shape)}"
            )
    if not use_triton(kernel, q.device, _obstacle(q, slots, rotary)):
        return decode_attention_reference(
            q, k, v, slots, victim=victim, scale=scale, rotary=rotary, sink=sink, slope=slope
        )
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    out = torch.empty_like(q)
    run(plan(q, k, v, slots, out, victim=victim, scale=scale, rotary=rotary, sink=sink, slope=slope), q.device)
    return out
