"""The kernels against what they could reach: achieved bytes a second on a GPU; without one, the torch reference.

On CUDA each measurement is one graph of up to 100 runs over rotating buffers larger than the L2 cache, which is flushed
before every replay; printed are the median and the 5th and 95th percentile of 20 replays, bytes of the formula over
time, and the share of the bandwidth a plain copy reaches on the same device. On CPU the reference of the decoding step
is timed against `SlotLayer`, steps of both interleaved.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from _result import save

from tian.hf.cache import SlotLayer
from tian.hf.rotary import Rotary as ModelRotary
from tian.testing.fakes import FakeKVPolicy
from tian_kernels import (
    Rotary,
    Slots,
    Victim,
    colsum,
    decode,
    decode_attention,
    prefill_colsum,
    rotate,
    rotate_by_table,
)
from tian_kvcache.options import StreamingOptions
from tian_kvcache.policies import Streaming

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS, REPLAYS = 100, 20
SECONDS = 0.03  # of one replay: fewer runs of what takes long
H, H_KV, D = 32, 8, 128  # an 8B model with grouped heads
SINKS = 4
# B, capacity, key/value heads; the last ones have as many as query heads, as a 7B model without groups
SIZES = ((1, 2048, 8), (1, 8192, 8), (8, 2048, 8), (32, 2048, 8), (32, 8192, 8), (1, 4096, 32), (8, 4096, 32))

SPEED = 10000.0 ** (-torch.arange(0, D, 2, dtype=torch.float64) / D)


def tables(n: int, device: str) -> Rotary:
    angle = torch.arange(n, device=device)[:, None] * SPEED.to(device)
    return Rotary(angle.cos().float(), angle.sin().float(), D)


def full_slots(B: int, H_kv: int, capacity: int, like: torch.Tensor, *, scores: bool) -> Slots:
    slots = Slots.empty((B, H_kv), like, capacity=capacity, shared=None if scores else (1, 1))
    slots.keys.normal_()
    slots.values.normal_()
    slots.rank[..., :capacity] = torch.arange(capacity, device=like.device)
    slots.free.fill_(capacity)
    slots.count.fill_(capacity)
    return slots


def victim(capacity: int, *, scores: bool) -> Victim:
    return Victim(SINKS, capacity // 2 if scores else SINKS)


# -- CUDA ---------------------------------------------------------------------------------------------------------------


def copies_for(one: int) -> int:
    """Buffers to rotate through, so that none is left in L2 when its turn comes."""
    return max(2, -(-3 * torch.cuda.get_device_properties(0).L2_cache_size // one))


def graph_times(calls: list[Callable[[], Any]]) -> list[float]:
    """Microseconds a run, sorted: REPLAYS replays of a graph of up to RUNS runs, L2 flushed in between."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for call in calls:  # compiles
            call()
        side.synchronize()
        begin = time.perf_counter()
        for call in calls:
            call()
        side.synchronize()
        each = (time.perf_counter() - begin) / len(calls)
    runs = max(2, min(RUNS, int(SECONDS / each)))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in islice(cycle(calls), runs):
            call()
    flush = torch.empty(512 * 2**20, dtype=torch.int8, device="cuda")
    times = []
    for _ in range(REPLAYS + 3):
        flush.zero_()
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(1000 * start.elapsed_time(end) / runs)
    return sorted(times[3:])


