"""Mutants of FakeRewardModel."""

from __future__ import annotations

import math
from typing import Any

import torch

from tian.errors import InvalidInput
from tian.spec import TextItem
from tian.testing import conformance
from tian.testing.fakes import FakeRewardModel
from tian.testing.mutants import Mutant, mutant
from tian.testing.mutants.common import common_mutants, count, first

FAKE = R = FakeRewardModel
SEEN: list[float] = []


def conform(target: Any) -> type:
    """Its conformance class."""
    return conformance.reward_model(target, options=[{"unit": 10.0}], bad_options=[{"unit": 0.0}])


def scores(name: str, change: Any) -> Mutant:
    """One whose scores are `change(scores, items)`."""
    return mutant(name, R, score=lambda s, items: change(R.score(s, items), items))


def compares(name: str, change: Any) -> Mutant:
    """One whose comparisons are `change(p, pairs)`."""
    return mutant(name, R, compare=lambda s, pairs: change(R.compare(s, pairs), pairs))


def _shared(self: Any, items: Any) -> Any:
    raw = R.score(self, items)
    SEEN.extend(raw.flatten().tolist())
    return raw - sum(SEEN) / max(1, len(SEEN))


def _forget(self: Any, items: Any) -> Any:
    return R.score(self, [i for i in items if getattr(i, "response", "x")])


def _picky(self: Any, items: Any) -> Any:
    if any(getattr(i, "response", "x") == "" for i in items):
        raise InvalidInput("empty response")
    return R.score(self, items)


def _text(self: Any, items: Any) -> Any:
    return R.score(self, [i if isinstance(i, TextItem) else TextItem("", str(i)) for i in items])


def _crash(self: Any, items: Any) -> Any:
    return torch.tensor([[len(i.response) / self.unit] for i in items], dtype=torch.float32).reshape(-1, 1)


MUTANTS = [
    *common_mutants(R, method="score"),
    mutant("aspects as a list", R, aspects=["length"]),
    mutant("no aspects", R, aspects=()),
    mutant("order_sensitive not said", R, order_sensitive=None),
    scores("scores without the column", lambda x, items: x[:, 0]),
    scores("scores in float64", lambda x, items: x.double()),
    scores("a column without an aspect", lambda x, items: torch.cat([x, x], dim=1)),
    scores("the last row is missing", lambda x, items: x[:-1]),
    scores("NaN for an empty response", lambda x, items: x.masked_fill(x == 0, math.nan)),
    scores("logarithm of the length", lambda x, items: x.log()),
    mutant("no items crash", R, score=lambda s, items: torch.stack([R.score(s, [i])[0] for i in items])),
    scores("relative to the batch", lambda x, items: x - x.mean(dim=0, keepdim=True) if len(x) else x),
    scores("by rank in the batch", lambda x, items: x.argsort(dim=0).float()),
    mutant("scores drift with use", R, score=lambda s, items: R.score(s, items) + 0.01 * count(s)),
    mutant("empty responses are left out", R, score=_forget),
    mutant("empty responses are refused", R, score=_picky),
    mutant("a list only", R, score=lambda s, items: R.score(s, items + [])),  # noqa: RUF005
    mutant("pairs in a list only", R, compare=lambda s, pairs: R.compare(s, pairs + [])),  # noqa: RUF005
    mutant("anything passes for a text", R, score=_text),
    mutant("a wrong item crashes", R, score=_crash),
    mutant(
        "gaps instead of probabilities",
        R,
        compare=lambda s, pairs: R.score(s, [a for a, _ in pairs]) - R.score(s, [b for _, b in pairs]),
    ),
    compares("comparisons in float64", lambda p, pairs: p.double()),
    compares("one comparison for all pairs", lambda p, pairs: p[:1]),
    compares("the first is preferred", lambda p, pairs: 0.1 + 0.9 * p),
    compares("the longer list of pairs is surer", lambda p, pairs: (p.logit() * len(pairs)).sigmoid()),
    mutant("explains by a dict", R, explain=lambda s, item: {"length": 1}),
    mutant("explains by a number", R, explain=lambda s, item: 1.0),
    scores(
        "sorts the items in place",
        lambda x, items: first(x, items.__setitem__(slice(None), items[::-1]) if isinstance(items, list) else None),
    ),
    scores("adds noise", lambda x, items: x + torch.rand(x.shape) / 10),
    mutant("explain draws a number", R, explain=lambda s, item: first("words", torch.rand(1))),
    mutant("relative to all items ever seen", R, score=_shared),
]
