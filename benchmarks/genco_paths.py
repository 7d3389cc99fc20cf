"""Shortest paths on grids, microseconds a map, the paths themselves included: heaps against our routes, CPU time.

Every round solves the same batch in each way, in an order drawn anew; printed are medians and quartiles, and the
quartiles of `heap in Python / ours` by round. Ours are whole calls of the solver, checks of the costs included. The
bound is what reading the costs and writing the paths takes at the speed of a plain copy. Bar: the default at least 20
times as fast as the heap in Python at 12x12.
"""

from __future__ import annotations

import argparse
import runpy
import statistics
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from _result import save

from tian_genco.paths.grid import GridPathSolver
from tian_genco.paths.options import PathOptions
from tian_genco.paths.problem import PathProblem
from tian_genco.paths.terrain import costs_of, make_terrain
from tian_kvcache.speed_bound import measure_limits
from tian_kvcache.speed_timing import Clock, quartiles, ratios

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

CASES = ((12, 1), (12, 70), (18, 70), (24, 70), (30, 70), (96, 16))  # side, maps a batch
HEAP = "heap in Python"
REFERENCE = Path(__file__).parents[1] / "plugins/genco/tests/path_reference.py"


def ways_of(costs: NDArray[np.float64]) -> dict[str, Callable[[], NDArray[np.float64]]]:
    """Label -> paths `[B, n, n]` of the batch."""
    reference = SimpleNamespace(**runpy.run_path(str(REFERENCE)))
    B, H, W = costs.shape
    instance = PathProblem(H, W).instance()

    def by_heap(heap: Any) -> NDArray[np.float64]:
        return np.stack([heap(c)[1] for c in costs])

    def ours(solver: GridPathSolver) -> NDArray[np.float64]:
        return solver.solve_costs(instance, costs.reshape(B, H * W), time_limit_s=60.0).x.reshape(B, H, W)

    return {
        HEAP: partial(by_heap, reference.python_heap),
        "heap in numba": partial(by_heap, reference.numba_heap),
        "sweeps (default)": partial(ours, GridPathSolver()),
        "torch": partial(ours, GridPathSolver(PathOptions("torch"))),
        "scipy": partial(ours, GridPathSolver(PathOptions("scipy"))),
    }


def row_of(n: int, B: int, *, rounds: int, clock: Clock, bandwidth: float) -> dict[str, Any]:
    """Microseconds a map of each way."""
    rng = np.random.default_rng(n)
    costs = costs_of(make_terrain(B, seed=0, size=n)) + 1e-6 * rng.random((B, n, n))
    ways = ways_of(costs)
    repeats = 70 if B == 1 else 1
    paths = {label: solve() for label, solve in ways.items()}  # warms up
    for label, path in paths.items():
        if np.abs(((path - paths[HEAP]) * costs).sum(axis=(1, 2))).max() > 1e-9:
            raise SystemExit(f"{label} found paths of another cost than {HEAP}")
    found: dict[str, list[float]] = {label: [] for label in ways}
    for _ in range(rounds):
        for label in rng.permutation(list(ways)):
            start = clock.now()
            for _ in range(repeats):
                ways[label]()
            found[label].append(1e6 * (clock.now() - start) / (repeats * B))
    row: dict[str, Any] = {"side": n, "maps": B, "rounds": rounds, "bound, us": round(2e6 * 8 * n * n / bandwidth, 3)}
    for label, us in found.items():
        low, high = quartiles(us)
        row[f"{label}, us"] = [round(v, 2) for v in (low, statistics.median(us), high)]
        if label != HEAP:
            x = ratios(found[HEAP], us)
            low, high = quartiles(x)
            row[f"{HEAP} / {label}"] = [round(v, 1) for v in (low, statistics.median(x), high)]
    print("\n  ".join(f"{k} {v}" for k, v in row.items()), flush=True)
    return row


def main() -> None:
    """Sides 12 to 96."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(1)
    clock = Clock(torch.device("cpu"), 1)
    bandwidth = measure_limits(clock, dtype=torch.float32, device=torch.device("cpu")).bandwidth
    rows = [row_of(n, B, rounds=args.rounds, clock=clock, bandwidth=bandwidth) for n, B in CASES]
    save("genco-paths", {"bandwidth": bandwidth, "clock": clock.name, "cases": rows})


if __name__ == "__main__":
    main()
