"""Recipe `kvcache/speed`: what policies save in time, beside what they could save at most.

Three studies, each measured in turns within one process: `recompute` (a streaming step against running the window again,
by cache size), `batch` (a decoding step under kv against a full cache, equal batch), `memory` (tokens a second in the
same memory, where kv has room for more rows). Source: figure 10 of arXiv 2309.17453; section 5.3 of arXiv 2306.14048.
"""

from __future__ import annotations

import statistics
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tian.config.compose import options_of
from tian.errors import InvalidInput
from tian.types import Measurement
from tian_kvcache.offload import check_accelerate, offloaded
from tian_kvcache.speed_bound import Cost, Limits, measure_limits
from tian_kvcache.speed_timing import Clock, Timed, in_turns, median_interval, ratios
from tian_kvcache.speed_ways import CAPTURED, build_model, captured, full_way, node_at, recompute_way, slot_way

if TYPE_CHECKING:
    from collections.abc import Callable

    from tian.runs.rundir import Run
    from tian.spec import KVPolicy
    from tian_kvcache.speed_options import SpeedOptions

SINKS = 4  # of the streaming policy in `recompute`, as in the paper
FULL = ("dynamic", "static")
DISK = "full, weights offloaded"
WARM = 1  # steps before the first turn


@dataclass
class Bench:
    """What every row needs."""

    model: Any
    cost: Cost
    limits: Limits
    clock: Clock
    options: SpeedOptions
    run: Run

    @property
    def room(self) -> int:
        """Tokens that come in while a full cache is measured."""
        return self.options.rounds * self.options.steps + WARM + CAPTURED

    def captured(self, way: Timed) -> Timed:
        """The way as a CUDA graph where steps are recorded; on a CPU only slots are, as a traced program."""
        return captured(way) if self.options.recorded and self.model.device.type == "cuda" else way

    def policy(self, kv: dict[str, Any], capacity: int) -> tuple[str, KVPolicy]:
        """Label and policy of a node at `capacity` tokens."""
        policy = self.run.load("kv_policy", node_at(kv, capacity, model=self.model))
        name = str(kv["use"]).rsplit("/", 1)[-1]
        size = policy.capacity(0, 1, None)
        return f"{name}, all kept" if size is None else f"{name} {size}", policy

    def measure(self, ways: list[Timed], advance: Callable[[], object]) -> list[dict[str, Any]]:
        """One entry a way, with its least possible time."""
        found = in_turns(ways, rounds=self.options.rounds, clock=self.clock, advance=advance)
        return [
            {
                "label": way.label,
                "batch": way.batch,
                "seconds": found[way.label],
                "least": self.limits.seconds(way.bytes_, way.flops),
                "bytes": way.bytes_,
                "cache_bytes": way.cache_bytes,
            }
            for way in ways
        ]


def speed(cfg: Any, run: Run) -> list[Measurement]:
    """See `SpeedOptions`. Finished rows are read from the run directory when it is resumed.

    Raises:
        DataError, UnsupportedModel, NoDevice: the model cannot be had.
        MissingDependency: `disk` without accelerate.
        InvalidInput: the memory is too small for a single row.
    """
    options: SpeedOptions = options_of(cfg)
    if options.disk and "memory" in options.studies:
        check_accelerate()
    torch.manual_seed(int(cfg.seed))
    torch.set_num_threads(options.threads)
    model = build_model(options)
    clock = Clock(model.device, options.threads)
    limits = measure_limits(clock, dtype=model.dtype, device=model.device)
    bench = Bench(model, Cost.of(model), limits, clock, options, run)
    data: dict[str, Any] = run.read_json("speed.json") or {"rows": {}}
    data |= {
        "model": options.model.path or f"random weights, {options.shape.kind}",
        "parameters": sum(p.numel() for p in model.parameters()),
        "weights": bench.cost.weights,
        "kappa": bench.cost.kappa,
        "bandwidth": limits.bandwidth,
        "flops": limits.flops,
        "clock": clock.name,
    }
    work: dict[str, Callable[[Callable[[], object]], dict[str, Any]]] = {}
    for size in options.sizes if "recompute" in options.studies else ():
        work[f"recompute {size}"] = lambda advance, size=size: recompute_row(bench, size, advance)  # type: ignore[misc]
    if "batch" in options.studies:
        work["batch"] = lambda advance: batch_row(bench, advance)
    if "memory" in options.studies:
        work["memory"] = lambda advance: memory_row(bench, advance)
    done = sum(key in data["rows"] for key in work)
    with run.progress(len(work) * options.rounds, "timing", done=done * options.rounds) as bar:
        for key, make in work.items():
            if key not in data["rows"]:
                bar.advance(0, f"timing: {key}")
                data["rows"][key] = make(bar.advance)
                run.write_json("speed.json", data)
    return [m for key in work for m in measurements(key, data["rows"][key])]


def recompute_row(bench: Bench, size: int, advance: Callable[[], object]) -> dict[str, Any]:
    """A streaming step with `size` tokens kept, and the same token by running `size` tokens again."""
    node = {"use": "kvcache/streaming", "sinks": min(SINKS, size - 1), "recent": 0, "positions": "in_cache"}
    label, policy = bench.policy(node, size)
    steps, batch = bench.options.steps, 1
    with ExitStack() as stack:
        ours = slot_way(
            label,
            bench.model,
            policy,
            bench.cost,
            batch=batch,
            tokens=size + 1,
            steps=steps,
            stack=stack,
            record=bench.options.recorded,
        )
        again = bench.captured(recompute_way(bench.model, bench.cost, size=size))
        ways = bench.measure([ours, again], advance)
    return {"study": "recompute", "size": size, "ways": ways}


