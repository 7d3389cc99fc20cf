"""Mutants of FakeSolver."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np

from tian.errors import InvalidInput, TianError
from tian.spec import Instance, Solution
from tian.testing import conformance
from tian.testing.fakes import FakeSolver
from tian.testing.mutants import Mutant, mutant
from tian.testing.mutants.common import common_mutants, count, entropy, first

FAKE = S = FakeSolver
NAN = float("nan")
BY_SIZE: dict[tuple[int, int], Solution] = {}


def instances(seed: int) -> list[Instance]:
    """Four of 5 to 6 items, the last without a solution."""
    rng = np.random.default_rng(seed)
    sizes = [(5, 2), (5, 5), (6, 3), (5, 6)]
    return [Instance("choose-k", rng.normal(size=n).round(3), k) for n, k in sizes]


def feasible(inst: Instance, x: Any) -> bool:
    """Exactly k items."""
    return bool(np.isin(x, (0.0, 1.0)).all() and x.sum() == inst.payload)


def brute(inst: Instance) -> float | None:
    """The sum of the k smallest costs."""
    return float(np.sort(inst.cost)[: inst.payload].sum()) if inst.payload <= len(inst.cost) else None


def conform(target: Any) -> type:
    """Its conformance class."""
    hard = Instance("choose-k", np.linspace(1.0, 2.0, 14), 7)
    return conformance.solver(
        target, bad_options=[{"largest": 0}], instances=instances, feasible=feasible, brute=brute, hard=hard
    )


def changed(name: str, change: Any) -> Mutant:
    """One whose solutions have other fields: `change(solution, inst) -> fields`."""

    def solve(self: Any, inst: Any, *, time_limit_s: float, seed: int = 0, warm_start: Any = None) -> Any:
        s = S.solve(self, inst, time_limit_s=time_limit_s, seed=seed)
        return dataclasses.replace(s, **change(s, inst))

    return mutant(name, S, solve=solve)


def wrapped(name: str, call: Any) -> Mutant:
    """One that solves by `call(self, inst, limit, seed, start)`."""
    return mutant(
        name,
        S,
        solve=lambda self, inst, *, time_limit_s, seed=0, warm_start=None: call(
            self, inst, time_limit_s, seed, warm_start
        ),
    )


def solve(self: Any, inst: Instance, limit: float = 1e9) -> Solution:
    """As the fake does."""
    return S.solve(self, inst, time_limit_s=limit)


def _strict(self: Any, inst: Any, limit: float, seed: int, start: Any) -> Any:
    s = solve(self, inst, limit)
    if s.status == "infeasible":
        raise InvalidInput("the instance has no solution")
    return s


def _on_time(self: Any, inst: Any, limit: float, seed: int, start: Any) -> Any:
    s = solve(self, inst, limit)
    if s.status == "timeout":
        raise TianError("out of time")
    return s


def _random(self: Any, inst: Any, limit: float, seed: int, start: Any) -> Any:
    s = solve(self, inst, limit)
    if s.x is None:
        return s
    rng = np.random.default_rng(entropy())
    x = np.zeros(len(s.x))
    x[rng.permutation(len(x))[: inst.payload]] = 1.0
    return Solution(x, float(inst.cost @ x), -math.inf, "feasible", 0.0)


def _second(self: Any, inst: Any, limit: float, seed: int, start: Any) -> Any:
    s = solve(self, inst, limit)
    if s.x is None or inst.payload == len(inst.cost):
        return s
    chosen = sorted(itertools.combinations(range(len(inst.cost)), inst.payload), key=lambda c: inst.cost[list(c)].sum())
    x = np.zeros(len(s.x))
    x[list(chosen[1])] = 1.0
    value = float(inst.cost @ x)
    return Solution(x, value, value, "optimal", 0.0)


def _by_size(self: Any, inst: Any, limit: float, seed: int, start: Any) -> Any:
    key = (len(inst.cost), int(inst.payload))
    BY_SIZE.setdefault(key, solve(self, inst, limit))
    return BY_SIZE[key]


def _buffer(self: Any, inst: Any, limit: float, seed: int, start: Any) -> Any:
    s = solve(self, inst, limit)
    if s.x is None:
        return s
    buffers = self.__dict__.setdefault("_buffers", {})
    buffer = buffers.setdefault(len(s.x), np.zeros(len(s.x)))
    buffer[:] = s.x
    return dataclasses.replace(s, x=buffer)


def _overwrite(self: Any, inst: Any, limit: float, seed: int, start: Any) -> Any:
    if start is not None:
        start[:] = 0.0
    return solve(self, inst, limit)


def _trusting(self: Any, inst: Any, limit: float, seed: int, start: Any) -> Any:
    s = solve(self, inst, limit)
    if start is None or s.x is None:
        return s
    return dataclasses.replace(s, x=s.x, objective=s.objective + 1, bound=s.bound + 1)


def _mild(self: Any, inst: Any, limit: float, seed: int, start: Any) -> Any:
    return solve(self, dataclasses.replace(inst, cost=np.nan_to_num(inst.cost, nan=0.0, posinf=9.0)), limit)


def _tired(self: Any, inst: Any, limit: float, seed: int, start: Any) -> Any:
    s = solve(self, inst, limit)
    return dataclasses.replace(s, bound=-math.inf, status="feasible") if count(self) > 6 and s.x is not None else s


MUTANTS = [
    *common_mutants(S, method="solve"),
    mutant(
        "the instance under another name",
        S,
        solve=lambda self, problem, *, time_limit_s, seed=0, warm_start=None: solve(self, problem, time_limit_s),
    ),
    mutant("kinds as a list", S, kinds=["choose-k"]),
    mutant("kinds without its own", S, kinds=frozenset({"lp"})),
    wrapped("any kind is taken", lambda s, i, limit, seed, w: solve(s, dataclasses.replace(i, kind="choose-k"), limit)),
    wrapped("NaN costs count as zero", _mild),
    changed("status solved", lambda s, i: {"status": "solved"} if s.status == "optimal" else {}),
    changed("optimal without x", lambda s, i: {"x": None, "objective": NAN}),
    changed(
        "infeasible with an x of zeros",
        lambda s, i: {"x": np.zeros(len(i.cost)), "objective": 0.0} if s.x is None else {},
    ),
    changed("x in float32", lambda s, i: {} if s.x is None else {"x": s.x.astype(np.float32)}),
    changed("x as a list", lambda s, i: {} if s.x is None else {"x": s.x.tolist()}),
    changed("x without its last entry", lambda s, i: {} if s.x is None else {"x": s.x[:-1]}),
    changed("objective maximised", lambda s, i: {"objective": -s.objective, "bound": -abs(s.objective) - 9}),
    changed("objective rounded", lambda s, i: {"objective": round(s.objective, 1)} if s.x is not None else {}),
    changed("objective zero without x", lambda s, i: {"objective": 0.0} if s.x is None else {}),
    changed("bound NaN", lambda s, i: {"bound": NAN}),
    changed("bound above the objective", lambda s, i: {"bound": s.bound + 1}),
    changed("optimal without a proof", lambda s, i: {"bound": -math.inf}),
    changed("x one item short", lambda s, i: {} if s.x is None else {"x": s.x * 0.0, "objective": 0.0, "bound": -9.0}),
    wrapped("the second best called optimal", _second),
    wrapped("infeasible is an exception", _strict),
    changed("infeasible is an error", lambda s, i: {"status": "error"} if s.x is None else {}),
    changed(
        "all items chosen is called infeasible",
        lambda s, i: {"x": None, "objective": NAN, "status": "infeasible"} if i.payload == len(i.cost) else {},
    ),
    mutant(
        "a limit by default",
        S,
        solve=lambda self, inst, *, time_limit_s=60.0, seed=0, warm_start=None: solve(self, inst, time_limit_s),
    ),
    wrapped("the limit is ignored", lambda s, i, limit, seed, w: solve(s, i)),
    wrapped("a time-out is an exception", _on_time),
    changed("seconds not taken", lambda s, i: {"seconds": NAN}),
    changed("seconds negative", lambda s, i: {"seconds": -1.0}),
    mutant(
        "a batch backwards",
        S,
        solve_batch=lambda self, insts, *, time_limit_s, seed=0: [solve(self, i, time_limit_s) for i in insts[::-1]],
    ),
    mutant(
        "a batch without what is infeasible",
        S,
        solve_batch=lambda self, insts, *, time_limit_s, seed=0: [
            s for s in (solve(self, i, time_limit_s) for i in insts) if s.x is not None
        ],
    ),
    mutant(
        "many costs backwards",
        S,
        solve_costs=lambda self, inst, costs, *, time_limit_s, seed=0: S.solve_costs(
            self, inst, costs[::-1], time_limit_s=time_limit_s
        ),
    ),
    mutant(
        "one cost for all",
        S,
        solve_costs=lambda self, inst, costs, *, time_limit_s, seed=0: S.solve_costs(
            self, inst, 0 * costs + inst.cost, time_limit_s=time_limit_s
        ),
    ),
    wrapped("any feasible x, unseeded", _random),
    wrapped("the first answer for every instance of a size", _by_size),
    wrapped("answers get worse with use", _tired),
    wrapped("answers share a buffer", _buffer),
    wrapped("the warm start is overwritten", _overwrite),
    wrapped("a warm start spoils the objective", _trusting),
    wrapped("costs are sorted in place", lambda s, i, limit, seed, w: first(solve(s, i, limit), i.cost.sort())),
    wrapped("draws from numpy", lambda s, i, limit, seed, w: first(solve(s, i, limit), np.random.rand())),
]
