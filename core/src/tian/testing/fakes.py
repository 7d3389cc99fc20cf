"""One small, deterministic, honest implementation of each role, for tests of hosts and of plugins.

Each obeys its role's contract in full and does something one can check by hand.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from tian.errors import DataError, InvalidInput, NotFitted
from tian.spec import (
    Budget,
    Cost,
    Evaluator,
    FitReport,
    Instance,
    KVPolicy,
    Model,
    Plan,
    Planner,
    RewardModel,
    Sample,
    Site,
    Solution,
    Solver,
    SparsityPredictor,
    TextItem,
    Trace,
    TrajectoryItem,
)
from tian.spec.reward_model import Item
from tian.types import Measurement


class FakeModel(Model):
    """A number with a fingerprint."""

    def __init__(self, value: float = 1.0) -> None:
        self.value = value

    def fingerprint(self) -> str:
        """SHA-256 of the number."""
        return hashlib.sha256(repr(self.value).encode()).hexdigest()


class FakeKVPolicy(KVPolicy):
    """Keeps the tokens with the largest accumulated attention, and the newest; ties keep the newer token."""

    needs: ClassVar[frozenset[str]] = frozenset({"colsum"})
    positions: Literal["original", "in_cache"] = "original"
    chunk_invariant: ClassVar[bool] = False  # what was evicted between two pieces cannot be chosen later

    def __init__(self, budget: int = 8) -> None:
        if budget < 1:
            raise InvalidInput(f"budget must be >= 1, got {budget}")
        self.budget = budget

    def capacity(self, layer: int, n_layers: int, prompt_len: int | None) -> int | None:
        """The budget."""
        return self.budget

    def select(self, score: Tensor | None, token: Tensor, capacity: int) -> Tensor:
        """The heaviest capacity - 1 and the newest."""
        if score is None:
            raise InvalidInput("FakeKVPolicy needs scores")
        newest = torch.full_like(score[..., -1:], torch.inf)
        merit = torch.cat([score[..., :-1], newest], dim=-1)
        order = (token.argsort(dim=-1, descending=True), merit)
        ranked = order[0].gather(-1, merit.gather(-1, order[0]).argsort(dim=-1, descending=True, stable=True))
        return ranked[..., :capacity].sort(dim=-1).values


class FakeRewardModel(RewardModel):
    """Aspect `length`: characters of a text, or minus the summed squared actions of a trajectory."""

    aspects = ("length",)

    def __init__(self, unit: float = 1.0) -> None:
        if unit <= 0:
            raise InvalidInput(f"unit must be > 0, got {unit}")
        self.unit = unit

    def score(self, items: Sequence[Item]) -> Tensor:
        """`[N, 1]` float32, in units of `unit`."""
        return torch.tensor([self._value(i) / self.unit for i in items], dtype=torch.float32).reshape(-1, 1)

    @staticmethod
    def _value(item: Item) -> float:
        if isinstance(item, TrajectoryItem):
            return -float(item.actions.square().sum())
        if isinstance(item, TextItem):
            return float(len(item.response))
        raise InvalidInput(f"an item must be a TextItem or TrajectoryItem, got {type(item).__name__}")

    def explain(self, item: Item) -> str | None:
        """The number in words."""
        return f"scored {float(self.score([item])):g}"


class FakePlanner(Planner):
    """Random shooting: the best of no action and a few random action sequences."""

    horizon = 4
    actions = 2

    def __init__(self, candidates: int = 8) -> None:
        if candidates < 0:
            raise InvalidInput(f"candidates must be >= 0, got {candidates}")
        self.candidates = candidates

    def reset(self, *, seed: int, batch: int) -> Any:
        """The state is (seed, batch, calls so far)."""
        return (seed, batch, 0)

    def plan(
        self, obs: Tensor, state: Any, *, objective: RewardModel, budget: Budget, sim_state: Tensor | None = None
    ) -> tuple[Plan, Any]:
        """Candidates are drawn from the seed and the number of calls, so replanning is reproducible.

        A row without a finite candidate keeps the zero action, scores -inf, and makes the status `fallback`.
        """
        if not torch.isfinite(obs).all():
            raise InvalidInput("the observation holds NaN or infinity")
        seed, batch, calls = state
        generator = torch.Generator().manual_seed(seed * 100_003 + calls)
        best = torch.zeros(batch, self.horizon, self.actions)
        score = self._score(best, obs, objective)
        score = torch.where(torch.isfinite(score), score, -torch.inf)
        evals, end, status = 1, time.monotonic() + budget.max_seconds, "ok"
        for _ in range(self.candidates):
            if evals >= budget.max_evals or time.monotonic() > end:
                status = "budget"
                break
            candidate = torch.rand(best.shape, generator=generator) * 2 - 1
            new = self._score(candidate, obs, objective)
            better = torch.isfinite(new) & (new > score)
            best = torch.where(better[:, None, None], candidate, best)
            score = torch.where(better, new, score)
            evals += 1
        if bool((score == -torch.inf).any()):
            status = "fallback"
        return Plan(best, None, score, status, evals), (seed, batch, calls + 1)

    def _score(self, actions: Tensor, obs: Tensor, objective: RewardModel) -> Tensor:
        items = [TrajectoryItem(o.expand(self.horizon, -1), a) for o, a in zip(obs, actions, strict=True)]
        return objective.score(items)[:, 0]


class FakeSparsityPredictor(SparsityPredictor):
    """Always predicts the units that were largest on average."""

    site_kinds: ClassVar[frozenset[str]] = frozenset({"neuron", "head"})

    def __init__(self, source: str = "mlp_in") -> None:
        if source not in ("mlp_in", "attn_in", "prev_mlp_in", "prev_attn_in"):
            raise InvalidInput(f"source {source!r} is no stream of a transformer layer")
        self.source = source
        self._mean: dict[str, Tensor] = {}

    @staticmethod
    def _key(site: Site) -> str:
        return f"{site.kind}.{site.layer}"

    def fit(self, traces: Iterable[Trace], *, seed: int) -> FitReport:
        """Average magnitudes; recall is that of the top half on the same data."""
        recall = {}
        for trace in traces:
            mean = trace.magnitude.mean(dim=0)
            self._mean[self._key(trace.site)] = mean
            k = max(1, mean.numel() // 2)
            picked = torch.zeros_like(mean, dtype=torch.bool).scatter(0, mean.topk(k).indices, value=True)
            true = trace.magnitude.topk(k, dim=1).indices
            recall[self._key(trace.site)] = float(picked[true].float().mean())
        return FitReport(recall)

    def select(self, site: Site, x: Tensor, k: int) -> Tensor:
        """The same k units for every token."""
        mean = self._mean.get(self._key(site))
        if mean is None:
            raise NotFitted(f"no fit for {site}", hint="call fit() first")
        if k < 1:
            raise InvalidInput(f"k must be >= 1, got {k}")
        have = min(k, mean.numel())
        units = mean.topk(have).indices.sort().values.int()
        padded = torch.cat([units, torch.full((k - have,), -1, dtype=torch.int32)])
        return padded.expand(x.shape[0], -1)

    def cost(self, site: Site, n: int) -> Cost:
        """A table look-up."""
        return Cost(bytes_=4 * n, flops=0)

    def state_dict(self) -> dict[str, Any]:
        """Means by site."""
        return {"source": self.source, **{f"mean.{k}": v.clone() for k, v in self._mean.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the means."""
        if state.get("source") != self.source:
            raise InvalidInput(f"the state was fitted on {state.get('source')!r}, this predictor reads {self.source!r}")
        self._mean = {k.removeprefix("mean."): v.clone() for k, v in state.items() if k.startswith("mean.")}


