"""Exact solver of grid paths, fast on batches."""

from __future__ import annotations

import time
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from tian.errors import InvalidInput
from tian.spec import Instance, Solution, SolutionBatch, Solver
from tian.spec.solver import Status
from tian_genco.paths.options import PathOptions
from tian_genco.paths.problem import PathProblem
from tian_genco.paths.relax import least_cost, min_plus, trace
from tian_genco.problem import Floats

if TYPE_CHECKING:
    from numpy.typing import NDArray

TORCH_SIDE = 24  # cells; scipy is faster on larger grids
_OPTIMAL: Status = "optimal"


class GridPathSolver(Solver):
    """Shortest paths for costs >= 0, by three routes that give the same paths bit by bit.

    `sweeps`: compiled Gauss-Seidel passes; `torch`: min-plus relaxation of the whole batch; `scipy`: Dijkstra, map by
    map. Distances are the same numbers on each (see `min_plus`), and so are the paths: from the goal, always to the
    neighbour with the smallest distance, the first in reading order among equals.

    Cells below `least_cost`, some 1e-14 of the dearest cell of their map, count as that much, so that every step shows
    in the distance and free cells cannot form circles; `bound` allows for it. Every answer is optimal. The time limit
    plays no part: a batch takes microseconds a map.

    Args:
        options: route.

    Source:
        Paths of arXiv 2310.02442 on the maps of Vlastelica et al. 2020; the passes are fast sweeping (Zhao 2005).

    Example:
        >>> inst = PathProblem(2, 3).instance(np.array([1.0, 9.0, 9.0, 9.0, 2.0, 1.0]))
        >>> GridPathSolver().solve(inst, time_limit_s=1.0).x.tolist()
        [1.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    """

    kinds: ClassVar[frozenset[str]] = frozenset({PathProblem.kind})

    def __init__(self, options: PathOptions | None = None) -> None:
        self.options = options or PathOptions()

    def solve(self, inst: Instance, *, time_limit_s: float, seed: int = 0, warm_start: Any = None) -> Solution:
        """The shortest path under the cost of the instance. Raises InvalidInput as `solve_costs` does."""
        return self.solve_costs(inst, np.asarray(inst.cost)[None], time_limit_s=time_limit_s).solution(0)

    def solve_costs(
        self, inst: Instance, costs: NDArray[np.float64], *, time_limit_s: float, seed: int = 0
    ) -> SolutionBatch:
        """The shortest paths under each row of `costs [B, H*W]`, with the route taken.

        Raises:
            InvalidInput: another kind of instance, another shape, or a cost that is negative or not finite; row and
                cell are named.
        """
        start = time.perf_counter()
        problem = _problem_of(inst)
        costs = _checked(problem, costs)
        B = len(costs)
        route = self._route(problem)
        maps = costs.reshape(B, problem.height, problem.width)
        floor = least_cost(torch.from_numpy(maps)).numpy()
        x = _paths(np.maximum(maps, floor[:, None, None]), route).reshape(B, problem.n)
        objective = (costs * x).sum(axis=1)
        return SolutionBatch(
            x=x,
            objective=objective,
            bound=objective - floor * (costs < floor[:, None]).sum(axis=1),
            status=(_OPTIMAL,) * B,
            found=np.ones(B, bool),
            seconds=np.full(B, (time.perf_counter() - start) / max(B, 1)),
            route=(route,) * B,
        )

    def _route(self, problem: PathProblem) -> str:
        if self.options.route != "auto":
            return self.options.route
        if find_spec("numba") is not None:
            return "sweeps"
        return "torch" if max(problem.height, problem.width) <= TORCH_SIDE else "scipy"


def clamp(costs: Floats) -> tuple[Floats, int]:
    """The costs with negative ones set to 0, and how many there were.

    For perturbed costs, as in the backward pass of the black-box estimator; a negative cost elsewhere is a mistake.

    Example:
        >>> clamp(np.array([0.5, -0.1]))[1]
        1
    """
    return np.maximum(costs, 0.0), int((costs < 0).sum())


def _problem_of(inst: Instance) -> PathProblem:
    if inst.kind != PathProblem.kind or not isinstance(inst.payload, PathProblem):
        raise InvalidInput(
            f"the solver takes kind {PathProblem.kind!r} with a PathProblem, got kind {inst.kind!r} "
            f"with {type(inst.payload).__name__}",
            hint="make the instance with PathProblem(height, width).instance(cost)",
        )
    return inst.payload


def _checked(problem: PathProblem, costs: NDArray[Any]) -> Floats:
    """Costs `[B, n]` as float64; raises InvalidInput unless all are finite and >= 0."""
    costs = np.ascontiguousarray(costs, dtype=np.float64)
    if costs.ndim != 2 or costs.shape[1] != problem.n:
        raise InvalidInput(
            f"costs of a {problem.height}x{problem.width} grid are [B, {problem.n}], got {list(costs.shape)}"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        finite = bool(np.isfinite(costs.sum(axis=1)).all())  # a NaN or infinity shows in the sum
    if finite and costs.min(initial=0.0) >= 0:
        return costs
    bad = np.argwhere(~((costs >= 0) & np.isfinite(costs)))
    if not len(bad):
        raise InvalidInput("the costs of a map add up to infinity", hint="divide the costs: paths stay the same")
    row, v = (int(k) for k in bad[0])
    raise InvalidInput(
        f"the cost of row {row}, cell {divmod(v, problem.width)} is {costs[row, v]:g}: shortest paths need finite costs >= 0",
        hint="shift the costs; perturbed ones can be cut off with tian_genco.paths.grid.clamp",
    )


def _paths(costs: Floats, route: str) -> Floats:
    """`[B, H, W]` zeros and ones."""
    if route == "sweeps":
        from tian_genco.paths.sweeps import sweep

        paths: Floats = sweep(costs)
        return paths
    distance = min_plus(torch.from_numpy(costs)) if route == "torch" else torch.from_numpy(_dijkstra(costs))
    paths = trace(distance).numpy()
    return paths


def _dijkstra(costs: Floats) -> Floats:
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import dijkstra

    B, H, W = costs.shape
    heads, indptr = _arcs(H, W)
    n = H * W
    distance = np.empty((B, n))
    for c, d in zip(costs.reshape(B, n), distance, strict=True):
        graph = csr_array((c[heads], heads, indptr), shape=(n + 1, n + 1))
        d[:] = dijkstra(graph, indices=n)[:n]
    return distance.reshape(B, H, W)


@lru_cache(maxsize=16)
def _arcs(height: int, width: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Arcs to the 8 neighbours as CSR; one more vertex, the source, leads to the start, whose cost counts too."""
    cell = np.pad(np.arange(height * width).reshape(height, width), 1, constant_values=-1)
    moves = [(r, c) for r in range(3) for c in range(3) if (r, c) != (1, 1)]
    near = np.stack([cell[r : r + height, c : c + width].ravel() for r, c in moves], axis=1)
    degree = (near >= 0).sum(axis=1)
    heads = np.append(near[near >= 0], 0)
    indptr = np.concatenate([[0], np.cumsum(degree), [len(heads)]])
    return heads.astype(np.int32), indptr.astype(np.int32)
