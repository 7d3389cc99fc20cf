"""Recipe `kvcache/recall`: what each policy can still recall of a *constructed* stream, and whether it stays fluent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tian.config.compose import options_of
from tian.types import Measurement
from tian_kvcache.arms import arms_at
from tian_kvcache.intervals import mean_interval
from tian_kvcache.recall_stream import VERSION, make_streams
from tian_kvcache.traces import simulate, visible_global

if TYPE_CHECKING:
    from torch import Tensor

    from tian.runs.rundir import Run
    from tian_kvcache.arms import Arm
    from tian_kvcache.study_options import RecallOptions

MEASURES = ("recall", "fluency", "attention on the first token")


def seen_by(arm: Arm, trace: Tensor, capacity: int, *, layer: Tensor | None = None) -> Tensor:
    """`[N, T, T]` bool: what is visible under the arm's policy at `capacity` tokens; its sizes give the proportions."""
    from tian_kvcache.heavy import H2OGlobal
    from tian_kvcache.policies import Full, Streaming

    policy = arm.policy
    assert policy is not None  # noqa: S101 - built from a policy node
    if isinstance(policy, H2OGlobal):
        recent = policy.recent_of(capacity)
        return visible_global(trace, heavy=capacity - recent, recent=recent)
    if isinstance(policy, Streaming):  # a trace has no use for sinks beyond its budget
        policy.sinks = min(policy.sinks, capacity - 1)
    return simulate(trace, policy, None if isinstance(policy, Full) else capacity, layer=layer)


@torch.no_grad()
def recall(cfg: Any, run: Run) -> list[Measurement]:
    """See `RecallOptions`. Finished policies are read from the run directory when it is resumed.

    Raises:
        InvalidInput: a policy that cannot keep `capacity` tokens.
    """
    options: RecallOptions = options_of(cfg)
    arms = arms_at([options.kv, *options.compare], run, options.capacity)
    batches = {
        kind: make_streams(kind, tokens=options.tokens, streams=options.streams, seed=int(cfg.seed))
        for kind in options.kinds
    }
    trace = torch.cat([b.attention() for b in batches.values()])  # all kinds at once: one simulation a policy
    done: dict[str, Any] = run.read_json("recall.json") or {}
    rows: dict[str, Any] = done.get("rows", {}) if done.get("measures") == list(MEASURES) else {}
    with run.progress(len(arms), "policies (constructed stream)", done=len(rows)) as bar:
        for arm in arms:
            if arm.label in rows:
                continue
            visible = torch.split(seen_by(arm, trace, options.capacity), options.streams)
            parts = torch.split(trace, options.streams)
            rows[arm.label] = {
                kind: [
                    x.tolist() for x in (*batch.scores(parts[i], visible[i]), batch.first_share(parts[i], visible[i]))
                ]
                for i, (kind, batch) in enumerate(batches.items())
            }
            run.write_json(
                "recall.json",
                {
                    "version": VERSION,
                    "main": arms[0].label,
                    "capacity": options.capacity,
                    "measures": list(MEASURES),
                    "rows": rows,
                },
            )
            bar.advance()
    return _measure(rows, arms[0].label)


def _measure(rows: dict[str, Any], main: str) -> list[Measurement]:
    """What `rows` holds, by policy and stream, the configured policy first; then its recall against each other policy's.

    `recall gained` is paired by stream: that of the configured policy minus that of the other.
    """
    out = []
    for label in (main, *(other for other in rows if other != main)):
        for kind, found in rows[label].items():
            by = {"policy": label, "stream": kind, "data": "constructed"}
            for name, values in zip(MEASURES, found, strict=True):
                x = torch.tensor(values, dtype=torch.float64)
                better = None if name == MEASURES[2] else True
                out.append(Measurement(name, float(x.mean()), "1", x.numel(), mean_interval(x)[1], better, by))
            if label != main:
                gain = torch.tensor(rows[main][kind][0], dtype=torch.float64) - torch.tensor(
                    found[0], dtype=torch.float64
                )
                by = {"policy": main, "over": label, "stream": kind, "data": "constructed"}
                out.append(
                    Measurement(
                        "recall gained", float(gain.mean()), "1", gain.numel(), mean_interval(gain)[1], None, by
                    )
                )
    return out
