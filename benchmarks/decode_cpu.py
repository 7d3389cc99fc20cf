"""A decoding step in the steady state: slots against the full caches of transformers at equal length, and against eviction
by concatenating and gathering (`_official.py`), at cache sizes 64 to 4096, all in turns in one process, CPU time.

Bar: at least 1.5 times as fast as concatenate-and-gather. Before timing, the kept tokens and the logits of slots and of
`_official.py` are compared on the same tokens; so both do the same work.
"""

from __future__ import annotations

import argparse
import statistics
from contextlib import ExitStack
from typing import Any

import torch
from _official import Official, step_of
from _result import save

import tian
from tian.hf import attach, load_model, prefill
from tian_kvcache.speed_bound import Cost, Limits, measure_limits
from tian_kvcache.speed_options import Shape, SpeedOptions
from tian_kvcache.speed_timing import Clock, Timed, in_turns, quartiles, ratios
from tian_kvcache.speed_ways import build_model, decoding, full_way, random_ids, slot_way, twin

SIZES = (64, 256, 1024, 4096)
SINKS = 4


def policy_of(name: str, kept: int) -> Any:
    """`streaming` or `h2o` of `kept` tokens."""
    if name == "h2o":
        return tian.load("kv_policy", "h2o", heavy=kept // 2, recent=kept - kept // 2)
    return tian.load("kv_policy", "streaming", sinks=SINKS, recent=kept - SINKS)


def official_of(model: Any, name: str, kept: int) -> tuple[Any, Official]:
    """A twin of the model with the baseline's cache."""
    host = twin(model)
    recent = kept - kept // 2 if name == "h2o" else kept - SINKS
    return host, Official(host, kept=kept, recent=recent, heavy=name == "h2o")


@torch.inference_mode()
def official_way(model: Any, name: str, kept: int, cost: Cost, *, batch: int, steps: int) -> Timed:
    """The baseline, filled."""
    host, cache = official_of(model, name, kept)
    ids = random_ids(model, batch, kept + 1)
    for start in range(0, kept + 1, 256):
        step_of(host, cache, ids[:, start : start + 256])
    way = decoding("official", host, cache, cost, batch=batch, length=kept, steps=steps, cache_bytes=0)
    way.step = lambda: step_of(host, cache, ids[:, :1])
    return way


@torch.inference_mode()
def check_equal(model: Any, name: str) -> float:
    """Largest difference of logits between slots and baseline over 40 steps past a small budget."""
    ids, kept = random_ids(model, 1, 64), 24
    host, cache = official_of(model, name, kept)
    other, worst = twin(model), 0.0
    with attach(other, kv=policy_of(name, kept)) as slots:
        prefill(other, ids[:, :24], slots, chunk=64)
        step_of(host, cache, ids[:, :24])
        for t in range(24, 64):
            a = other(input_ids=ids[:, t : t + 1], past_key_values=slots, use_cache=True).logits
            b = step_of(host, cache, ids[:, t : t + 1]).logits
            worst = max(worst, float((a - b).abs().max()))
    if worst > 1e-3:
        raise SystemExit(f"{name}: slots and baseline differ by {worst}")
    return worst


def rows_of(
    label: str, model: Any, limits: Limits, clock: Clock, *, sizes: tuple[int, ...], batch: int, rounds: int, steps: int
) -> list[dict[str, Any]]:
    """One row a policy and cache size."""
    cost, rows = Cost.of(model), []
    for name in ("streaming", "h2o"):
        worst = check_equal(model, name)
        for kept in sizes:
            with ExitStack() as stack:
                options: dict[str, Any] = {"batch": batch, "steps": steps}
                ways = [
                    slot_way("slots", model, policy_of(name, kept), cost, tokens=kept + 1, stack=stack, **options),
                    official_way(model, name, kept, cost, **options),
                ]
                room = rounds * steps + 1
                for kind in ("dynamic", "static"):
                    way = full_way(kind, kind, model, cost, length=kept + room, room=room, **options)
                    ways.append(way)
                found = in_turns(ways, rounds=rounds, clock=clock)
            row: dict[str, Any] = {"model": label, "policy": name, "C": kept, "batch": batch, "difference": worst}
            for way in ways:
                row[f"{way.label}, ms"] = round(1000 * statistics.median(found[way.label]), 3)
            row["bound, ms"] = round(1000 * limits.seconds(ways[0].bytes_, ways[0].flops), 3)
            for other in ("official", "dynamic", "static"):
                x = ratios(found[other], found["slots"])
                low, high = quartiles(x)
                row[f"{other} / slots"] = [round(v, 2) for v in (low, statistics.median(x), high)]
            rows.append(row)
            print("  ".join(f"{k} {v}" for k, v in row.items()), flush=True)
    return rows


def main() -> None:
    """Both models."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=4, help="decoding steps a turn")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    clock = Clock(torch.device("cpu"), 1)
    limits = measure_limits(clock, dtype=torch.float32, device=torch.device("cpu"))
    large = build_model(SpeedOptions(shape=Shape()))
    rows = []
    for label, model in (("shipped, 1 M", load_model(None)), ("random weights, 29 M", large)):
        options: dict[str, Any] = {"batch": args.batch, "rounds": args.rounds, "steps": args.steps}
        rows += rows_of(label, model, limits, clock, sizes=tuple(args.sizes), **options)
    save("decode-cpu", {"bandwidth": limits.bandwidth, "flops": limits.flops, "clock": clock.name, "cases": rows})


if __name__ == "__main__":
    main()
