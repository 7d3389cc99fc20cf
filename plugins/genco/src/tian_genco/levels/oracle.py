"""Exact solver of levels under tile costs, without a program of rows wherever the enemy limit is slack."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from tian.errors import InvalidInput
from tian.spec import Instance, Solution, SolutionBatch, Solver
from tian.spec.solver import Status
from tian_genco.levels.options import OracleOptions
from tian_genco.levels.rules import LevelRules
from tian_genco.levels.steiner import NOT_FINITE, OPTIMAL, OUT_OF_BUDGET, TOO_MANY_ENEMIES, solve_rows
from tian_genco.levels.tiles import EMPTY, ENEMIES, NAMES, TILES

Floats = NDArray[np.float64]
_FIRST_PRICE = 1 / 64  # of an enemy beyond the limit, in units of the mean range of a cell's costs
_ROUNDS = 64
_HALVINGS = 8
_GAP = 1e-9  # relative; a bound this close proves an answer optimal


class LevelOracle(Solver):
    """Kind `level`: the cheapest playable level, see `steiner`; hundreds of times faster than branch and bound.

    The way each answer was found is its route: `oracle` (exact); `multiplier` (the enemy limit by a price on enemies
    and a reward for empty cells, raised until it is met: `feasible`, with the Lagrangian lower bound); `mip` (HiGHS:
    a limit to be met exactly, or more than `max_triples` placements). Answers do not depend on the seed: of equal
    optima the order of tiles and cells decides, and a caller who wants another one adds a small field to the cost.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({LevelRules.kind})

    def __init__(self, options: OracleOptions | None = None) -> None:
        self.options = options or OracleOptions()
        self._highs: Solver | None = None

    def solve(self, inst: Instance, *, time_limit_s: float, seed: int = 0, warm_start: Any = None) -> Solution:
        """The cheapest level. The time limit bounds the route `mip` alone, a start is not needed.

        Raises:
            InvalidInput: another kind, or a cost of the wrong length or not finite.
        """
        return self.solve_costs(inst, inst.cost[None], time_limit_s=time_limit_s, seed=seed).solution(0)

    def solve_costs(self, inst: Instance, costs: Floats, *, time_limit_s: float, seed: int = 0) -> SolutionBatch:
        """The cheapest level under each row of `costs [B, 8*H*W]`, in one compiled call.

        Raises:
            InvalidInput: another kind, or a cost of the wrong length or not finite.
        """
        start = time.perf_counter()
        rules = _rules_of(inst)
        costs = _checked(costs, rules)
        x, objective, verdict, other = self._rows(costs, rules)
        # A single call finds the caches cold: each function of numpy in what follows costs it 10 us, a list next to none.
        count = len(costs)
        optimal: Status = "optimal"
        batch = SolutionBatch(
            x=x,
            objective=objective,
            bound=objective.copy(),
            status=(optimal,) * count,
            found=np.array([True] * count, np.bool_),
            seconds=np.array([(time.perf_counter() - start) / max(1, count)] * count, np.float64),
            route=("oracle",) * count,
        )
        return self._harder(batch, verdict, inst, costs, time_limit_s, seed) if other else batch

    def _rows(self, costs: Floats, rules: LevelRules) -> tuple[Floats, Floats, NDArray[np.uint8], int]:
        found: tuple[Floats, Floats, NDArray[np.uint8], int] = solve_rows(
            costs, rules.height, rules.width, float(rules.enemy_share), self.options.max_triples
        )
        return found

    def _harder(
        self,
        batch: SolutionBatch,
        verdict: NDArray[np.uint8],
        inst: Instance,
        costs: Floats,
        time_limit_s: float,
        seed: int,
    ) -> SolutionBatch:
        """The batch with answers by prices or by HiGHS where its own are none, `verdict [B]`."""
        _refuse_infinite(costs, verdict, inst.payload)
        start = time.perf_counter()
        status, route = np.array(batch.status, object), np.array(batch.route, object)
        if self.options.limit == "multiplier":
            limited = np.flatnonzero(verdict == TOO_MANY_ENEMIES)
            verdict[limited] = self._price_enemies(costs, inst.payload, limited, batch.x, batch.objective, batch.bound)
            priced = limited[verdict[limited] == OPTIMAL]
            value = batch.objective[priced]
            closed = value - batch.bound[priced] <= _GAP * np.maximum(1.0, np.abs(value))
            status[priced], route[priced] = np.where(closed, "optimal", "feasible"), "multiplier"
            batch.seconds[limited] += (time.perf_counter() - start) / max(1, len(limited))
        left = np.flatnonzero(verdict != OPTIMAL)
        if len(left):
            mip = self._by_rows(inst, costs[left], time_limit_s, seed)
            for old, new in (
                (batch.x, mip.x),
                (batch.objective, mip.objective),
                (batch.bound, mip.bound),
                (batch.found, mip.found),
            ):
                old[left] = new
            batch.seconds[left] += mip.seconds
            status[left], route[left] = np.array(mip.status, object), "mip"
        return replace(batch, status=cast("tuple[Status, ...]", tuple(status)), route=tuple(route))

    def _price_enemies(
        self,
        costs: Floats,
        rules: LevelRules,
        rows: NDArray[np.int64],
        x: Floats,
        objective: Floats,
        bound: Floats,
    ) -> NDArray[np.uint8]:
        """Overwrite x, objective and bound of `rows` by solutions that meet the enemy limit; their verdicts.

        With mu >= 0 on the limit, min (c + mu a) . x is a lower bound, since a . x <= 0 for every level allowed. mu is
        doubled until the limit is met and then found more closely by bisection; the best level met on the way is kept.
        """
        limit = np.zeros((len(TILES), rules.cells))
        limit[list(ENEMIES)] = 1.0
        limit[EMPTY] = -rules.enemy_share
        limit[:, np.setdiff1d(np.arange(rules.cells), rules.interior())] = 0.0
        inside = costs[rows].reshape(len(rows), len(TILES), rules.cells)[:, :, rules.interior()]
        mu = np.array([_FIRST_PRICE * np.ptp(row, axis=0).mean() for row in inside])
        low, high = np.zeros(len(rows)), np.full(len(rows), np.inf)
        halvings = np.full(len(rows), _HALVINGS)
        verdict = np.full(len(rows), TOO_MANY_ENEMIES, np.uint8)
        for _ in range(_ROUNDS):
            todo = np.flatnonzero(halvings > 0)
            if not len(todo):
                break
            found, value, seen, _ = self._rows(costs[rows[todo]] + mu[todo, None] * limit.reshape(-1), rules)
            for j, k in enumerate(todo):
                i = rows[k]
                if seen[j] == OUT_OF_BUDGET:
                    halvings[k] = 0
                    continue
                bound[i] = max(bound[i], value[j])
                if seen[j] == TOO_MANY_ENEMIES:
                    low[k] = mu[k]
                else:
                    high[k] = mu[k]
                    cost = float(costs[i][found[j] > 0.0].sum())  # a product's last bits may depend on where rows lie
                    if verdict[k] != OPTIMAL or cost < objective[i]:
                        verdict[k], x[i], objective[i] = OPTIMAL, found[j], cost
                halvings[k] -= np.isfinite(high[k])
                mu[k] = (low[k] + high[k]) / 2 if np.isfinite(high[k]) else 2 * mu[k]
        bound[rows] = np.minimum(bound[rows], objective[rows])
        return verdict

    def _by_rows(self, inst: Instance, costs: Floats, time_limit_s: float, seed: int) -> SolutionBatch:
        """Answers of HiGHS."""
        if self._highs is None:
            from tian_genco.solving.highs import HighsSolver

            self._highs = HighsSolver()  # kept, for it keeps what it compiled
        return self._highs.solve_costs(inst, costs, time_limit_s=time_limit_s, seed=seed)


