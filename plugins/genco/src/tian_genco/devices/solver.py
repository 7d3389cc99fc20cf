"""Exact solver of brush designs, fast on batches."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tian.errors import InvalidInput
from tian.spec import Instance, Solution, SolutionBatch, Solver
from tian.spec.solver import Status
from tian_genco.devices.brush import BrushRules, offsets
from tian_genco.devices.options import BrushOptions
from tian_genco.devices.profile import Profile, best_designs, compile_profile
from tian_genco.problem import Floats

if TYPE_CHECKING:
    from numpy.typing import NDArray

_OPTIMAL: Status = "optimal"


class BrushSolver(Solver):
    """Kind `brush`: the cheapest union of stamps, by a dynamic program over the columns of the grid.

    Route `profile`: exact, no time limit needed; its time is the same for all costs, grows with the width in proportion
    and with the height exponentially (about 2.4-fold a row for the brush `plus`). Route `mip`: HiGHS, for grids too
    tall for that. Of equal optima always the same one is returned, whatever the seed.

    Source: ours; profile dynamic programs are standard.

    Example:
        >>> inst = BrushRules(3, 3).instance(-np.ones(9))
        >>> BrushSolver().solve(inst, time_limit_s=1.0).x.reshape(3, 3).astype(int).tolist()
        [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    """

    kinds: ClassVar[frozenset[str]] = frozenset({BrushRules.kind})

    def __init__(self, options: BrushOptions | None = None) -> None:
        self.options = options or BrushOptions()
        self._highs: Solver | None = None

    def solve(self, inst: Instance, *, time_limit_s: float, seed: int = 0, warm_start: Any = None) -> Solution:
        """The cheapest design. The time limit bounds the route `mip` alone, a start is not needed.

        Raises:
            InvalidInput: another kind, or a cost of the wrong length or not finite.
        """
        return self.solve_costs(inst, np.asarray(inst.cost)[None], time_limit_s=time_limit_s, seed=seed).solution(0)

    def solve_costs(
        self, inst: Instance, costs: NDArray[np.float64], *, time_limit_s: float, seed: int = 0
    ) -> SolutionBatch:
        """The cheapest design under each row of `costs [B, H*W]`, in one compiled call.

        Raises:
            InvalidInput: another kind, or a cost of the wrong length or not finite; row and cell are named.
        """
        start = time.perf_counter()
        rules = _rules_of(inst)
        costs = _checked(costs, rules)
        profile = _profile(rules.height, rules.brush, self.options.max_states)
        if profile is None:
            if self._highs is None:
                from tian_genco.solving.highs import HighsSolver

                self._highs = HighsSolver()  # kept, for it keeps what it compiled
            return self._highs.solve_costs(inst, costs, time_limit_s=time_limit_s, seed=seed)
        B = len(costs)
        x = _designs(costs, rules, profile).reshape(B, rules.n).astype(np.float64)
        objective = (costs * x).sum(axis=1)
        return SolutionBatch(
            x=x,
            objective=objective,
            bound=objective.copy(),
            status=(_OPTIMAL,) * B,
            found=np.ones(B, bool),
            seconds=np.full(B, (time.perf_counter() - start) / max(1, B)),
            route=("profile",) * B,
        )


def _designs(costs: Floats, rules: BrushRules, profile: Profile) -> NDArray[np.uint8]:
    """`[B, H, W]`. A contact is a cell so rewarding that no design without it can be cheapest."""
    priced = costs.reshape(-1, rules.height, rules.width).copy()
    reward = 1.0 + 2.0 * np.abs(costs).sum(axis=1)
    for row, column in set(rules.contacts):
        priced[:, row, column] = -reward
    found: NDArray[np.uint8] = best_designs(priced, profile.skip, profile.stamp, profile.fresh, profile.painted)
    return found


@lru_cache(maxsize=16)
def _profile(height: int, brush: str, max_states: int) -> Profile | None:
    return compile_profile(height, np.array(offsets(brush), np.int64), max_states=max_states)


def _rules_of(inst: Instance) -> BrushRules:
    if inst.kind != BrushRules.kind or not isinstance(inst.payload, BrushRules):
        raise InvalidInput(
            f"kind {inst.kind!r} with a payload of type {type(inst.payload).__name__} is no design of a brush",
            hint="give BrushRules(...).instance(cost); rules beyond them are solved by genco/highs",
        )
    return inst.payload


def _checked(costs: NDArray[Any], rules: BrushRules) -> Floats:
    """The costs, float64 and contiguous."""
    costs = np.ascontiguousarray(costs, dtype=np.float64)
    if costs.ndim != 2 or costs.shape[1] != rules.n:
        raise InvalidInput(f"costs of {rules.height} x {rules.width} cells are [B, {rules.n}], got {list(costs.shape)}")
    bad = np.argwhere(~np.isfinite(costs))
    if len(bad):
        b, i = (int(v) for v in bad[0])
        raise InvalidInput(
            f"cost {b} of the batch is {costs[b, i]} at row {i // rules.width}, column {i % rules.width}",
            hint="look where NaN or infinity comes from",
        )
    with np.errstate(over="ignore"):
        if not np.isfinite(np.abs(costs).sum(axis=1) * 4).all():
            raise InvalidInput(
                "the costs of a design add up to infinity", hint="divide the costs: designs stay the same"
            )
    return costs
