"""Recipe `kvcache/stream`: read a long text under several cache policies, compare, and say what the model does."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import torch

from tian.config.compose import options_of
from tian.hf.corpus import load_streams
from tian.hf.loading import load_model, load_tokenizer
from tian.types import Measurement
from tian_kvcache.arms import Arm, build_arms
from tian_kvcache.checks import judge, probe_first_token
from tian_kvcache.intervals import mean_interval
from tian_kvcache.policies import Full, Streaming, Window
from tian_kvcache.reader import Reading, read

if TYPE_CHECKING:
    from torch import Tensor

    from tian.runs.rundir import Run
    from tian_kvcache.options import StreamOptions

BINS = 32  # points of the perplexity curve
OLDEST = (
    "attention on the oldest token kept"  # share of late queries, in the layer above the lowest where it is largest
)


def late_start(arms: list[Arm], *, train_length: int, length: int) -> int:
    """First target position of the comparison: past the training length and past every bounded cache.

    A stream too short for that is compared on its second half.
    """
    largest = max((a.capacity or 0 for a in arms), default=0)
    start = max(train_length, largest + 1)
    return start if start <= length - 8 else length // 2


def curve(nll: Tensor, done: int) -> list[tuple[float, float]]:
    """`(position, perplexity)` in up to 32 equal bins over the first `done` targets. `nll [S, T-1]`."""
    width = max(1, math.ceil(nll.shape[1] / BINS))
    out = []
    for start in range(0, done, width):
        stop = min(start + width, done)
        out.append(((start + stop + 1) / 2, math.exp(min(50.0, float(nll[:, start:stop].mean())))))
    return out


def stream(cfg: Any, run: Run) -> list[Measurement]:
    """See `StreamOptions`. Interrupted arms continue where they stopped; finished arms are not read again.

    Raises:
        DataError: the model folder or the text cannot be used.
        UnsupportedModel: the architecture is not supported.
        NoDevice: `device` is not present.
    """
    options: StreamOptions = options_of(cfg)
    torch.manual_seed(int(cfg.seed))
    if options.threads:
        torch.set_num_threads(options.threads)
    tokenizer = load_tokenizer(options.model.path)
    model = load_model(options.model.path, device=options.device)
    arms = build_arms(options.kv, options.compare, run)
    ids, text = load_streams(
        options.text, tokenizer, streams=options.streams, tokens=options.tokens, seed=int(cfg.seed)
    )
    if tuple(ids.shape) != (options.streams, options.tokens):
        run.info(f"the text gives {ids.shape[0]} streams of {ids.shape[1]} tokens")
    ids = ids.to(model.device)
    main = arms[0]
    train_length = int(getattr(model.config, "max_position_embeddings", 0) or 0)
    wants_checks = options.checks and isinstance(main.policy, Streaming) and not isinstance(main.policy, Window)
    wants_checks = wants_checks and main.sinks_of_policy >= 1
    if wants_checks:
        arms.append(dataclasses.replace(main, label=f"{main.label}, first value zeroed", zero_first=True))
        size = main.capacity or 0
        if not any(isinstance(a.policy, Window) and a.capacity == size for a in arms):
            arms[-1:-1] = build_arms({"use": "kvcache/window", "recent": size}, [], run)
    readings = _read_all(model, ids, arms, options, run)
    start = late_start(arms, train_length=train_length, length=ids.shape[1])
    rows, measured = _compare(arms, readings, start)
    measured += _behaviour(arms, readings, train_length=train_length)
    first, verdict = None, None
    if options.checks and isinstance(main.policy, Streaming):
        first = probe_first_token(model, ids, recent=(main.capacity or 2) - 1, ordinary=main.sinks_of_policy == 0)
        share, by = first.mass[first.strongest], {"policy": main.label}
        measured.append(Measurement(OLDEST, share, "1", ids.shape[0], None, higher_is_better=None, by=by))
    if wants_checks and first is not None:
        by_label = {r["label"]: r for r in rows}
        window = next(a for a in arms if isinstance(a.policy, Window) and a.capacity == main.capacity)
        decision = judge(
            first,
            ratio=by_label[window.label]["ppl"] / by_label[main.label]["ppl"],
            zeroed=by_label[arms[-1].label]["ppl"] / by_label[main.label]["ppl"],
        )
        verdict = {"words": decision.words, "rows": decision.rows, **dataclasses.asdict(first)}
        run.info(f"first token: {decision.words}")
        for name, target, value, holds in decision.rows:
            run.info(f"  {'yes' if holds else 'no ':3} {name}: {value} (target {target})")
    run.write_json(
        "stream.json",
        {
            "text": {"label": text.label, "sha256": text.sha256},
            "model": options.model.path or "the small LM that ships with tian",
            "train_length": train_length,
            "streams": ids.shape[0],
            "tokens": ids.shape[1],
            "late_start": start,
            "arms": rows,
            "verdict": verdict,
        },
    )
    return measured


def _read_all(model: Any, ids: Tensor, arms: list[Arm], options: StreamOptions, run: Run) -> list[Reading]:
    folder = run.path / "streams"
    folder.mkdir(exist_ok=True)
    limits = [options.full_limit if isinstance(a.policy, Full) else None for a in arms]
    total = sum(min(limit or ids.shape[1], ids.shape[1] - 1) for limit in limits)
    readings = []
    with run.progress(total, "reading") as bar:
        for arm, limit in zip(arms, limits, strict=True):
            bar.advance(0, f"reading: {arm.label}")
            readings.append(
                read(
                    model,
                    ids,
                    arm,
                    path=folder / f"{arm.slug}.safetensors",
                    save_every=options.save_every,
                    advance=bar.advance,
                    limit=limit,
                    kernel=options.kernel,
                )
            )
            run.set_status("running")
    return readings


def _compare(arms: list[Arm], readings: list[Reading], start: int) -> tuple[list[dict[str, Any]], list[Measurement]]:
    """One row an arm for the report, and the measurements. Ratios are paired by stream, against the first arm."""
    rows, out = [], []
    base = readings[0].nll
    for arm, reading in zip(arms, readings, strict=True):
        # An arm that stopped before `start` is compared on what it read, a ratio on what both read.
        begin = start - 1 if reading.done >= start else 0
        both = min(reading.done, readings[0].done)
        shared = slice(start - 1 if both >= start else 0, both)
        late = reading.nll[:, begin : reading.done]
        n = late.shape[0]
        mean, interval = mean_interval(late.mean(dim=1))
        gap, gap_interval = mean_interval((reading.nll - base)[:, shared].mean(dim=1))
        by = {"policy": arm.label}
        per_step = float(reading.seconds[: reading.done].median())  # robust on a shared machine
        bytes_ = max((b for _, b in reading.cache_bytes), default=0)
        exp = math.exp
        out.append(Measurement("perplexity", exp(mean), "1", n, _exp(interval), higher_is_better=False, by=by))
        if arm is not arms[0]:
            out.append(
                Measurement("perplexity ratio", exp(gap), "1", n, _exp(gap_interval), higher_is_better=False, by=by)
            )
        out.append(
            Measurement("time per step", 1000 * per_step, "ms", reading.done, None, higher_is_better=False, by=by)
        )
        out.append(Measurement("cache", float(bytes_), "B", 1, None, higher_is_better=False, by=by))
        rows.append(
            {
                "label": arm.label,
                "kind": "recompute" if arm.policy is None else type(arm.policy).__name__.lower(),
                "check": arm.zero_first,
                "capacity": arm.capacity,
                "done": reading.done,
                "from": begin + 1,
                "ppl": exp(mean),
                "ppl_ci": _exp(interval),
                "ratio": exp(gap),
                "ratio_ci": _exp(gap_interval),
                "ms_per_token": 1000 * per_step,
                "cache_bytes": bytes_,
                "cache_growth": reading.cache_bytes[-1][1] - reading.cache_bytes[0][1] if reading.cache_bytes else 0,
                "curve": curve(reading.nll, reading.done),
                "rss": reading.rss,
            }
        )
    return rows, out


def _behaviour(arms: list[Arm], readings: list[Reading], *, train_length: int) -> list[Measurement]:
    """How each arm's memory grows, and what its first evictions cost; the configured policy first.

    - `cache growth`: bytes per token and stream, from one eighth of what was read to its end (an unbounded cache grows
      by doubling, so a shorter stretch might show nothing).
    - `perplexity over full attention`: from the first eviction to the end of the training length, where keeping
      everything is still what the model was trained for; paired by stream, needs `full` among the arms.
    """
    out = []
    full = next((r for a, r in zip(arms, readings, strict=True) if isinstance(a.policy, Full)), None)
    for arm, reading in zip(arms, readings, strict=True):
        by, streams = {"policy": arm.label}, reading.nll.shape[0]
        if arm.policy is not None and reading.cache_bytes:
            first = next(s for s in reading.cache_bytes if s[0] >= reading.done // 8)
            last = reading.cache_bytes[-1]
            growth = (last[1] - first[1]) / max(1, last[0] - first[0]) / streams
            out.append(Measurement("cache growth", growth, "B/tok", 1, None, higher_is_better=False, by=by))
        end = min(train_length - 1, reading.done, full.done if full else 0)
        if full is not None and arm.capacity is not None and arm.capacity < end:
            gap, ci = mean_interval((reading.nll - full.nll)[:, arm.capacity : end].mean(dim=1))
            name = "perplexity over full attention"
            out.append(Measurement(name, math.exp(gap), "1", streams, _exp(ci), higher_is_better=False, by=by))
    return out


def _exp(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    return (math.exp(interval[0]), math.exp(interval[1])) if interval else None
