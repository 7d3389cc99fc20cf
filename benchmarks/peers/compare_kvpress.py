"""Our streaming and h2o against kvpress at equal shape, prompt and budget: CPU time, two processes taking turns.

kvpress needs an older transformers; it gets an environment of its own (`--venv`, made at the first call, 1 GB). Its
`DecodingPress` recompresses every `interval` steps: 1 is the papers' policy and ours, 512 its default, which lets the
cache grow by half a thousand tokens in between. Its `ObservedAttentionPress` ranks, while decoding, by the newest row of
attention only, and needs eager attention; no accumulated sum exists there, so `h2o` is compared with its nearest
relative. Positions are those of the stream in kvpress; ours are measured both ways.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from _peer import Worker, python_of  # noqa: E402 - beside this file
from _result import save  # noqa: E402 - beside the other benchmarks

if TYPE_CHECKING:
    from collections.abc import Iterator

SHAPE = {
    "vocab_size": 4096, "d_model": 512, "layers": 8, "heads": 8, "kv_heads": 8, "ffn": 1376, "context": 8192,
}  # fmt: skip
SHIPPED = {
    "vocab_size": 1024, "d_model": 128, "layers": 4, "heads": 4, "kv_heads": 4, "ffn": 384, "context": 8192,
}  # fmt: skip

QUIET = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}


def compare(
    name: str, python: str, job: dict[str, Any], *, request: str, rounds: int, ours: list[str]
) -> dict[str, Any]:
    """Turns of kvpress and of ours with each kind of positions; the process of the one waits while the other works."""
    units = int(request.partition(" ")[2] or 1)
    sides = {"kvpress": (python, {**job, "side": "kvpress"})}
    sides |= {f"tian, {p}": (sys.executable, {**job, "side": "tian", "positions": p}) for p in ours}
    found: dict[str, list[float]] = {side: [] for side in sides}
    with ExitStack() as stack:
        workers = {
            side: stack.enter_context(Worker(python_, HERE / "worker.py", job_, **QUIET))
            for side, (python_, job_) in sides.items()
        }
        kept = {side: int(worker.ask(request)["kept"]) for side, worker in workers.items()}  # warms up
        for i in range(rounds):
            order = list(workers)
            for side in order[i % len(order) :] + order[: i % len(order)]:
                found[side].append(float(workers[side].ask(request)["seconds"]) / units)
    if job["interval"] == 1 and set(kept.values()) != {job["kept"]}:
        raise SystemExit(f"unequal budgets: {kept}")
    row: dict[str, Any] = {"row": name, **{k: job[k] for k in ("policy", "prompt", "kept", "interval", "batch")}}
    for side, times in found.items():
        row[f"{side}, ms"] = round(1000 * statistics.median(times), 3)
    for side in list(sides)[1:]:
        x = [a / b for a, b in zip(found["kvpress"], found[side], strict=True)]
        low, middle, high = statistics.quantiles(x, n=4, method="inclusive")
        row[f"kvpress / {side}"] = [round(v, 2) for v in (low, middle, high)]
    print("  ".join(f"{k} {v}" for k, v in row.items()), flush=True)
    return row


def main() -> None:
    """All rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venv", type=Path, default=HERE.parents[1] / ".venv" / "peers-kvpress")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=16, help="decoding steps a turn")
    args = parser.parse_args()
    python = python_of(args.venv, "--requirement", str(HERE / "requirements.txt"))
    rows = [compare(name, python, job, **how) for name, job, how in cases(args.rounds, args.steps)]
    save("peers-kvpress", rows)


def cases(rounds: int, steps: int) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Name, job and manner of each row."""
    short = {"request": f"decode {steps}", "rounds": rounds, "ours": ["in_cache", "original"]}
    for model, shape in (("1M", SHIPPED), ("29M", SHAPE)):
        job: dict[str, Any] = {"shape": shape, "batch": 1, "interval": 1}
        for kept in (256, 1024):
            for policy in ("streaming", "h2o"):
                yield f"decode {model}", {**job, "policy": policy, "kept": kept, "prompt": kept + 1}, short
        # Turns as long as the interval, so that each holds one recompression.
        rare = {**job, "policy": "streaming", "kept": 1024, "prompt": 1025, "interval": 512}
        yield f"decode {model}, default interval", rare, {"request": "decode 512", "rounds": 3, "ours": ["in_cache"]}
        for policy in ("streaming", "h2o"):
            prompt = {**job, "policy": policy, "kept": 204, "prompt": 1024}
            yield f"prefill {model}", prompt, {"request": "prefill", "rounds": 5, "ours": ["in_cache"]}


if __name__ == "__main__":
    main()
