"""Mutants of FakeSparsityPredictor."""

from __future__ import annotations

import random
from typing import Any

import torch

from tian.spec import Cost, FitReport
from tian.testing import conformance
from tian.testing.fakes import FakeSparsityPredictor
from tian.testing.mutants import Mutant, mutant
from tian.testing.mutants.common import after, common_mutants, count, entropy, first

FAKE = S = FakeSparsityPredictor
SHARED: dict[str, Any] = {}


def conform(target: Any) -> type:
    """Its conformance class."""
    return conformance.sparsity_predictor(target, bad_options=[{"source": "embedding"}])


def selects(name: str, change: Any) -> Mutant:
    """One whose selection is `change(units, x, k)`."""
    return mutant(name, S, select=lambda s, site, x, k: change(S.select(s, site, x, k), x, k))


def loads(name: str, change: Any) -> Mutant:
    """One that reads `change(state)` for a state."""
    return mutant(name, S, load_state_dict=lambda s, state: S.load_state_dict(s, change(dict(state))))


def _by_merit(self: Any, site: Any, x: Any, k: int, merit: Any) -> Any:
    kept = self._mean
    self._mean = {key: merit(v) for key, v in kept.items()}
    try:
        return S.select(self, site, x, k)
    finally:
        self._mean = kept


def _lenient(self: Any, site: Any, x: Any, k: int) -> Any:
    if self._key(site) not in self._mean:
        return torch.arange(k, dtype=torch.int32).expand(x.shape[0], -1)
    return S.select(self, site, x, k)


def _largest_first(self: Any, site: Any, x: Any, k: int) -> Any:
    units = S.select(self, site, x, k)
    have = min(k, self._mean[self._key(site)].numel())
    top = self._mean[self._key(site)].topk(have).indices.int().expand(x.shape[0], -1)
    return torch.cat([top, units[:, have:]], dim=1)


def _batch_wise(self: Any, site: Any, x: Any, k: int) -> Any:
    sign = x[:, 0].mean().sign()
    return _by_merit(self, site, x, k, lambda mean: mean * sign)


def _in_place(self: Any, traces: Any, *, seed: int) -> Any:
    traces = list(traces)
    report = S.fit(self, traces, seed=seed)
    for t in traces:
        t.magnitude.div_(t.magnitude.max())
    return report


def _noisy(self: Any, traces: Any, *, seed: int) -> Any:
    report = S.fit(self, traces, seed=seed)
    g = torch.Generator().manual_seed(entropy())
    self._mean = {k: v * torch.rand(v.shape, generator=g) for k, v in self._mean.items()}
    return report


def _twice(self: Any, traces: Any, *, seed: int) -> Any:
    sites = {t.site for t in traces}
    return S.fit(self, [t for t in traces if t.site in sites], seed=seed)


def _alias(self: Any, state: Any) -> None:
    S.load_state_dict(self, state)
    self._mean = {k.removeprefix("mean."): v for k, v in state.items() if k.startswith("mean.")}


def _share(self: Any) -> None:
    self._mean = SHARED


MUTANTS = [
    *common_mutants(S, method="select"),
    mutant("source is no stream", S, __init__=after(S, lambda s: setattr(s, "source", "logits"))),
    mutant("no kind of site", S, site_kinds=frozenset()),
    mutant("select before fit guesses", S, select=_lenient),
    mutant(
        "recall in per cent",
        S,
        fit=lambda s, traces, *, seed: FitReport({k: 100 * v for k, v in S.fit(s, traces, seed=seed).recall.items()}),
    ),
    mutant(
        "recall of one site only",
        S,
        fit=lambda s, traces, *, seed: FitReport(dict([*S.fit(s, traces, seed=seed).recall.items()][:1])),
    ),
    mutant("fit with noise nobody seeded", S, fit=_noisy),
    mutant("fit reads its traces twice", S, fit=_twice),
    mutant("the smallest units", S, select=lambda s, site, x, k: _by_merit(s, site, x, k, lambda mean: -mean)),
    selects("select as int64", lambda units, x, k: units.long()),
    selects("select for one token only", lambda units, x, k: units[0]),
    selects("no padding beyond M", lambda units, x, k: units[:, : int((units[0] >= 0).sum())]),
    mutant("largest first instead of ascending", S, select=_largest_first),
    selects("padding in front", lambda units, x, k: units.flip(-1).sort(dim=-1).values),
    selects("the first unit everywhere", lambda units, x, k: units[:, :1].expand(-1, k)),
    selects("units counted from 1", lambda units, x, k: units + 1),
    selects("one unit short", lambda units, x, k: torch.cat([units[:, : k - 1], units[:, :1] * 0 - 1], dim=1)),
    mutant("k below one is one", S, select=lambda s, site, x, k: S.select(s, site, x, max(1, k))),
    mutant("the batch votes", S, select=_batch_wise),
    selects("select looks at a value", lambda units, x, k: first(units, x.sum().item())),
    selects("select branches on a tensor", lambda units, x, k: units if x.abs().sum() >= 0 else -units),
    mutant(
        "every second select is another",
        S,
        select=lambda s, site, x, k: _by_merit(s, site, x, k, lambda m: m * (-1) ** count(s)),
    ),
    mutant("means shared by all instances", S, __init__=after(S, _share)),
    mutant("fit normalises the traces in place", S, fit=_in_place),
    selects("select clamps its input in place", lambda units, x, k: first(units, x.clamp_(-0.5, 0.5))),
    mutant(
        "fit draws from the global generator",
        S,
        fit=lambda s, traces, *, seed: first(S.fit(s, traces, seed=seed), torch.rand(1)),
    ),
    selects("select draws from random", lambda units, x, k: first(units, random.random())),
    mutant("cost per token a fraction", S, cost=lambda s, site, n: Cost(bytes_=4 * n, flops=n / 2)),
    mutant("cost falls with the tokens", S, cost=lambda s, site, n: Cost(bytes_=4000 - 4 * n, flops=0)),
    mutant(
        "state without the last layer",
        S,
        state_dict=lambda s: dict([*S.state_dict(s).items()][:-1]),
    ),
    mutant("state with the object itself", S, state_dict=lambda s: S.state_dict(s) | {"owner": s}),
    mutant(
        "state without its source", S, state_dict=lambda s: {k: v for k, v in S.state_dict(s).items() if k != "source"}
    ),
    loads("a foreign source is adopted", lambda state: state | {"source": "mlp_in"}),
    mutant(
        "an empty state is ignored",
        S,
        load_state_dict=lambda s, state: S.load_state_dict(s, state) if state else None,
    ),
    mutant(
        "state_dict hands out its own tensors",
        S,
        state_dict=lambda s: {"source": s.source} | {f"mean.{k}": v for k, v in s._mean.items()},
    ),
    mutant("load_state_dict keeps the caller's tensors", S, load_state_dict=_alias),
]
