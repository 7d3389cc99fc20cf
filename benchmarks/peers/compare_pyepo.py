"""PyEPO's estimators against those of `genco/predict` on the same shortest paths: CPU time an epoch, and regret.

PyEPO gets an environment of its own (`--venv`, made at the first call, 1 GB). Both sides have the same data, linear
predictor, first weights, order of examples, Adam, noise size and number of samples; noise itself differs. PyEPO runs on
two solvers: its OR-tools backend with GLOP, and, around scipy's Dijkstra, a model written here, so that the cost of its
loop shows. PyEPO's lambda multiplies the gradient as it comes; ours is in units of its RMS and acts on normalised costs.
The two have no common value: PyEPO's 20 moves costs by 0.2 to 0.8 of their RMS at the start, depending on the example,
ours by `lam` in every one. So regrets of `blackbox` and `imle` compare defaults, not the methods; only `tian, raw` has
PyEPO's units and with them the same algorithm. `spo-plus` and `fenchel-young` have the same settings on both sides.
Costs below 0 are solved as 0 on both sides. Time: epochs in turns, quartiles of `PyEPO / tian` by round. Regret: after all
epochs, mean over seeds and range, as a share of the least cost.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from _peer import Worker, python_of  # noqa: E402 - beside this file
from _result import save  # noqa: E402 - beside the other benchmarks

from tian_genco.grad.options import PredictOptions  # noqa: E402
from tian_genco.grad.oracle import Oracle  # noqa: E402
from tian_genco.grad.predict import Predictor, make_examples  # noqa: E402
from tian_genco.paths.grid import GridPathSolver  # noqa: E402
from tian_genco.paths.problem import PathProblem  # noqa: E402

REQUIREMENTS = ("pyepo==2.2.7", "torch==2.13.0", "ortools==9.15.6755")
METHODS = ("spo-plus", "blackbox", "fenchel-young", "imle")
LAMBDA = 20.0  # within the 10 to 20 that PyEPO recommends
AT = (0.25, 0.5, 0.75)


def write_data(path: Path, options: PredictOptions, seed: int) -> None:
    """Examples and first weights, as `genco/predict` has them."""
    problem = PathProblem(options.size, options.size)
    oracle = Oracle(GridPathSolver(), problem, time_limit_s=10.0, least=0.0)
    train, test = make_examples(options, oracle, seed)
    weight = Predictor(options.features, oracle.n, seed).linear.weight.detach().numpy()
    arrays = {f"{prefix}{name}": getattr(part, name).numpy() for prefix, part in (("", train), ("test_", test))
              for name in ("features", "costs", "paths")}  # fmt: skip
    np.savez(path, weight=weight, **arrays)


def compare(
    method: str, python: str, folder: Path, options: PredictOptions, *, seeds: int, rounds: int
) -> dict[str, Any]:
    """One row: times of every side in turns on the first seed, then regret of all but GLOP on every seed."""
    shared = {
        "method": method,
        "side": options.size,
        "samples": options.samples,
        "sigma": options.sigma,
        "lambda": LAMBDA,
        "lam": options.lam,
        "lr": options.lr,
        "batch": options.batch,
    }
    sides: dict[str, tuple[str, dict[str, Any]]] = {
        "PyEPO, GLOP": (python, {"of": "pyepo", "backend": "glop"}),
        "PyEPO, Dijkstra": (python, {"of": "pyepo", "backend": "dijkstra"}),
        "tian": (sys.executable, {"of": "tian", "raw": False}),
    }
    if method == "blackbox":
        sides["tian, raw"] = (sys.executable, {"of": "tian", "raw": True})
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    regret: dict[str, list[float]] = {side: [] for side in sides if "GLOP" not in side}
    rng = np.random.default_rng(0)
    for seed in range(seeds):
        job = {**shared, "seed": seed, "data": str(folder / f"{seed}.npz")}
        with ExitStack() as stack:
            workers = {
                side: stack.enter_context(Worker(python_, HERE / "pyepo_worker.py", {**job, **more}))
                for side, (python_, more) in sides.items()
                if seed == 0 or side in regret
            }
            done = 0
            if seed == 0:
                for worker in workers.values():
                    worker.ask("epoch")  # warms up
                for _ in range(rounds):
                    for side in rng.permutation(list(workers)):
                        seconds[side].append(float(workers[side].ask("epoch")["value"]))
                done = rounds + 1
            for side, found in regret.items():
                for _ in range(options.epochs - done):
                    workers[side].ask("epoch")
                found.append(float(workers[side].ask("regret")["value"]))
    solves = {"spo-plus": 1, "blackbox": 2, "fenchel-young": options.samples, "imle": 2 * options.samples}[method]
    row: dict[str, Any] = {"method": method, "solves an example": solves, "examples an epoch": options.train}
    for side, s in seconds.items():
        row[f"{side}, ms an epoch"] = [round(1e3 * float(v), 2) for v in np.quantile(s, AT)]
        if side.startswith("PyEPO"):
            x = np.array(s) / np.array(seconds["tian"])
            row[f"{side} / tian"] = [round(float(v), 1) for v in (*np.quantile(x, AT), x.min())]
    for side, found in regret.items():
        row[f"{side}, regret"] = [round(float(v), 4) for v in (np.mean(found), min(found), max(found))]
    print("\n  ".join(f"{k} {v}" for k, v in row.items()), flush=True)
    return row


def main() -> None:
    """All four estimators."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venv", type=Path, default=HERE.parents[1] / ".venv" / "peers-pyepo")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40)
    args = parser.parse_args()
    python = python_of(args.venv, *REQUIREMENTS)
    options = PredictOptions(epochs=args.epochs)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed in range(args.seeds):
            write_data(folder / f"{seed}.npz", options, seed)
        rows = [compare(method, python, folder, options, seeds=args.seeds, rounds=args.rounds) for method in METHODS]
    save("peers-pyepo", {"requirements": REQUIREMENTS, "lambda": LAMBDA, "seeds": args.seeds, "cases": rows})


if __name__ == "__main__":
    main()