class FakeSolver(Solver):
    """Kind `choose-k`: pick exactly `payload` of n items at least cost, by enumeration."""

    kinds: ClassVar[frozenset[str]] = frozenset({"choose-k"})

    def __init__(self, largest: int = 16) -> None:
        if largest < 1:
            raise InvalidInput(f"largest must be >= 1, got {largest}")
        self.largest = largest

    def solve(self, inst: Instance, *, time_limit_s: float, seed: int = 0, warm_start: Any = None) -> Solution:
        """Every subset is tried; more than n items cannot be chosen: infeasible."""
        if inst.kind not in self.kinds:
            raise InvalidInput(f"kind {inst.kind!r} is not solved here", hint=f"one of: {', '.join(self.kinds)}")
        if len(inst.cost) > self.largest:
            raise InvalidInput(f"{len(inst.cost)} items are too many to enumerate", hint=f"at most {self.largest}")
        if not np.isfinite(inst.cost).all():
            raise InvalidInput("a cost is NaN or infinite")
        start = time.monotonic()
        n, best, objective = len(inst.cost), None, float("nan")
        for chosen in itertools.combinations(range(n), int(inst.payload)):
            if time.monotonic() - start > time_limit_s:
                return Solution(best, objective, -np.inf, "timeout", time.monotonic() - start)
            x = np.zeros(n)
            x[list(chosen)] = 1.0
            value = float(inst.cost @ x)
            if best is None or value < objective:
                best, objective = x, value
        seconds = time.monotonic() - start
        if best is None:
            return Solution(None, float("nan"), float("inf"), "infeasible", seconds)
        return Solution(best, objective, objective, "optimal", seconds)


@dataclass
class FakeEvaluator(Evaluator):
    """Share of samples a predicate accepts; `z` standard errors make its interval."""

    z: float = 1.96

    def __post_init__(self) -> None:
        if self.z <= 0:
            raise InvalidInput(f"z must be > 0, got {self.z}")

    def samples(self, data: Any, *, limit: int | None, seed: int) -> Iterable[Sample]:
        """The entries of a sequence, shuffled by the seed, each under its index."""
        if not isinstance(data, Sequence):
            raise DataError(f"the data must be a sequence, got {type(data).__name__}")
        order = np.random.default_rng(seed).permutation(len(data))[:limit]
        return [Sample(str(int(i)), data[int(i)]) for i in order]

    def measure(self, subject: Any, sample: Sample) -> Mapping[str, float]:
        """1 when accepted."""
        return {"accepted": float(bool(subject(sample.data)))}

    def aggregate(self, rows: Sequence[Mapping[str, float]]) -> list[Measurement]:
        """Mean with a normal interval; nothing for no rows."""
        if not rows:
            return []
        x = np.array([r["accepted"] for r in rows])
        half = self.z * float(x.std()) / max(1, len(x)) ** 0.5
        mean = float(x.mean())
        return [Measurement("accepted", mean, "1", len(x), (mean - half, mean + half), higher_is_better=True)]