def row(name: str, times: list[float], bytes_: int, peak: float) -> dict[str, Any]:
    median = statistics.median(times)
    rate = bytes_ / median / 1000
    out = {
        "kernel": name,
        "us": round(median, 2),
        "us_5": round(times[len(times) // 20], 2),
        "us_95": round(times[-1 - len(times) // 20], 2),
        "GB_s": round(rate, 1),
        "of_copy": round(rate / peak, 3),
    }
    print("  ".join(f"{k} {v}" for k, v in out.items()))
    return out


def normal(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, dtype=torch.bfloat16, device="cuda").normal_()


def copy_bandwidth() -> float:
    """GB/s of an element-wise kernel that reads as much as it writes, which is what a kernel can hope for.

    Not of `copy_`: in a graph that is a memcpy, which reached 2.8 TB/s on an H200 where kernels reach 4.4.
    """
    source = normal(2**29)
    times = graph_times([partial(torch.neg, source, out=torch.empty_like(source))])
    return 2 * source.nbytes / statistics.median(times) / 1000


def decode_rows(B: int, capacity: int, peak: float, *, H_kv: int = H_KV) -> list[dict[str, Any]]:
    """With scores, by age, and torch's attention over the same slots, which neither rotates, scores nor evicts."""
    rotary = tables(capacity + 1, "cuda")
    q, k = normal(B, H, D), normal(B, H_kv, D)
    like = normal(D)
    number = copies_for(4 * B * H_kv * capacity * D)
    scored = [full_slots(B, H_kv, capacity, like, scores=True) for _ in range(number)]
    plain = []
    for s in scored:
        book = full_slots(1, 1, capacity, like, scores=False)
        plain.append(replace(s, rank=book.rank, free=book.free, count=book.count, score=None))
    rows = []
    for name, caches in (("scores", scored), ("by age", plain)):
        options = {"victim": victim(capacity, scores=name == "scores"), "scale": D**-0.5, "rotary": rotary}
        calls = [partial(decode_attention, q, k, k, s, kernel="triton", **options) for s in caches]
        moved = decode.bytes_moved(q, caches[0], rotary)
        rows.append(row(f"decode B={B} H_kv={H_kv} C={capacity} {name}", graph_times(calls), moved, peak))
    attention = partial(torch.nn.functional.scaled_dot_product_attention, q[:, :, None], enable_gqa=True)
    moved = 2 * scored[0].keys.nbytes
    calls = [partial(attention, s.keys, s.values) for s in scored]
    rows.append(row(f"torch attention alone B={B} H_kv={H_kv} N={capacity + 1}", graph_times(calls), moved, peak))
    return rows


def colsum_row(T: int, peak: float) -> dict[str, Any]:
    q, k = normal(1, H, T, D), normal(1, H_KV, T, D)
    lse = torch.full((1, H, T), 10.0, device="cuda")
    times = graph_times([partial(prefill_colsum, q, k, lse, scale=D**-0.5, kernel="triton")])
    found = row(f"colsum T={T}", times, colsum.bytes_moved(q, k), peak)
    found["TFLOP_s"] = round(H * D * T * (T + 1) / statistics.median(times) / 1e6, 1)
    print(f"  compute bound: {found['TFLOP_s']} TFLOP/s")
    return found


def rotate_row(n: int, peak: float) -> dict[str, Any]:
    xs = [normal(1, H_KV, n, D) for _ in range(copies_for(4 * H_KV * n * D))]
    position, rotary = torch.arange(n, device="cuda", dtype=torch.int32)[None, None], tables(n, "cuda")
    calls = [partial(rotate_by_table, x, position, rotary, kernel="triton") for x in xs]
    return row(f"rotate n={n}", graph_times(calls), rotate.bytes_moved(xs[0], rotary, in_place=False), peak)


@torch.inference_mode()
def on_cuda() -> None:
    device, peak = torch.cuda.get_device_name(), copy_bandwidth()
    print(f"{device}: a plain copy moves {peak:.0f} GB/s")
    rows = []
    for B, capacity, kv_heads in SIZES:
        rows += decode_rows(B, capacity, peak, H_kv=kv_heads)
    rows += [colsum_row(2048, peak), colsum_row(8192, peak), rotate_row(8192, peak)]
    save("kernels", {"copy_GB_s": round(peak, 1), "dtype": "bfloat16", "cases": rows}, gpu=device)


# -- CPU ----------------------------------------------------------------------------------------------------------------


def layer_like(slots: Slots, policy: Any) -> SlotLayer:
    """A full `SlotLayer` with the same contents."""
    layer = SlotLayer(
        policy, 0, 1, ModelRotary(SimpleNamespace(inv_freq=SPEED), dtype=torch.float32, device=torch.device("cpu"))
    )
    layer.lazy_initialization(slots.keys[:, :, :1], slots.values[:, :, :1])
    keys = slots.keys
    if layer.turned:  # slots in order of age, nothing evicted yet: ranks are positions
        keys = layer.rotary.turn(keys, layer.rotary.span(0, keys.shape[2]))
    if layer.firsts is not None:
        layer.firsts.copy_(slots.keys[:, :, : layer.sinks])
    layer.keys.copy_(keys)
    layer.values.copy_(slots.values)
    layer.rank.copy_(slots.rank)
    layer.free.copy_(slots.free)
    layer.used.copy_(slots.count)
    layer.count = layer.seen = int(slots.count[0, 0])
    layer.clock.fill_(layer.seen)
    return layer


class Heavy(FakeKVPolicy):
    """Heavy hitters with the rule written out, as a plugin would."""

    positions = "in_cache"

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity

    def capacity(self, layer: int, n_layers: int, prompt_len: int | None) -> int:
        return self._capacity

    def victim(self, score: torch.Tensor | None, rank: torch.Tensor, capacity: int) -> torch.Tensor:
        assert score is not None  # noqa: S101 - `needs` asks for it
        old = (rank >= SINKS) & (rank <= capacity // 2)
        return score.masked_fill(~old, torch.inf).argmin(dim=-1)


@torch.inference_mode()
def on_cpu() -> None:
    torch.set_num_threads(1)
    print("no CUDA device: the torch reference of the decoding step against SlotLayer, one thread")
    rows = []
    heads, kv_heads = 8, 2
    for capacity in (256, 1024):
        for scores in (False, True):
            slots = full_slots(1, kv_heads, capacity, torch.empty(D), scores=scores)
            policy = Heavy(capacity) if scores else Streaming(StreamingOptions(SINKS, capacity - SINKS))
            layer = layer_like(slots, policy)
            rule, rotary = victim(capacity, scores=scores), tables(capacity + 1, "cpu")
            times: dict[str, list[float]] = {"reference": [], "slot_layer": []}
            for _ in range(60):
                q, k = torch.randn(1, heads, D), torch.randn(1, kv_heads, D)
                start = time.perf_counter()
                a = decode_attention(q, k, k, slots, victim=rule, scale=D**-0.5, rotary=rotary)
                middle = time.perf_counter()
                layer.update(k[:, :, None], k[:, :, None])
                b = layer.attend(q[:, :, None], scale=D**-0.5, window=None)
                times["slot_layer"].append(time.perf_counter() - middle)
                times["reference"].append(middle - start)
                torch.testing.assert_close(a, b[:, :, 0], rtol=0, atol=1e-4)
            ms = {name: 1000 * statistics.median(x[5:]) for name, x in times.items()}
            ratio = ms["reference"] / ms["slot_layer"]
            rows.append(
                {"C": capacity, "scores": scores, **{k: round(v, 3) for k, v in ms.items()}, "ratio": round(ratio, 2)}
            )
            print(
                f"C={capacity} {'scores' if scores else 'by age'}: reference {ms['reference']:.2f} ms, SlotLayer "
                f"{ms['slot_layer']:.2f} ms, ratio {ratio:.2f}"
            )
    save("kernels", rows)


if __name__ == "__main__":
    on_cuda() if torch.cuda.is_available() else on_cpu()