def _rules_of(inst: Instance) -> LevelRules:
    if inst.kind != LevelRules.kind or not isinstance(inst.payload, LevelRules):
        raise InvalidInput(
            f"kind {inst.kind!r} with a payload of type {type(inst.payload).__name__} is no plain level",
            hint="give LevelRules(...).instance(cost); rules beyond them are solved by genco/highs",
        )
    return inst.payload


def _checked(costs: Floats, rules: LevelRules) -> Floats:
    """The costs, float64 and contiguous."""
    costs = np.ascontiguousarray(costs, dtype=np.float64)
    if costs.ndim != 2 or costs.shape[1] != rules.n:
        raise InvalidInput(
            f"costs have shape {costs.shape}, a level of {rules.height} x {rules.width} cells needs [B, {rules.n}]"
        )
    return costs


def _refuse_infinite(costs: Floats, verdict: NDArray[np.uint8], rules: LevelRules) -> None:
    """Raise InvalidInput for the first cost that is not finite."""
    if NOT_FINITE in verdict:
        b, i = (int(v[0]) for v in np.nonzero(~np.isfinite(costs)))
        tile, cell = divmod(i, rules.cells)
        where = f"{NAMES[tile]} at row {cell // rules.width}, column {cell % rules.width}"
        raise InvalidInput(
            f"cost {b} of the batch is {costs[b, i]} for {where}", hint="look where NaN or infinity comes from"
        )
