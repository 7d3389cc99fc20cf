"""A decoding step on a GPU, full caches of transformers against slots under a policy that keeps a fifth, by batch size.

Each is measured as Python runs it and as a CUDA graph (`RecordedStep`; the full static cache is captured here), all in
turns in one process, beside the least time the bytes of weights and cache take at the bandwidth measured on the spot.
With `--device cpu` the same runs small, as a check of this file.
"""

from __future__ import annotations

import argparse
import statistics
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from _result import save
from decode_cpu import policy_of

import tian
from tian.config.compose import options_of
from tian_kvcache.speed_bound import Cost, measure_limits
from tian_kvcache.speed_timing import Clock, Timed, in_turns, quartiles, ratios
from tian_kvcache.speed_ways import build_model, captured, full_way, slot_way

if TYPE_CHECKING:
    from collections.abc import Callable

SHARE, WARM = 0.2, 4  # WARM: steps before the first turn, and those that are captured


def tried(make: Callable[[], Timed], failures: list[str], label: str) -> list[Timed]:
    """The way, or none and a line that says why."""
    try:
        return [make()]
    except Exception as error:  # noqa: BLE001 - a library that cannot be captured is a result
        failures.append(f"{label}: {type(error).__name__}: {str(error).splitlines()[0][:200]}")
        print(failures[-1], flush=True)
        return []


def case(
    model: Any, *, batch: int, length: int, rounds: int, steps: int
) -> tuple[list[Timed], dict[str, list[float]], list[str]]:
    """Every way at one batch size, and seconds a step by round."""
    cost, kept, failures = Cost.of(model), int(SHARE * length), list[str]()
    sizes: dict[str, Any] = {"batch": batch, "steps": steps}
    room = rounds * steps + WARM
    with ExitStack() as stack:
        ways = [full_way(f"full {k}", k, model, cost, length=length, room=room, **sizes) for k in ("dynamic", "static")]
        if model.device.type == "cuda":
            full = full_way("full static, recorded", "static", model, cost, length=length, room=room, **sizes)
            ways += tried(partial(captured, full), failures, full.label)
        for name in ("streaming", "h2o"):
            make = partial(slot_way, model=model, policy=policy_of(name, kept), cost=cost, tokens=kept + 1, stack=stack)
            ways.append(make(name, **sizes))
            ways += tried(partial(make, f"{name}, recorded", record=True, **sizes), failures, f"{name}, recorded")
        found = in_turns(ways, rounds=rounds, clock=Clock(model.device, 2))
    return ways, found, failures


def main() -> None:
    """Every batch size of one shape."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shape", default="llama-3-8b", help="a shape of kvcache/speed")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=8)
    args = parser.parse_args()
    torch.manual_seed(0)
    config, _ = tian.compose("kvcache/speed", [f"shape={args.shape}", f"device={args.device}"])
    model = build_model(options_of(config))
    limits = measure_limits(Clock(model.device, 2), dtype=model.dtype, device=model.device)
    cases: list[dict[str, Any]] = []
    for batch in args.batches:
        ways, found, failures = case(model, batch=batch, length=args.length, rounds=args.rounds, steps=args.steps)
        rows = []
        for way in ways:
            bound, x = limits.seconds(way.bytes_, way.flops), found[way.label]
            rows.append(
                {
                    "way": way.label,
                    "ms": [round(1000 * v, 3) for v in (quartiles(x)[0], statistics.median(x), quartiles(x)[1])],
                    "bound, ms": round(1000 * bound, 3),
                    "of bound": round(bound / statistics.median(x), 3),
                    "cache, MB": round(way.cache_bytes / 1e6, 1),
                    "full dynamic / it": round(statistics.median(ratios(found["full dynamic"], x)), 2),
                }
            )
            print(f"B={batch:3d}  " + "  ".join(f"{k} {v}" for k, v in rows[-1].items()), flush=True)
        cases.append({"batch": batch, "length": args.length, "rows": rows, "failures": failures})
    save(
        "decode-gpu",
        {"shape": args.shape, "bandwidth": limits.bandwidth, "flops": limits.flops, "cases": cases},
        gpu=torch.cuda.get_device_name() if model.device.type == "cuda" else None,
    )


if __name__ == "__main__":
    main()
