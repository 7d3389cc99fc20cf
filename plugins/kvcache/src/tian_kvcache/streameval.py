"""Recipe `kvcache/streameval`: questions about facts some lines back in a stream, by policy and distance.

Source: arXiv 2309.17453, section 4.3. The edge: what has left the cache is never answered.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import torch

from tian.config.compose import options_of
from tian.hf.host import attach
from tian.hf.loading import load_model, load_tokenizer
from tian.runs.files import append_jsonl, read_jsonl
from tian.runs.signals import SafePoint
from tian.types import Measurement
from tian_kvcache.arms import Arm, policy_arm
from tian_kvcache.intervals import wilson
from tian_kvcache.streameval_stream import constructed, distance_of, right, text_stream
from tian_kvcache.traces import simulate

if TYPE_CHECKING:
    from tian.runs.rundir import Run
    from tian_kvcache.streameval_options import StreamEvalOptions

ROWS = "answers.jsonl"


@torch.no_grad()
def streameval(cfg: Any, run: Run) -> list[Measurement]:
    """See `StreamEvalOptions`. Each policy and distance is a line of `answers.jsonl`; a resumed run does what lacks.

    Raises:
        DataError, UnsupportedModel, NoDevice: see `load_model`.
        InvalidInput: learned positions ran out, or a budget that is a share of a prompt.
    """
    options: StreamEvalOptions = options_of(cfg)
    if options.threads:
        torch.set_num_threads(options.threads)
    arms = {a.label: a for a in (policy_arm(n, run) for n in (options.kv, *options.compare))}
    model = tokenizer = None
    if options.reader == "model":
        tokenizer = load_tokenizer(options.model.path)
        model = load_model(options.model.path, device=options.device)
    done = {(r["policy"], r["back"]): r for r in read_jsonl(run.path / ROWS)}
    tasks = [(label, back) for label in arms for back in options.lines_back]
    with run.progress(len(tasks), "policies and distances", done=len(done)) as bar, SafePoint() as safe:
        for label, back in tasks:
            if (label, back) in done:
                continue
            arm = arms[label]
            if options.reader == "constructed":
                found = _constructed(arm, back, options)
            else:
                found = _read(model, tokenizer, arm, back, options, seed=int(cfg.seed))
            row = {"policy": label, "back": back, "capacity": arm.capacity, **found}
            append_jsonl(run.path / ROWS, row)
            done[label, back] = row
            bar.advance()
            safe.check()
    rows = [done[t] for t in tasks]
    run.write_json("streameval.json", {"reader": options.reader, "main": next(iter(arms)), "rows": rows})
    out = []
    for r in rows:
        by = {"policy": r["policy"], "lines back": str(r["back"]), "reader": options.reader}
        share, n = r["right"] / r["asked"], r["asked"]
        out.append(Measurement("exact answers", share, "1", n, wilson(r["right"], n), higher_is_better=True, by=by))
    return out


def _constructed(arm: Arm, back: int, options: StreamEvalOptions) -> dict[str, int]:
    streams = constructed(back=back, queries=options.queries, every=options.every)
    assert arm.policy is not None  # noqa: S101 - built from a policy node
    trace = streams.attention()
    share = float(streams.scores(trace, simulate(trace, arm.policy, arm.capacity))[0])
    return {"asked": options.queries, "right": round(share * options.queries), "distance": distance_of(back)}


def _read(model: Any, tokenizer: Any, arm: Arm, back: int, options: StreamEvalOptions, *, seed: int) -> dict[str, int]:
    """Read the streams side by side, one token at a time; the true answers are read on, whatever was said."""
    rng = random.Random(seed)
    made = [
        text_stream(tokenizer, back=back, queries=options.queries, every=options.every, rng=rng)
        for _ in range(options.streams)
    ]
    width = max(len(ids) for ids, _ in made)
    ids = torch.tensor([[*i, *([0] * (width - len(i)))] for i, _ in made], device=model.device)
    hits = torch.zeros(len(made), width - 1, dtype=torch.bool)
    assert arm.policy is not None  # noqa: S101 - built from a policy node
    with attach(model, kv=arm.policy) as cache:
        for t in range(width - 1):
            logits = model(input_ids=ids[:, t : t + 1], past_key_values=cache, use_cache=True).logits[:, -1]
            hits[:, t] = (logits.argmax(dim=-1) == ids[:, t + 1]).cpu()
    answers = [ok for row, (_, asked) in zip(hits, made, strict=True) for ok in right(row, asked)]
    nearest = min(a.distance for _, asked in made for a in asked)
    return {"asked": len(answers), "right": sum(answers), "distance": nearest}
