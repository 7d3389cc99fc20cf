"""Mutants of FakePlanner."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch

from tian.errors import PlannerError
from tian.spec import Budget, TrajectoryItem
from tian.testing import conformance
from tian.testing.fakes import FakePlanner
from tian.testing.mutants import Mutant, mutant
from tian.testing.mutants.common import common_mutants, count, entropy

FAKE = P = FakePlanner
CACHE: dict[Any, Any] = {}
HISTORY: list[int] = []


def conform(target: Any) -> type:
    """Its conformance class."""
    return conformance.planner(
        target, options=[{"candidates": 6}], bad_options=[{"candidates": -1}], bounds=(-1.0, 1.0)
    )


def changed(name: str, change: Any) -> Mutant:
    """A planner whose plans are `change`d: `(plan, budget) -> fields`."""

    def plan(self: Any, obs: Any, state: Any, *, objective: Any, budget: Any, sim_state: Any = None) -> Any:
        made, after = P.plan(self, obs, state, objective=objective, budget=budget)
        return dataclasses.replace(made, **change(made, budget)), after

    return mutant(name, P, plan=plan)


def replaced(name: str, before: Any) -> Mutant:
    """A planner that plans with other arguments: `before(self, arguments)` may change the dict of them."""

    def plan(self: Any, obs: Any, state: Any, *, objective: Any, budget: Any, sim_state: Any = None) -> Any:
        arguments = {"obs": obs, "state": state, "objective": objective, "budget": budget}
        before(self, arguments)
        return P.plan(self, **arguments)

    return mutant(name, P, plan=plan)


def _sloppy(self: Any, obs: Any, state: Any, *, objective: Any, budget: Any, sim_state: Any = None) -> Any:
    """NaN wins every comparison."""
    _, _, calls = state
    plan, after = P.plan(self, obs, state, objective=objective, budget=Budget(1, 1e9))
    g = torch.Generator().manual_seed(calls)
    for _ in range(min(3, budget.max_evals - 1)):
        new = torch.rand(plan.actions.shape, generator=g)
        score = self._score(new, obs, objective)
        better = ~(score <= plan.score)
        actions = torch.where(better[:, None, None], new, plan.actions)
        plan = dataclasses.replace(
            plan, actions=actions, score=torch.where(better, score, plan.score), evals=plan.evals + 1
        )
    return plan, after


def _raising(self: Any, obs: Any, state: Any, *, objective: Any, budget: Any, sim_state: Any = None) -> Any:
    plan, after = P.plan(self, obs, state, objective=objective, budget=budget)
    if plan.status == "fallback":
        raise PlannerError("no candidate is finite")
    return plan, after


def _cached(self: Any, obs: Any, state: Any, *, objective: Any, budget: Any, sim_state: Any = None) -> Any:
    key = (state, tuple(obs.shape), type(objective).__name__)
    if key not in CACHE:
        CACHE[key] = P.plan(self, obs, state, objective=objective, budget=budget)
    return CACHE[key]


def _in_place(self: Any, obs: Any, state: Any, *, objective: Any, budget: Any, sim_state: Any = None) -> Any:
    seed, batch, calls = state
    plan, _ = P.plan(self, obs, (seed, batch, calls), objective=objective, budget=budget)
    state[2] += 1
    return plan, state


def _wrong_items(change: Any) -> Any:
    def score(self: Any, actions: Any, obs: Any, objective: Any) -> Any:
        items = [change(o.expand(self.horizon, -1), a) for o, a in zip(obs, actions, strict=True)]
        return objective.score(items)[:, 0]

    return score


def _put(arguments: dict[str, Any], **values: Any) -> None:
    arguments.update(values)


MUTANTS = [
    *common_mutants(P, method="reset"),
    mutant(
        "the observation under another name",
        P,
        plan=lambda s, seen, state, *, objective, budget, sim_state=None: P.plan(
            s, seen, state, objective=objective, budget=budget
        ),
    ),
    mutant("needs something unknown", P, needs=frozenset({"rewards"})),
    mutant("needs sim_state and plans without", P, needs=frozenset({"sim_state"})),
    changed("actions in float64", lambda p, b: {"actions": p.actions.double()}),
    changed("actions of one step only, no T", lambda p, b: {"actions": p.actions[:, 0]}),
    changed("actions with a NaN", lambda p, b: {"actions": p.actions / 0.0 * 0.0}),
    changed("a row of actions missing", lambda p, b: {"actions": p.actions[1:]}),
    changed("states one step longer", lambda p, b: {"states": torch.zeros(len(p.actions), 5, 3)}),
    changed("actions beyond the bounds", lambda p, b: {"actions": p.actions * 2}),
    changed("score of another plan", lambda p, b: {"score": p.score - 0.125}),
    changed("score with a dimension more", lambda p, b: {"score": p.score[:, None]}),
    changed("score in float64", lambda p, b: {"score": p.score.double()}),
    changed("status done", lambda p, b: {"status": "done"}),
    changed("status always fallback", lambda p, b: {"status": "fallback"}),
    changed("status never fallback", lambda p, b: {"status": "ok"}),
    changed("evals not counted", lambda p, b: {"evals": 0}),
    changed("evals above the budget", lambda p, b: {"evals": b.max_evals + 1}),
    replaced("max_evals ignored", lambda s, a: _put(a, budget=Budget(10**9, a["budget"].max_seconds))),
    replaced("max_seconds ignored", lambda s, a: _put(a, budget=Budget(a["budget"].max_evals, 1e9))),
    replaced("NaN observations are zeros", lambda s, a: _put(a, obs=a["obs"].nan_to_num())),
    mutant("a NaN score wins", P, plan=_sloppy),
    mutant("an exception where a fallback is due", P, plan=_raising),
    changed("a fallback of NaN", lambda p, b: {"actions": p.actions * math.nan} if p.status == "fallback" else {}),
    mutant("state changed in place", P, plan=_in_place, reset=lambda s, *, seed, batch: [seed, batch, 0]),
    replaced("observation scaled in place", lambda s, a: a["obs"].mul_(0.5)),
    replaced("another seed each time", lambda s, a: _put(a, state=(entropy() % 9999, *a["state"][1:]))),
    replaced("calls counted in the planner", lambda s, a: _put(a, state=(*a["state"][:2], count(s)))),
    mutant("reset counts its calls", P, reset=lambda s, *, seed, batch: (seed + count(s), batch, 0)),
    mutant("reset differs between instances", P, reset=lambda s, *, seed, batch: (entropy() % 9999, batch, 0)),
    replaced("seeds torch's global generator", lambda s, a: torch.manual_seed(a["state"][0])),
    mutant(
        "reset draws its state from torch",
        P,
        reset=lambda s, *, seed, batch: (seed + int(torch.rand(1) < -1), batch, 0),
    ),
    replaced(
        "observations centred over the batch", lambda s, a: _put(a, obs=a["obs"] - a["obs"].mean(0, keepdim=True))
    ),
    mutant("plans cached for all instances", P, plan=_cached),
    mutant("the objective gets float64 actions", P, _score=_wrong_items(lambda s, a: TrajectoryItem(s, a.double()))),
    mutant("the objective gets one state only", P, _score=_wrong_items(lambda s, a: TrajectoryItem(s[:1], a))),
    mutant("the objective gets pairs", P, _score=_wrong_items(lambda s, a: (s, a))),
]