def batch_row(bench: Bench, advance: Callable[[], object]) -> dict[str, Any]:
    """A step under kv and on both full caches of transformers, equal batch."""
    options, cost = bench.options, bench.cost
    label, policy = bench.policy(options.kv, int(options.budget * options.length))
    with ExitStack() as stack:
        ours = policy_way(bench, label, policy, options.batch, stack)
        ways = [ours, *(plain_way(bench, f"full {kind}", kind, options.batch) for kind in FULL)]
        rows = bench.measure(ways, advance)
    kept = policy.capacity(0, 1, None) or options.length
    best = cost.best_ratio(options.batch, options.length, kept)
    return {"study": "batch", "size": options.length, "ways": rows, "best": best}


def memory_row(bench: Bench, advance: Callable[[], object]) -> dict[str, Any]:
    """Tokens a second when weights and cache share the same memory; each way has as many rows as fit.

    Raises:
        InvalidInput: not even one row fits.
    """
    options, cost = bench.options, bench.cost
    full = options.length * cost.kappa  # bytes of a row
    memory = cost.resident + options.batch * full
    if options.memory_mib is not None:
        memory = int(options.memory_mib * 2**20)
    label, policy = bench.policy(options.kv, int(options.budget * options.length))
    with ExitStack() as stack:
        one = policy_way(bench, label, policy, 1, stack).cache_bytes
    rows = {
        label: (memory - cost.resident) // one,
        **{f"full {kind}": (memory - cost.resident) // full for kind in FULL},
        DISK: (memory - cost.largest) // full,
    }
    if min(rows[label], rows["full static"]) < 1:
        raise InvalidInput(
            f"{memory / 2**20:.1f} MiB do not hold the weights ({cost.resident / 2**20:.1f} MiB) and one row "
            f"({full / 2**20:.1f} MiB)",
            where="memory_mib",
            hint=f"set memory_mib={(cost.resident + max(full, one)) / 2**20 + 1:.0f} or more",
        )
    with ExitStack() as stack:
        ways = [policy_way(bench, label, policy, rows[label], stack)]
        ways += [plain_way(bench, f"full {kind}", kind, rows[f"full {kind}"]) for kind in FULL]
        if options.disk:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tian-speed-")))
            ways.append(plain_way(bench, DISK, "static", rows[DISK], host=offloaded(bench.model, folder)))
        timed = bench.measure(ways, advance)
    return {"study": "memory", "size": options.length, "memory": memory, "ways": timed}


def policy_way(bench: Bench, label: str, policy: KVPolicy, batch: int, stack: ExitStack) -> Timed:
    """The configured policy in its steady state: full to its capacity, or with everything kept that a full cache holds."""
    options = bench.options
    kept = policy.capacity(0, 1, None)
    tokens = kept + 1 if kept is not None else options.length - bench.room
    cost, steps = bench.cost, options.steps
    record = options.recorded and kept is not None
    return slot_way(
        label, bench.model, policy, cost, batch=batch, tokens=tokens, steps=steps, stack=stack, record=record
    )


def plain_way(bench: Bench, label: str, kind: str, batch: int, host: Any = None) -> Timed:
    """A full cache at `length` tokens."""
    options = bench.options
    way = full_way(
        label,
        kind,
        bench.model,
        bench.cost,
        batch=batch,
        length=options.length,
        room=bench.room,
        steps=options.steps,
        host=host,
    )
    return bench.captured(way) if kind == "static" and host is None else way


RATIO = {  # study -> name of its ratio, and of that against offloaded weights
    "recompute": "speed over recomputation",
    "batch": "speed over full cache, equal batch",
    "memory": "throughput over full cache, equal memory",
    DISK: "throughput over offloaded weights, equal memory",
}


def fastest_full(row: dict[str, Any]) -> dict[str, Any]:
    """The full cache with the most tokens a second, which is the one to beat."""
    plain = [way for way in row["ways"][1:] if way["label"] != DISK]
    return max(plain, key=lambda way: way["batch"] / statistics.median(way["seconds"]))


def ratios_of(row: dict[str, Any]) -> list[tuple[str, str, list[float], float]]:
    """Name of each ratio of a row, what is beaten, tokens a second over its own by round, and the bound.

    At equal batch the bound is that of reading alone, (W + B n kappa) / (W + B C kappa); else the ratio of least times.
    """
    ours = row["ways"][0]
    against = [(RATIO[row["study"]], row["ways"][1] if row["study"] == "recompute" else fastest_full(row))]
    against += [(RATIO[DISK], way) for way in row["ways"] if way["label"] == DISK]
    found = []
    for name, way in against:
        factor = ours["batch"] / way["batch"]
        best = row.get("best") or factor * way["least"] / ours["least"]
        found.append((name, way["label"], ratios(way["seconds"], ours["seconds"], factor=factor), best))
    return found


def measurements(key: str, row: dict[str, Any]) -> list[Measurement]:
    """Ratios with their bounds, then time per step and bytes of each way."""
    out = []
    for name, other, x, best in ratios_of(row):
        by = {"row": key, "of": row["ways"][0]["label"], "over": other}
        middle = statistics.median(x)
        out.append(Measurement(name, middle, "1", len(x), median_interval(x), higher_is_better=True, by=by))
        out.append(Measurement("bound", best, "1", 1, None, higher_is_better=None, by=by))
    for way in row["ways"]:
        by = {"row": key, "way": way["label"], "batch": str(way["batch"])}
        x = [1000 * s for s in way["seconds"]]
        middle, interval = statistics.median(x), median_interval(x)
        out.append(Measurement("time per step", middle, "ms", len(x), interval, higher_is_better=False, by=by))
        out.append(Measurement("cache", float(way["cache_bytes"]), "B", 1, None, higher_is_better=False, by=by))
    return out
