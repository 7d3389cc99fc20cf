"""The solver: 0/1 knapsacks by branch and bound."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tian.errors import InvalidInput
from tian.spec import Instance, Solution, Solver

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from @@package@@.options import @@Class@@Options


class @@Class@@(Solver):
    """Kind `knapsack`: choose items so that their weights stay within the capacity and cost . x is least.

    The payload is `{"weights": [n], "capacity": number}`, weights >= 0; what is worth having has a negative cost.
    Depth first, the items with most value a weight first; a branch is cut when even a fraction of its first item
    that does not fit would not make it better than the best found.
    Source: the bound is Dantzig's (1957).
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"knapsack"})

    def __init__(self, options: @@Class@@Options) -> None:
        self.options = options

    def solve(self, inst: Instance, *, time_limit_s: float, seed: int = 0, warm_start: Any = None) -> Solution:
        """The best choice found within the limits; a negative capacity is infeasible.

        Raises:
            InvalidInput: another kind, or numbers that are not finite or of the wrong shape.
        """
        start = time.monotonic()
        weights, capacity = _read(inst)
        if capacity < 0:
            return Solution(None, math.nan, math.inf, "infeasible", time.monotonic() - start)
        with np.errstate(divide="ignore"):
            ratio = np.where(inst.cost < 0, np.divide(-inst.cost, weights), -1.0)
        order = [int(i) for i in np.argsort(-ratio, kind="stable") if inst.cost[i] < 0]  # the others never help
        search = _Search([-float(inst.cost[i]) for i in order], [float(weights[i]) for i in order], capacity)
        search.greedy()
        if warm_start is not None:
            search.offer([bool(warm_start[i] > 0.5) for i in order])
        status = search.run(self.options.max_nodes, until=start + time_limit_s)
        x = np.zeros(len(inst.cost))
        x[[i for i, taken in zip(order, search.best, strict=True) if taken]] = 1.0
        objective = float(inst.cost @ x)
        bound = objective if status == "optimal" else min(objective, -search.root)
        return Solution(x, objective, bound, status, time.monotonic() - start)


def _read(inst: Instance) -> tuple[NDArray[np.float64], float]:
    """Weights and capacity of an instance that is sound."""
    if inst.kind != "knapsack":
        raise InvalidInput(f"kind {inst.kind!r} is not solved here", hint="give an instance of kind 'knapsack'")
    weights, capacity = np.asarray(inst.payload["weights"], dtype=np.float64), float(inst.payload["capacity"])
    if weights.shape != inst.cost.shape or inst.cost.ndim != 1:
        raise InvalidInput(f"cost has shape {inst.cost.shape}, weights {weights.shape}", hint="give both as [n]")
    if not (np.isfinite(inst.cost).all() and np.isfinite(weights).all() and math.isfinite(capacity)):
        raise InvalidInput("cost, weights and capacity must be finite", hint="look where NaN or infinity comes from")
    if (weights < 0).any():
        raise InvalidInput(f"weights must be >= 0, the least is {weights.min():g}", hint="drop such items: take them")
    return weights, capacity


class _Search:
    """Branch and bound over items sorted by value a weight, best first."""

    def __init__(self, values: list[float], weights: list[float], capacity: float) -> None:
        self.values, self.weights, self.capacity = values, weights, capacity
        self.best: list[bool] = [False] * len(values)
        self.worth = 0.0
        self.root = self.bound(0, capacity, 0.0)

    def bound(self, i: int, room: float, worth: float) -> float:
        """Most that can be reached with the items from i on, when the last may be taken in part."""
        for value, weight in zip(self.values[i:], self.weights[i:], strict=True):
            if weight > room:
                return worth + value * room / weight
            room, worth = room - weight, worth + value
        return worth

    def greedy(self) -> None:
        """Take whatever fits, in order."""
        room, taken = self.capacity, []
        for weight in self.weights:
            taken.append(weight <= room)
            room -= weight if taken[-1] else 0.0
        self.offer(taken)

    def offer(self, taken: list[bool]) -> None:
        """Keep a choice when it fits and is better than the best."""
        weight = sum(w for w, t in zip(self.weights, taken, strict=True) if t)
        worth = sum(v for v, t in zip(self.values, taken, strict=True) if t)
        if weight <= self.capacity and worth > self.worth:
            self.best, self.worth = list(taken), worth

    def run(self, max_nodes: int, *, until: float) -> Any:
        """Search until nothing better is possible (`optimal`), the nodes (`feasible`) or the time (`timeout`) end."""
        stack: list[tuple[int, float, float, tuple[int, ...]]] = [(0, self.capacity, 0.0, ())]
        nodes = 0
        while stack:
            i, room, worth, taken = stack.pop()
            if self.bound(i, room, worth) <= self.worth * (1 + 1e-12):
                continue
            if nodes >= max_nodes:
                return "feasible"
            if nodes % 64 == 0 and time.monotonic() >= until:
                return "timeout"
            nodes += 1
            if i == len(self.values):
                self.offer([j in taken for j in range(i)])
                continue
            stack.append((i + 1, room, worth, taken))
            if self.weights[i] <= room:  # on top of the stack, so that it is tried first
                stack.append((i + 1, room - self.weights[i], worth + self.values[i], (*taken, i)))
        return "optimal"
