"""Recipe `kvcache/regret`: attention each policy loses on a real trace against the exact offline optimum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tian.config.compose import options_of
from tian.errors import InvalidInput
from tian.hf.corpus import load_streams
from tian.hf.loading import load_model, load_tokenizer
from tian.runs.files import append_jsonl, read_jsonl
from tian.runs.signals import SafePoint
from tian.types import Measurement
from tian_kvcache.arms import arms_at
from tian_kvcache.budget import budget_tokens
from tian_kvcache.intervals import mean_interval
from tian_kvcache.optimum import Optimum, optimum
from tian_kvcache.plan import save_plan, victims_of
from tian_kvcache.recall import seen_by
from tian_kvcache.traces import attention_trace, retained

if TYPE_CHECKING:
    from torch import Tensor

    from tian.runs.rundir import Run
    from tian_kvcache.arms import Arm
    from tian_kvcache.study_options import RegretOptions

PROTECTED = 1  # every policy keeps the newest token, so the optimum must as well
ROWS = "heads.jsonl"


def regret(cfg: Any, run: Run) -> list[Measurement]:
    """See `RegretOptions`. Each head of each stream is a line of `heads.jsonl`; a resumed run does those that lack.

    Writes `plan.npz`, the optimum of the first stream at the main budget, for the policy `plan`.

    Raises:
        DataError: the model folder or the text cannot be used.
        InvalidInput: a budget of fewer than 2 tokens, or a stream too short for it.
    """
    options: RegretOptions = options_of(cfg)
    tokenizer, model = load_tokenizer(options.model.path), load_model(options.model.path)
    ids, text = load_streams(
        options.text, tokenizer, streams=options.streams, tokens=options.tokens, seed=int(cfg.seed)
    )
    length = ids.shape[1]
    main = budget_tokens(options.budget, length)
    if main >= length:
        raise InvalidInput(
            f"a budget of {main} tokens forgets nothing of a stream of {length}", hint=f"set budget={length // 4}"
        )
    further = {budget_tokens(float(share), length) for share in options.curve}
    budgets = [main, *sorted(b for b in further if b != main and b < length)]
    unique = {arm.label: arm for arm in arms_at([options.kv, *options.compare], run, main)}
    done = {(r["stream"], r["layer"], r["head"], r["budget"]): r for r in read_jsonl(run.path / ROWS)}
    n_layers, n_heads = _shape(model)
    picked = _picked(n_layers, n_heads, options.heads)
    with run.progress(len(ids) * len(picked) * len(budgets), "heads", done=len(done)) as bar, SafePoint() as safe:
        for s, stream in enumerate(ids):
            if all((s, layer, head, b) in done for layer, head in picked for b in budgets):
                continue
            trace = attention_trace(model, stream)
            trace = torch.stack([trace[layer, head] for layer, head in picked])
            for budget in budgets:
                _stream(trace, s, budget, picked, unique, done, run, bar, safe)
    rows = list(done.values())
    if len(picked) == n_layers * n_heads:
        end = {(r["layer"], r["head"]): r["end"] for r in rows if r["stream"] == 0 and r["budget"] == main}
        ranks = [[victims_of(np.array(end[layer, head]), main) for head in range(n_heads)] for layer in range(n_layers)]
        save_plan(run.path / "plan.npz", np.array(ranks), main)
    return _measure(
        rows, list(unique), budgets, picked, run, length=length, source=text.label, model=options.model.path
    )


def _shape(model: Any) -> tuple[int, int]:
    config = model.config
    return config.num_hidden_layers, getattr(config, "num_key_value_heads", None) or config.num_attention_heads


def _picked(n_layers: int, n_heads: int, wanted: int | None) -> list[tuple[int, int]]:
    """`(layer, head)` of all heads, or of `wanted` spread evenly."""
    every = [(layer, head) for layer in range(n_layers) for head in range(n_heads)]
    count = min(wanted or len(every), len(every))
    return [every[i * len(every) // count] for i in range(count)]


def _stream(
    trace: Tensor,
    stream: int,
    budget: int,
    picked: list[tuple[int, int]],
    arms: dict[str, Arm],
    done: dict[tuple[int, int, int, int], dict[str, Any]],
    run: Run,
    bar: Any,
    safe: SafePoint,
) -> None:
    """All heads of one stream at one budget: the policies together, the optimum one head at a time."""
    lacking = [i for i, (layer, head) in enumerate(picked) if (stream, layer, head, budget) not in done]
    if not lacking:
        return
    layers = torch.tensor([layer for layer, _ in picked])
    kept = {name: retained(trace, seen_by(arm, trace, budget, layer=layers)) for name, arm in arms.items()}
    for i in lacking:
        layer, head = picked[i]
        best: Optimum = optimum(trace[i].numpy(), budget, recent=PROTECTED)
        row = {
            "stream": stream,
            "layer": layer,
            "head": head,
            "budget": budget,
            "optimum": best.value,
            "upper": best.upper,
            "end": best.end.tolist(),
            "retained": {name: float(values[i]) for name, values in kept.items()},
        }
        append_jsonl(run.path / ROWS, row)
        done[stream, layer, head, budget] = row
        bar.advance()
        safe.check()


def _measure(
    rows: list[dict[str, Any]],
    names: list[str],
    budgets: list[int],
    picked: list[tuple[int, int]],
    run: Run,
    *,
    length: int,
    source: str,
    model: str | None,
) -> list[Measurement]:
    """Regret by policy and budget (interval over streams), worst head, and the optimum's certificate."""
    streams = sorted({r["stream"] for r in rows})
    found = {(r["stream"], r["layer"], r["head"], r["budget"]): r for r in rows}

    def lost(name: str, budget: int) -> Tensor:  # [streams, heads]
        cells = [[found[s, layer, head, budget] for layer, head in picked] for s in streams]
        return torch.tensor(
            [[1 - c["retained"][name] / c["optimum"] if c["optimum"] > 0 else 0.0 for c in line] for line in cells],
            dtype=torch.float64,
        )

    out: list[Measurement] = []
    table: dict[str, list[float]] = {}
    curve: dict[str, list[tuple[float, float]]] = {}
    for budget in budgets:
        for name in names:
            by = {"policy": name, "budget": f"{budget} tokens"}
            x = lost(name, budget)
            by_stream = x.mean(dim=1)
            value = float(by_stream.mean())
            out.append(
                Measurement(
                    "regret", value, "1", len(streams), mean_interval(by_stream)[1], higher_is_better=False, by=by
                )
            )
            curve.setdefault(name, []).append((budget / length, value))
            if budget != budgets[0]:
                continue
            by_head = x.mean(dim=0)
            table[name] = by_head.tolist()
            worst = 1 - float(by_head.max())
            out.append(
                Measurement(
                    "retained of the optimum, worst head", worst, "1", len(streams), None, higher_is_better=True, by=by
                )
            )
    gap = max((r["upper"] - r["optimum"]) / max(r["optimum"], 1e-12) for r in rows)
    out.append(Measurement("gap of the optimum's certificate", gap, "1", len(rows), None, higher_is_better=False))
    run.write_json(
        "regret.json",
        {
            "model": model or "the small LM that ships with tian",
            "text": source,
            "length": length,
            "streams": len(streams),
            "budget": budgets[0],
            "heads": [f"{layer}.{head}" for layer, head in picked],
            "by_head": table,
            "curve": {name: sorted(points) for name, points in curve.items()},
            "ci": {
                m.by["policy"]: m.ci95 for m in out if m.name == "regret" and m.by["budget"] == f"{budgets[0]} tokens"
            },
            "gap": gap,
        },
    )
    return out
