"""What column sums cost a prompt: h2o (sums over all queries) against streaming (none), in turns, CPU time.

Each prompt is attended in full in one forward, then cut to a fifth. Bar: at most 1.5 times as long with sums. `plain` is
the model without our cache, its own fused attention.
"""

from __future__ import annotations

import argparse
import statistics
from contextlib import ExitStack
from typing import Any

import torch
from _result import save

import tian
from tian.hf import attach
from tian_kvcache.speed_bound import Cost, Limits, measure_limits
from tian_kvcache.speed_options import Shape, SpeedOptions
from tian_kvcache.speed_timing import Clock, Timed, in_turns, quartiles, ratios
from tian_kvcache.speed_ways import build_model, random_ids, twin


def ways_of(model: Any, cost: Cost, T: int, stack: ExitStack) -> list[Timed]:
    """One forward over T tokens: with sums, without, and without a cache."""
    from transformers import DynamicCache

    ids, kept = random_ids(model, 1, T), T // 5
    policies = {
        "sums": tian.load("kv_policy", "h2o", heavy=kept // 2, recent=kept - kept // 2),
        "no sums": tian.load("kv_policy", "streaming", sinks=4, recent=kept - 4),
    }
    ways = []
    for label, policy in policies.items():
        host = twin(model)
        cache = stack.enter_context(attach(host, kv=policy))

        def step(host: Any = host, cache: Any = cache) -> None:
            cache.reset()
            host(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)

        ways.append(Timed(label, step, 1, 1, cost.weights, cost.prompt_flops(T), 0))

    def plain() -> None:
        model(input_ids=ids, past_key_values=DynamicCache(config=model.config), use_cache=True, logits_to_keep=1)

    return [*ways, Timed("plain", plain, 1, 1, cost.weights, cost.prompt_flops(T), 0)]


def row_of(model: Any, limits: Limits, clock: Clock, T: int, rounds: int) -> dict[str, Any]:
    """Times and ratios at T tokens."""
    cost = Cost.of(model)
    with ExitStack() as stack:
        ways = ways_of(model, cost, T, stack)
        found = in_turns(ways, rounds=rounds, clock=clock)
    row: dict[str, Any] = {"T": T, "rounds": rounds}
    for way in ways:
        row[f"{way.label}, ms"] = round(1000 * statistics.median(found[way.label]), 1)
    row["bound, ms"] = round(1000 * limits.seconds(ways[0].bytes_, ways[0].flops), 1)
    for above, below in (("sums", "no sums"), ("sums", "plain")):
        x = ratios(found[above], found[below])
        low, high = quartiles(x)
        row[f"{above} / {below}"] = [round(v, 2) for v in (low, statistics.median(x), high)]
    print("  ".join(f"{k} {v}" for k, v in row.items()), flush=True)
    return row


def main() -> None:
    """T = 512, 2048, 4096."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    clock = Clock(torch.device("cpu"), 1)
    limits = measure_limits(clock, dtype=torch.float32, device=torch.device("cpu"))
    model = build_model(SpeedOptions(shape=Shape()))
    rows = [row_of(model, limits, clock, T, args.rounds) for T in (512, 2048, 4096)]
    save("prefill", {"bandwidth": limits.bandwidth, "flops": limits.flops, "clock": clock.name, "cases": rows})


if __name__ == "__main__":
    main()
