"""Recipe `kvcache/heavy-hitters`: do few tokens carry most attention, does the text explain which, what do they matter?

Source: the observations behind H2O, arXiv 2306.14048, section 3 and figure 2, measured on one model.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from tian.config.compose import options_of
from tian.hf.corpus import load_streams
from tian.hf.host import attach
from tian.hf.loading import load_model, load_tokenizer
from tian.runs.files import append_jsonl, read_jsonl
from tian.runs.signals import SafePoint
from tian.types import Measurement
from tian_kvcache import statistics as st
from tian_kvcache.intervals import mean_interval
from tian_kvcache.policies import Full
from tian_kvcache.traces import attention_by_head

if TYPE_CHECKING:
    from torch import Tensor

    from tian.runs.rundir import Run
    from tian_kvcache.study_options import HeavyHittersOptions

ROWS = "streams.jsonl"
SHARES = (0.05, 0.1, 0.2, 0.5)  # of the tokens, for the table
DRAWS = 4  # random sets a masked set is compared with
LEAST_SEEN = 3  # times a kind of token must occur to enter the correlation


class _Values(Full):
    """Keeps everything, so that the values can be read out of the cache."""

    needs: ClassVar[frozenset[str]] = frozenset()


def scores_of(mass: Tensor, rank_by: str, generator: torch.Generator) -> Tensor:
    """What makes a token heavy, `[..., T]`: the attention it received, its age alone (uniform), or nothing (random)."""
    if rank_by == "attention":
        return mass
    if rank_by == "uniform":
        return st.uniform_mass(mass.shape[-1]).to(mass.dtype).expand_as(mass)
    return torch.rand(mass.shape, generator=generator, dtype=mass.dtype)


def heavy_hitters(cfg: Any, run: Run) -> list[Measurement]:
    """See `HeavyHittersOptions`. Each stream is a line of `streams.jsonl`; a resumed run does those that lack.

    Raises:
        DataError: the model folder or the text cannot be used.
    """
    options: HeavyHittersOptions = options_of(cfg)
    tokenizer, model = load_tokenizer(options.model.path), load_model(options.model.path)
    ids, text = load_streams(
        options.text, tokenizer, streams=options.streams, tokens=options.tokens, seed=int(cfg.seed)
    )
    rows = {r["stream"]: r for r in read_jsonl(run.path / ROWS)}
    with run.progress(len(ids), "streams", done=len(rows)) as bar, SafePoint() as safe:
        for s, stream in enumerate(ids):
            if s in rows:
                continue
            row = {"stream": s, **look(model, stream, options, seed=int(cfg.seed) * 100_003 + s)}
            append_jsonl(run.path / ROWS, row)
            rows[s] = row
            bar.advance()
            safe.check()
    return _measure([rows[s] for s in sorted(rows)], options, run, seed=int(cfg.seed), source=text.label)


@torch.no_grad()
def look(model: Any, ids: Tensor, options: HeavyHittersOptions, *, seed: int) -> dict[str, Any]:
    """Everything measured of one stream, as plain data.

    Args:
        model: causal LM in eval mode.
        ids: `[T]` int64.
        options: of the run.
        seed: of the random sets.
    """
    generator = torch.Generator().manual_seed(seed % 2**63)
    p = attention_by_head(model, ids)
    T = len(ids)
    mass = p.double().sum(dim=2)  # [L, H, T]
    score = scores_of(mass, options.rank_by, generator)
    slope, fit = st.power_law(mass)
    # The first token has a role of its own (see the checks of `kvcache/stream`): it is never masked.
    total = score.mean(dim=(0, 1))
    count = max(1, round(options.share * T))
    heavy = (total[1:].topk(count).indices + 1).tolist()
    random = [(torch.randperm(T - 1, generator=generator)[:count] + 1).tolist() for _ in range(DRAWS)]
    with attach(model, kv=_Values()) as cache:
        model(input_ids=ids[None].to(model.device), past_key_values=cache, use_cache=True)
        v = torch.stack([layer.values[0, :, :T].float().cpu() for layer in cache.layers])
    worth, error = _worth(p[:, :, -1], v.repeat_interleave(p.shape[1] // v.shape[1], dim=1))
    excess = _excess(mass - p.diagonal(dim1=-2, dim2=-1), score, options.rank_by)
    return {
        "ids": ids.tolist(),
        "shares": {str(x): st.share_of(mass, st.heaviest(score, x)).mean(dim=1).tolist() for x in SHARES},
        "share": float(st.share_of(mass, st.heaviest(score, options.share)).mean()),
        "exponent": float(slope.mean()),
        "fit": float(fit.mean()),
        "curve": mass.sort(dim=-1, descending=True).values.mean(dim=(0, 1)).tolist(),
        "total": mass.mean(dim=(0, 1)).tolist(),
        "excess": [None if math.isnan(e) else e for e in excess.tolist()],
        "loss": st.loss_without(model, ids, []),
        "loss_heavy": st.loss_without(model, ids, heavy),
        "loss_random": [st.loss_without(model, ids, chosen) for chosen in random],
        "damage_heavy": float(worth[heavy].mean()),
        "damage_random": float(np.mean([float(worth[chosen].mean()) for chosen in random])),
        "damage_error": error,
    }


def _excess(from_others: Tensor, score: Tensor, rank_by: str) -> Tensor:
    """What each position attracts beyond its age, `[T]`: attention of later queries over that of uniform attention.

    Under a control: its score, or 1 throughout. The newest quarter, judged by few queries, is NaN.
    """
    T = score.shape[-1]
    uniform = st.uniform_mass(T) - 1.0 / torch.arange(1, T + 1)
    if rank_by == "attention":
        score = from_others / uniform.clamp(min=1.0 / T)
    elif rank_by == "uniform":
        score = torch.ones_like(score)
    out = score.mean(dim=(0, 1))
    out[T - T // 4 :] = torch.nan
    return out


def _worth(p: Tensor, v: Tensor) -> tuple[Tensor, float]:
    """Relative change of the newest query's output by the token dropped, `[T]` mean over heads; and the meter's error.

    Args:
        p: `[L, H, T]` weights of the newest query.
        v: `[L, H, T, D]` values.
    """
    p, v = p.double(), v.double()
    p = p / p.sum(dim=-1, keepdim=True)  # float32 rows miss 1 by a rounding error, which the meter would magnify
    o = (p[..., None] * v).sum(dim=-2)
    change = st.damage(p, o, v)
    worth = (change.norm(dim=-1) / o.norm(dim=-1)[..., None]).mean(dim=(0, 1))
    j = int(p.mean(dim=(0, 1))[:-1].argmax())  # recompute without the token that matters most
    rest = p.clone()
    rest[..., j] = 0
    without = (rest[..., None] * v).sum(dim=-2) / rest.sum(dim=-1, keepdim=True)
    return worth, float((without - o - change[..., j, :]).abs().max())


def _by_kind(rows: list[dict[str, Any]], window: int) -> tuple[Any, Any, Any]:
    """Co-occurrence count, attention per occurrence relative to uniform, and total attention, of each kind of token."""
    counts = st.cooccurrence([r["ids"][1:] for r in rows], window=window)
    total: dict[int, float] = {}
    excess: dict[int, list[float]] = {}
    for r in rows:
        for kind, a, e in zip(r["ids"][1:], r["total"][1:], r["excess"][1:], strict=True):
            total[kind] = total.get(kind, 0.0) + a
            if e is not None:
                excess.setdefault(kind, []).append(e)
    kinds = sorted(k for k, found in excess.items() if len(found) >= LEAST_SEEN)
    return (
        np.array([float(counts[k]) for k in kinds]),
        np.array([float(np.mean(excess[k])) for k in kinds]),
        np.array([total[k] for k in kinds]),
    )


def _measure(
    rows: list[dict[str, Any]], options: HeavyHittersOptions, run: Run, *, seed: int, source: str
) -> list[Measurement]:
    by: dict[str, str] = {"heavy by": options.rank_by}
    n = len(rows)

    def over_streams(name: str, values: list[float], higher: bool | None, unit: str = "1") -> Measurement:  # noqa: FBT001
        x = torch.tensor(values, dtype=torch.float64)
        return Measurement(name, float(x.mean()), unit, n, mean_interval(x)[1], higher_is_better=higher, by=by)

    def ratio(name: str, logs: list[float]) -> Measurement:
        x = torch.tensor(logs, dtype=torch.float64)
        ci = mean_interval(x)[1]
        both = (math.exp(ci[0]), math.exp(ci[1])) if ci else None
        return Measurement(name, math.exp(float(x.mean())), "1", n, both, higher_is_better=None, by=by)

    random = [float(np.mean(r["loss_random"])) for r in rows]
    out = [
        over_streams("share of attention on the heavy tokens", [r["share"] for r in rows], None),
        over_streams("power law exponent", [r["exponent"] for r in rows], None),
        over_streams("power law R2", [r["fit"] for r in rows], None),
        ratio("perplexity with heavy tokens masked / intact", [r["loss_heavy"] - r["loss"] for r in rows]),
        ratio(
            "perplexity with random tokens masked / intact", [m - r["loss"] for m, r in zip(random, rows, strict=True)]
        ),
        ratio(
            "perplexity, heavy masked / random masked", [r["loss_heavy"] - m for m, r in zip(random, rows, strict=True)]
        ),
        over_streams("change of output, heavy token dropped", [r["damage_heavy"] for r in rows], None),
        over_streams("change of output, random token dropped", [r["damage_random"] for r in rows], None),
        Measurement(
            "error of the damage meter",
            max(r["damage_error"] for r in rows),
            "1",
            n,
            None,
            higher_is_better=False,
            by=by,
        ),
    ]
    counts, excess, total = _by_kind(rows, options.window)
    correlations = {}
    for name, y in (("per occurrence, over uniform", excess), ("total", total)):
        value = st.rank_correlation(counts, y)
        chance = st.permuted(counts, y, times=options.permutations, seed=seed)
        low, high = (float(q) for q in np.quantile(chance, (0.025, 0.975)))
        correlations[name] = {"value": value, "chance": [low, high], "kinds": len(counts)}
        label = {**by, "attention": name}
        out.append(
            Measurement(
                "correlation with co-occurrence", value, "1", len(counts), _fisher(value, len(counts)), None, label
            )
        )
        out.append(Measurement("correlation by chance, 97.5 %", high, "1", options.permutations, None, None, label))
    run.write_json(
        "heavy.json",
        {
            "model": options.model.path or "the small LM that ships with tian",
            "text": source,
            "tokens": len(rows[0]["ids"]),
            "streams": n,
            "share": options.share,
            "rank_by": options.rank_by,
            "shares": {x: np.mean([r["shares"][x] for r in rows], axis=0).tolist() for x in rows[0]["shares"]},
            "curve": np.mean([r["curve"] for r in rows], axis=0).tolist(),
            "uniform": sorted(st.uniform_mass(len(rows[0]["ids"])).tolist(), reverse=True),
            "points": [counts.tolist(), excess.tolist()],
            "correlations": correlations,
            "measured": [m.as_dict() for m in out],
        },
    )
    return out


def _fisher(r: float, n: int) -> tuple[float, float] | None:
    """95 % interval of a rank correlation, by Fisher's transform (factor 1.06 for ranks)."""
    if n < 5 or abs(r) >= 1:
        return None
    half = 1.96 * math.sqrt(1.06 / (n - 3))
    z = math.atanh(r)
    return math.tanh(z - half), math.tanh(z + half)
