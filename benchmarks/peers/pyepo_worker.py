"""One side of a comparison, in a process of its own: answers `epoch` and `regret`, one JSON a line.

Run by `compare_pyepo.py` with the Python of either environment; so it imports nothing of tian unless it is that side.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
import torch


def neighbours(side: int) -> list[tuple[int, int]]:
    """Steps from each cell to the 8 around it."""
    cells = [(r, c) for r in range(side) for c in range(side)]
    return [
        (r * side + c, s * side + d)
        for r, c in cells
        for s in (r - 1, r, r + 1)
        for d in (c - 1, c, c + 1)
        if (r, c) != (s, d) and 0 <= s < side and 0 <= d < side
    ]


def dijkstra_model(side: int) -> Any:
    """PyEPO's interface around scipy's Dijkstra: quick, and written for this comparison."""
    from pyepo.model.opt import optModel
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import dijkstra

    n = side * side
    arcs = np.array(neighbours(side))  # sorted by their start
    indptr = np.searchsorted(arcs[:, 0], np.arange(n + 1))

    class Paths(optModel):  # type: ignore[misc]
        def _getModel(self) -> tuple[None, list[int]]:  # noqa: N802 - PyEPO's names
            return None, list(range(n))

        def setObj(self, c: Any) -> None:  # noqa: N802
            self.cost = np.maximum(np.asarray(c, np.float64), 0.0)

        def solve(self) -> tuple[Any, float]:
            weight = self.cost[arcs[:, 1]] + 1e-12  # scipy takes a stored zero for no arc
            _, before = dijkstra(csr_matrix((weight, arcs[:, 1], indptr)), indices=0, return_predecessors=True)
            x, at = np.zeros(n, np.float32), n - 1
            while at >= 0:
                x[at] = 1.0
                at = before[at]
            return x, float(self.cost @ x)

    return Paths()


def glop_model(side: int) -> Any:
    """PyEPO's own OR-tools backend, GLOP, on the flow of the path through the cells."""
    from ortools.linear_solver import pywraplp
    from pyepo.model.ort import optOrtModel

    n = side * side

    class Paths(optOrtModel):  # type: ignore[misc]
        def _getModel(self) -> tuple[Any, dict[int, Any]]:  # noqa: N802 - PyEPO's names
            m = pywraplp.Solver.CreateSolver("GLOP")
            x = {v: m.NumVar(0, 1, f"x{v}") for v in range(n)}
            flow = {e: m.NumVar(0, 1, f"f{e}") for e in neighbours(side)}
            for v in range(n):
                into = sum(f for e, f in flow.items() if e[1] == v)
                off = sum(f for e, f in flow.items() if e[0] == v)
                m.Add(into + (1 if v == 0 else 0) == x[v])
                m.Add(off + (1 if v == n - 1 else 0) == x[v])
            return m, x

        def setObj(self, c: Any) -> None:  # noqa: N802
            super().setObj(np.maximum(np.asarray(c, np.float64), 0.0))

    return Paths("glop")


def pyepo_side(job: dict[str, Any], data: dict[str, torch.Tensor]) -> tuple[Any, Any]:
    """Loss, and paths of predicted costs."""
    from pyepo import func
    from pyepo.func.utils import sumGammaDistribution

    model = (glop_model if job["backend"] == "glop" else dijkstra_model)(job["side"])
    costs, paths = data["costs"], data["paths"]
    best = (costs * paths).sum(1, keepdim=True)
    if job["method"] == "spo-plus":
        spo = func.SPOPlus(model)
        loss = lambda p, rows: spo(p, costs[rows], paths[rows], best[rows])  # noqa: E731
    elif job["method"] == "fenchel-young":
        young = func.perturbedFenchelYoung(model, n_samples=job["samples"], sigma=job["sigma"])
        loss = lambda p, rows: young(p, paths[rows])  # noqa: E731
    else:
        if job["method"] == "blackbox":
            layer = func.blackboxOpt(model, lambd=job["lambda"])
        else:
            noise = sumGammaDistribution(kappa=job["side"])
            layer = func.implicitMLE(
                model, n_samples=job["samples"], sigma=job["sigma"], lambd=job["lambda"], distribution=noise
            )
        loss = lambda p, rows: (costs[rows] * layer(p)).sum(1).mean()  # noqa: E731

    def chosen(predicted: torch.Tensor) -> torch.Tensor:
        found = []
        for c in predicted:
            model.setObj(c.numpy())
            found.append(np.asarray(model.solve()[0], np.float64))
        return torch.from_numpy(np.stack(found))

    return loss, chosen


def tian_side(job: dict[str, Any], data: dict[str, torch.Tensor]) -> tuple[Any, Any]:
    """The same of `genco/predict`; with `raw` its black-box differences in PyEPO's units."""
    from tian_genco.grad.estimators import BlackBox
    from tian_genco.grad.layer import SolverLayer
    from tian_genco.grad.options import PredictOptions
    from tian_genco.grad.oracle import Oracle
    from tian_genco.grad.predict import Examples, Objective
    from tian_genco.paths.grid import GridPathSolver
    from tian_genco.paths.problem import PathProblem

    problem = PathProblem(job["side"], job["side"])
    oracle = Oracle(GridPathSolver(), problem, time_limit_s=10.0, least=0.0)
    examples = Examples(data["features"], data["costs"], data["paths"], data["costs"])
    options = PredictOptions(size=job["side"], lam=job["lam"], sigma=job["sigma"], samples=job["samples"])
    objective: Any = Objective(job["method"], oracle, problem, options, 0)
    if job["raw"]:
        layer = SolverLayer(oracle.solver, problem, BlackBox(job["lambda"], unit="raw"), time_limit_s=10.0, least=0.0)
        return (lambda p, rows: (examples.costs[rows] * layer(p)).sum(1).mean()), oracle
    return (lambda p, rows: objective(p, examples[rows])), oracle


def main() -> None:
    """Read a job, then requests, from stdin."""
    torch.set_num_threads(1)
    job = json.loads(sys.stdin.readline())
    ours = job["of"] == "tian"
    dtype = torch.float64 if ours else torch.float32  # what either works in
    with np.load(job["data"]) as file:
        data = {name: torch.from_numpy(file[name]).to(dtype) for name in file.files}
    test = {name.removeprefix("test_"): v for name, v in data.items() if name.startswith("test_")}
    linear = torch.nn.Linear(data["features"].shape[1], data["costs"].shape[1], dtype=dtype)
    with torch.no_grad():
        linear.weight.copy_(data["weight"])
        linear.bias.fill_(1.0)
    loss, chosen = (tian_side if ours else pyepo_side)(job, data)
    optimiser = torch.optim.Adam(linear.parameters(), lr=job["lr"])
    order = np.random.default_rng(job["seed"])
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        start = time.process_time()
        if line.strip() == "epoch":
            rows = torch.from_numpy(order.permutation(len(data["features"])))
            for part in rows.split(job["batch"]):
                optimiser.zero_grad()
                loss(linear(data["features"][part]), part).backward()
                optimiser.step()
            answer = {"value": time.process_time() - start}
        else:
            with torch.no_grad():
                paths = chosen(linear(test["features"])).to(torch.float64)
            costs = test["costs"].double()
            best = (costs * test["paths"]).sum()
            answer = {"value": float(((costs * paths).sum() - best) / best)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
