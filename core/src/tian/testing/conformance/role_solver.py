"""Checks of role solver, on instances the author gives."""

from __future__ import annotations

import dataclasses
import inspect
import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from hypothesis import strategies as st

from tian.errors import InvalidInput
from tian.spec import Instance
from tian.spec.contract import SOLUTION_STATUS
from tian.testing.conformance.base import Option, fail, prop, require, skip
from tian.testing.conformance.common import CommonChecks
from tian.testing.conformance.watch import frozen, global_randomness_untouched, same, unchanged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tian.spec import Solution, Solver

SEEDS = st.integers(0, 2**16)
LIMIT = 30.0  # seconds; ample for the small instances of a test
GAP = 1e-4  # relative; what solvers of mixed-integer programs call optimal by default
FOUND = ("optimal", "feasible")


class SolverChecks(CommonChecks):
    """Contract of `tian.spec.Solver`."""

    role: ClassVar[str] = "solver"
    instances: ClassVar[Any]
    feasible: ClassVar[Any]
    brute: ClassVar[Any] = None
    hard: ClassVar[Any] = None

    def test_so01_kinds_are_declared(self, option: Option) -> None:
        """`kinds` is a non-empty frozenset of names, those of the instances among them."""
        solver = self.make(option)
        kinds = solver.kinds
        require(isinstance(kinds, frozenset) and kinds and all(isinstance(k, str) for k in kinds), f"kinds: {kinds!r}")
        for inst in self.instances(0):
            require(inst.kind in kinds, f"an instance has kind {inst.kind!r}, kinds is {sorted(kinds)}")

    def test_so02_another_kind_is_refused(self, option: Option) -> None:
        """An instance of another kind raises InvalidInput."""
        other = dataclasses.replace(self.instances(0)[0], kind="no-such-kind")
        self.refused(option, other, "an instance of kind 'no-such-kind'")

    def test_so03_a_cost_that_is_not_finite_is_refused(self, option: Option) -> None:
        """A NaN or infinite cost raises InvalidInput."""
        inst = self.instances(0)[0]
        for value in (math.nan, math.inf):
            cost = inst.cost.copy()
            cost[-1] = value
            self.refused(option, dataclasses.replace(inst, cost=cost), f"a cost of {value}")

    # -- answers -------------------------------------------------------------------------------------------------------

    @prop(seed=SEEDS)
    def test_so04_the_status_is_known_and_x_is_there_when_found(self, option: Option, seed: int) -> None:
        """`status` is one of six; `x` is there for optimal and feasible, may be for timeout, and else is None."""
        for _, s in self.solved(option, seed):
            require(s.status in SOLUTION_STATUS, f"status {s.status!r}")
            if s.status != "timeout":
                require((s.x is not None) == (s.status in FOUND), f"status {s.status!r}, x {_of(s.x)}")

    @prop(seed=SEEDS)
    def test_so05_x_has_the_shape_and_type_of_the_cost(self, option: Option, seed: int) -> None:
        """`x` is `[n]` float64 and finite."""
        for inst, s in self.with_x(option, seed):
            good = isinstance(s.x, np.ndarray) and s.x.dtype == np.float64 and s.x.shape == inst.cost.shape
            require(good, f"x is {_of(s.x)} for a cost {_of(inst.cost)}")
            require(np.isfinite(s.x).all(), "x holds NaN or infinity")

    @prop(seed=SEEDS)
    def test_so06_the_objective_is_cost_times_x(self, option: Option, seed: int) -> None:
        """`objective` is cost . x within 1e-6, and NaN without x."""
        for inst, s in self.solved(option, seed):
            if s.x is None:
                require(math.isnan(s.objective), f"objective {s.objective} without x")
                continue
            value = float(inst.cost @ s.x)
            require(abs(s.objective - value) <= 1e-6 * max(1.0, abs(value)), f"objective {s.objective}, cost.x {value}")

    @prop(seed=SEEDS)
    def test_so07_the_bound_is_below_the_objective(self, option: Option, seed: int) -> None:
        """`bound` is no NaN, not above the objective, and for an optimal answer equal to it (1e-4)."""
        for _, s in self.solved(option, seed):
            require(not math.isnan(s.bound), "the bound is NaN; -inf says that none is proven")
            if s.x is None:
                continue
            slack = 1e-6 * max(1.0, abs(s.objective))
            require(s.bound <= s.objective + slack, f"bound {s.bound} above the objective {s.objective}")
            if s.status == "optimal":
                require(
                    s.bound >= s.objective - GAP * max(1.0, abs(s.objective)),
                    f"optimal with bound {s.bound}, objective {s.objective}",
                )

    @prop(seed=SEEDS)
    def test_so08_x_is_feasible(self, option: Option, seed: int) -> None:
        """`x` meets the constraints of its instance."""
        for inst, s in self.with_x(option, seed):
            require(self.feasible(inst, s.x), f"x = {s.x.tolist()[:12]} breaks the constraints of {inst.kind}")

    @prop(seed=SEEDS)
    def test_so09_optimal_is_the_minimum(self, option: Option, seed: int) -> None:
        """An answer called optimal is the minimum (1e-4), and no bound lies above the minimum."""
        for _, s, best in self.with_minimum(option, seed):
            if best is None:
                continue
            scale = max(1.0, abs(best))
            if s.status == "optimal":
                require(s.objective <= best + GAP * scale, f"'optimal' with {s.objective}, the minimum is {best}")
            require(s.bound <= best + 1e-6 * scale, f"bound {s.bound} above the minimum {best}")

    @prop(seed=SEEDS)
    def test_so10_infeasible_is_an_answer(self, option: Option, seed: int) -> None:
        """An instance without a solution is answered `infeasible` (or `timeout`), and only such a one is."""
        for inst, s, best in self.with_minimum(option, seed):
            if best is None:
                require(s.status in ("infeasible", "timeout"), f"status {s.status!r} for an instance without solution")
            else:
                require(s.status not in ("infeasible", "error"), f"{s.status!r}, but {inst.kind} has minimum {best}")

    # -- time ----------------------------------------------------------------------------------------------------------

    def test_so11_the_time_limit_must_be_given(self, option: Option) -> None:
        """`time_limit_s` is a keyword without a default, in `solve` and in `solve_batch`."""
        solver = self.make(option)
        for name in ("solve", "solve_batch"):
            p = inspect.signature(getattr(solver, name)).parameters.get("time_limit_s")
            require(p is not None and p.default is p.empty, f"{name} can be called without time_limit_s")

    def test_so12_a_time_out_is_an_answer(self, option: Option) -> None:
        """With a limit far too short the answer is `timeout` or `feasible`, never an exception or a claim of more."""
        if self.hard is None:
            skip("no hard= instance was given to the kit")
        s = self.make(option).solve(self.hard, time_limit_s=1e-7)
        require(s.status in ("timeout", "feasible"), f"status {s.status!r} within a tenth of a microsecond")

    @prop(seed=SEEDS)
    def test_so13_the_time_taken_is_told(self, option: Option, seed: int) -> None:
        """`seconds` is finite and not negative."""
        for _, s in self.solved(option, seed):
            require(math.isfinite(s.seconds) and s.seconds >= 0, f"seconds = {s.seconds}")

    # -- batches, state, manners ---------------------------------------------------------------------------------------

    @prop(seed=SEEDS)
    def test_so14_a_batch_is_solved_like_a_loop(self, option: Option, seed: int) -> None:
        """`solve_batch` gives, in order, what `solve` gives one by one; an empty batch gives an empty list."""
        solver, insts = self.make(option), self.instances(seed)
        batch = solver.solve_batch(insts, time_limit_s=LIMIT, seed=seed)
        loop = [solver.solve(i, time_limit_s=LIMIT, seed=seed) for i in insts]
        require(len(batch) == len(insts), f"{len(batch)} answers to {len(insts)} instances")
        require([answer(s) for s in batch] == [answer(s) for s in loop], "a batch is solved unlike a loop")
        require(solver.solve_batch([], time_limit_s=LIMIT, seed=seed) == [], "an empty batch is no empty list")

    @prop(seed=SEEDS)
    def test_so15_the_same_seed_gives_the_same_answer(self, option: Option, seed: int) -> None:
        """The same instance and seed give the same status and x, on another instance of the solver too."""
        for inst, s in self.solved(option, seed):
            again = self.make(option).solve(inst, time_limit_s=LIMIT, seed=seed)
            require(answer(again) == answer(s) and same(again.x, s.x), "the same question got two answers")

    @prop(seed=SEEDS)
    def test_so16_earlier_instances_make_no_difference(self, option: Option, seed: int) -> None:
        """A solver that was used before, or beside another one, answers like a fresh one."""
        used, insts = self.make(option), self.instances(seed)
        for inst in [*self.instances(seed + 1), *insts]:
            used.solve(inst, time_limit_s=LIMIT, seed=seed)
        self.make(option).solve(insts[-1], time_limit_s=LIMIT, seed=seed)
        for inst, s in self.solved(option, seed):
            again = used.solve(inst, time_limit_s=LIMIT, seed=seed)
            require(answer(again) == answer(s) and same(again.x, s.x), "a used solver answers unlike a fresh one")

    @prop(seed=SEEDS)
    def test_so17_answers_do_not_share_memory(self, option: Option, seed: int) -> None:
        """An `x` belongs to its answer: neither later calls nor writing to another answer changes it."""
        solver = self.make(option)
        insts = self.instances(seed)
        answers = [solver.solve(i, time_limit_s=LIMIT, seed=seed) for i in insts]
        before = [frozen(s.x) for s in answers]
        again = [solver.solve(i, time_limit_s=LIMIT, seed=seed) for i in insts]
        for s in again:
            if s.x is not None:
                s.x[:] = -7.0
        require(same([s.x for s in answers], before), "a later call, or writing to its answer, changed an earlier x")

    @prop(seed=SEEDS)
    def test_so18_a_warm_start_does_not_change_the_optimum(self, option: Option, seed: int) -> None:
        """Started from a solution, an optimal answer has the same objective (1e-4), and the start is not modified."""
        solver = self.make(option)
        for inst, s in self.with_x(option, seed):
            start = s.x.copy()
            with unchanged("solve", warm_start=start):
                warm = solver.solve(inst, time_limit_s=LIMIT, seed=seed, warm_start=start)
            if s.status == warm.status == "optimal":
                gap = abs(warm.objective - s.objective)
                require(
                    gap <= 1e-6 * max(1.0, abs(s.objective)), f"{warm.objective} from a start, {s.objective} without"
                )
            require(warm.x is not None, f"status {warm.status!r} from a feasible start")

    @prop(seed=SEEDS)
    def test_so19_the_instance_is_not_modified(self, option: Option, seed: int) -> None:
        """Cost and payload of the instance stay as they were."""
        solver = self.make(option)
        for inst in self.instances(seed):
            with unchanged("solve", cost=inst.cost, payload=inst.payload):
                solver.solve(inst, time_limit_s=LIMIT, seed=seed)

    @prop(seed=SEEDS)
    def test_so20_no_global_randomness_is_consumed(self, option: Option, seed: int) -> None:
        """`solve` leaves the global random states alone."""
        solver, insts = self.make(option), self.instances(seed)
        with global_randomness_untouched("the solver"):
            for inst in insts:
                solver.solve(inst, time_limit_s=LIMIT, seed=seed)

    @prop(seed=SEEDS)
    def test_so21_many_costs_are_solved_like_a_loop(self, option: Option, seed: int) -> None:
        """`solve_costs` gives, in order, what `solve` gives for each cost; no costs give an empty batch."""
        solver, insts = self.make(option), self.instances(seed)
        for inst in insts:
            costs = np.stack([inst.cost, inst.cost[::-1], inst.cost**2])
            with unchanged("solve_costs", costs=costs, payload=inst.payload):
                batch = solver.solve_costs(inst, costs, time_limit_s=LIMIT, seed=seed)
            loop = [
                solver.solve(dataclasses.replace(inst, cost=c.copy()), time_limit_s=LIMIT, seed=seed) for c in costs
            ]
            require(len(batch) == len(costs), f"{len(batch)} answers to {len(costs)} costs")
            rows = [batch.solution(i) for i in range(len(batch))]
            require([answer(s) for s in rows] == [answer(s) for s in loop], "many costs are solved unlike one by one")
            require(all(same(a.x, b.x) for a, b in zip(rows, loop, strict=True)), "another x than one by one")
        empty = solver.solve_costs(insts[0], np.zeros((0, len(insts[0].cost))), time_limit_s=LIMIT, seed=seed)
        require(len(empty) == 0, "no costs are no empty batch")

    # -- help ----------------------------------------------------------------------------------------------------------

    def solved(self, option: Option, seed: int) -> list[tuple[Instance, Solution]]:
        """Each instance with the answer of a fresh solver."""
        solver: Solver = self.make(option)
        return [(i, solver.solve(i, time_limit_s=LIMIT, seed=seed)) for i in self.instances(seed)]

    def with_x(self, option: Option, seed: int) -> Iterator[tuple[Instance, Any]]:
        """Those with an x."""
        return ((i, s) for i, s in self.solved(option, seed) if s.x is not None)

    def with_minimum(self, option: Option, seed: int) -> Iterator[tuple[Instance, Solution, float | None]]:
        """Each instance with its answer and exact minimum, None for one without solution."""
        if self.brute is None:
            skip("no brute= was given to the kit")
        return ((i, s, self.brute(i)) for i, s in self.solved(option, seed))

    def refused(self, option: Option, inst: Instance, what: str) -> None:
        """Raise Violation unless the solver refuses the instance."""
        try:
            self.make(option).solve(inst, time_limit_s=LIMIT)
        except InvalidInput:
            return
        fail(f"{what} was accepted; InvalidInput is due")


def answer(s: Solution) -> tuple[Any, ...]:
    """What must be reproducible of a solution: all but the seconds."""
    return (s.status, None if math.isnan(s.objective) else round(s.objective, 9), s.bound)


def _of(x: Any) -> str:
    return f"{list(x.shape)} {x.dtype}" if isinstance(x, np.ndarray) else type(x).__name__
