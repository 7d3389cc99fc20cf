"""The solver `highs`: exact answers to every problem of this plugin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tian.errors import InvalidInput
from tian.spec import Instance, Solution, SolutionBatch, Solver
from tian_genco.problem import Floats, Problem
from tian_genco.solving.engine import Engine
from tian_genco.solving.kept import Answer, Kept
from tian_genco.solving.options import HighsOptions
from tian_genco.solving.pool import Pool, Task

if TYPE_CHECKING:
    from numpy.typing import NDArray


class HighsSolver(Solver):
    """Solves any `Problem` with HiGHS, to the gap 1e-6 unless told otherwise.

    A problem is compiled once and kept. Equal costs in a batch are solved once. The same question gets the same
    answer, bit by bit, whatever was asked before and however many workers there are (time limits aside); hence the
    cascade is on or off, it does not learn from its success, which `SolutionBatch.route` shows. A time limit does not
    count the compilation.

    Args:
        options: see `HighsOptions`.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"milp", "level", "level-ruled", "room", "grid-path", "brush", "pyomo"})

    def __init__(self, options: HighsOptions | None = None) -> None:
        self.options = options or HighsOptions()
        self._kept = Kept(self.options)
        self._pool = Pool(self.options)

    def solve(self, inst: Instance, *, time_limit_s: float, seed: int = 0, warm_start: Any = None) -> Solution:
        """Solve one.

        Args:
            inst: its payload is a `Problem`, its cost `[n]` of any float type.
            time_limit_s: seconds.
            seed: of HiGHS's heuristics; among several optima it may choose another.
            warm_start: `[n]` to begin from; one that breaks the rules is ignored.

        Raises:
            InvalidInput: kind, payload, cost or warm start do not fit, or are not finite.
        """
        problem = self._problem(inst)
        cost = checked(inst.cost, problem.n, "the cost")
        start = None if warm_start is None else checked(warm_start, problem.n, "the warm start")
        _check_limit(time_limit_s)
        return self._kept.answer(problem, cost, time_limit_s=time_limit_s, seed=seed, start=start).solution

    def solve_batch(self, insts: Sequence[Instance], *, time_limit_s: float, seed: int = 0) -> list[Solution]:
        """As `solve` for each, by the workers if there are several."""
        problems = [self._problem(inst) for inst in insts]
        tasks = [
            (p, checked(inst.cost, p.n, f"cost {i}")) for i, (inst, p) in enumerate(zip(insts, problems, strict=True))
        ]
        return [a.solution for a in self._answers(tasks, time_limit_s=time_limit_s, seed=seed)]

    def solve_costs(
        self, inst: Instance, costs: NDArray[np.float64], *, time_limit_s: float, seed: int = 0
    ) -> SolutionBatch:
        """As `solve` for each row of `costs [B, n]`; `route` is `lp` or `mip`."""
        problem = self._problem(inst)
        tasks = [(problem, checked(c, problem.n, f"cost {i}")) for i, c in enumerate(costs)]
        answers = self._answers(tasks, time_limit_s=time_limit_s, seed=seed)
        return SolutionBatch.of([a.solution for a in answers], problem.n, [a.route for a in answers])

    def save_mps(self, inst: Instance, path: Path) -> None:
        """Write the instance as an MPS file, for another solver or a report of an error."""
        problem = self._problem(inst)
        Engine(problem.milp()).write(checked(inst.cost, problem.n, "the cost"), path)

    def close(self) -> None:
        """End the workers, if any were started."""
        self._pool.close()

    def __enter__(self) -> HighsSolver:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _problem(self, inst: Instance) -> Problem:
        problem = inst.payload
        if not isinstance(problem, Problem):
            raise InvalidInput(
                f"the payload of an instance of kind {inst.kind!r} is a {type(problem).__name__}, not a Problem",
                hint="make instances with Problem.instance(cost)",
            )
        if inst.kind not in self.kinds or inst.kind != problem.kind:
            raise InvalidInput(
                f"kind {inst.kind!r} of an instance does not fit its payload of kind {problem.kind!r}",
                hint=f"solved here: {', '.join(sorted(self.kinds))}; make instances with Problem.instance(cost)",
            )
        return problem

    def _answers(self, tasks: Sequence[Task], *, time_limit_s: float, seed: int) -> list[Answer]:
        _check_limit(time_limit_s)
        keys = [(problem, cost.tobytes()) for problem, cost in tasks]
        distinct = dict(zip(keys, tasks, strict=True))
        places = {key: i for i, key in enumerate(distinct)}
        unique = list(distinct.values())
        if self.options.workers > 1 and len(unique) > 1:
            found = self._pool.run(unique, time_limit_s=time_limit_s, seed=seed)
        else:
            found = [self._kept.answer(p, c, time_limit_s=time_limit_s, seed=seed) for p, c in unique]
        return [_own(found[places[key]]) for key in keys]


def checked(values: Any, n: int, name: str) -> Floats:
    """`values` as float64 `[n]`. Raises InvalidInput for another shape or an entry that is not finite."""
    array = np.asarray(values, np.float64) + 0.0  # a copy without negative zeros: equal costs have equal bytes
    if array.shape != (n,):
        raise InvalidInput(f"{name} has shape {list(array.shape)}, the problem needs [{n}]")
    if not np.isfinite(array).all():
        entry = int(np.flatnonzero(~np.isfinite(array))[0])
        raise InvalidInput(
            f"{name}: entry {entry} is {array[entry]}, not a finite number",
            hint="look for a division by zero or a learning rate that is too large upstream",
        )
    return array


def _check_limit(time_limit_s: float) -> None:
    if math.isnan(time_limit_s):
        raise InvalidInput("time_limit_s is NaN", hint="give a number of seconds")


def _own(answer: Answer) -> Answer:
    """The answer with an x that it shares with no other."""
    s = answer.solution
    return answer if s.x is None else answer._replace(solution=replace(s, x=s.x.copy()))
