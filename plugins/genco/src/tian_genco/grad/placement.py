"""A problem small enough for exact answers: k objects in the cells of a square, every placement listed."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from tian.errors import InvalidInput
from tian.spec import Instance, Solution, SolutionBatch, Solver
from tian_genco.problem import Floats, Milp, Problem, Row

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tian.spec.solver import Status

NODES = 400  # of the Gauss-Legendre rule; doubling them changes no probability by more than 1e-12
REACH = 9.0  # standard deviations beyond which a normal density counts as 0


@dataclass(frozen=True)
class Placement(Problem):
    """x `[side^2]` in {0, 1}, row-major, with exactly `placed` ones."""

    kind: ClassVar[str] = "placement"
    side: int
    placed: int

    @property
    def n(self) -> int:
        """Cells."""
        return self.side**2

    def milp(self) -> Milp:
        """One row: the number of ones."""
        row = Row.of(dict.fromkeys(range(self.n), 1.0), lower=self.placed, upper=self.placed, name="number placed")
        ones = np.ones(self.n)
        return Milp.of([row], n=self.n, lower=0 * ones, upper=ones, integer=ones.astype(bool))

    def broken(self, x: Floats) -> str:
        """Another number of ones, or an entry that is neither 0 nor 1."""
        other = [i for i, value in enumerate(x) if value not in (0.0, 1.0)]
        if other:
            return f"cell {divmod(other[0], self.side)} is {x[other[0]]:g}"
        count = sum(1 for value in x if value == 1.0)
        return "" if count == self.placed else f"{count} cells are marked, not {self.placed}"

    def sets(self) -> Tensor:
        """`[V, placed]` int64: the marked cells of every x."""
        return torch.tensor(list(itertools.combinations(range(self.n), self.placed)))

    def vertices(self) -> Tensor:
        """`[V, n]` float64: every x, in the order of `sets`."""
        sets = self.sets()
        return torch.zeros(len(sets), self.n, dtype=torch.float64).scatter(1, sets, 1.0)

    def chances(self, cost: Tensor, sigma: float) -> Tensor:
        """`[V]` float64: how probably each x is the optimum of `cost [n]` + sigma z, z standard normal; differentiable.

        S is chosen when the largest cost within S is below every other: the integral over u of the density of that
        largest cost at u, times the chance that all others exceed u. Smooth in one dimension, hence exact to rounding.
        """
        sets = self.sets()
        low, high = float(cost.detach().min()) - REACH * sigma, float(cost.detach().max()) + REACH * sigma
        nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(NODES))
        u = low + (high - low) * (nodes + 1) / 2
        t = (u - cost[:, None]) / sigma  # [n, U]
        below, density = torch.special.ndtr(t), torch.exp(-t * t / 2) / (sigma * (2 * torch.pi) ** 0.5)
        above = torch.special.ndtr(-t)
        inside = torch.zeros(len(sets), NODES, dtype=torch.float64)
        for j in range(self.placed):
            rest = [i for i in range(self.placed) if i != j]
            inside = inside + density[sets[:, j]] * below[sets[:, rest]].prod(1)
        outside = torch.tensor([sorted(set(range(self.n)) - set(s)) for s in sets.tolist()])
        out: Tensor = (inside * above[outside].prod(1)) @ weights * (high - low) / 2
        return out


class PlacementSolver(Solver):
    """The `placed` cheapest cells; of equal ones the first."""

    kinds: ClassVar[frozenset[str]] = frozenset({Placement.kind})

    def solve(self, inst: Instance, *, time_limit_s: float, seed: int = 0, warm_start: Any = None) -> Solution:
        """The optimum, by sorting. Raises InvalidInput as `solve_costs` does."""
        return self.solve_costs(inst, np.asarray(inst.cost)[None], time_limit_s=time_limit_s).solution(0)

    def solve_costs(
        self, inst: Instance, costs: NDArray[np.float64], *, time_limit_s: float, seed: int = 0
    ) -> SolutionBatch:
        """The optima of `costs [B, n]`.

        Raises:
            InvalidInput: another kind of instance, or a cost that is not finite.
        """
        start = time.perf_counter()
        if inst.kind not in self.kinds:
            raise InvalidInput(f"kind {inst.kind!r} is not solved here", hint=f"one of: {', '.join(self.kinds)}")
        if not np.isfinite(costs).all():
            raise InvalidInput("a cost is NaN or infinite")
        B = len(costs)
        x = np.zeros(costs.shape)
        np.put_along_axis(x, np.argsort(costs, axis=1, kind="stable")[:, : inst.payload.placed], 1.0, axis=1)
        value = (x * costs).sum(1)
        seconds = np.full(B, (time.perf_counter() - start) / max(B, 1))
        status: list[Status] = ["optimal"] * B
        return SolutionBatch(x, value, value, tuple(status), np.ones(B, bool), seconds, ("",) * B)
