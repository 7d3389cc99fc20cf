"""HiGHS passes the conformance kit, by the program and by its relaxation."""

import itertools

import numpy as np

from tian.testing import conformance
from tian_genco.problem import TOLERANCE, Milp, Row
from tian_genco.solving.highs import HighsSolver
from tian_genco.solving.options import HighsOptions

N = 5


def small(rng, *, feasible=True):
    """Five binaries under three random rows."""
    rows = [
        Row(np.arange(N), rng.integers(-4, 5, N).astype(float), -np.inf, float(rng.integers(0, 6)), f"knapsack {i}")
        for i in range(2)
    ]
    wanted = 3.0 if feasible else N + 1.0
    rows.append(Row(np.arange(N), np.ones(N), 1.0 if feasible else wanted, wanted, "count"))
    return Milp.of(rows, n=N, lower=np.zeros(N), upper=np.ones(N), integer=np.ones(N, bool))


def instances(seed):
    rng = np.random.default_rng(seed)
    made = [small(rng).instance(rng.normal(size=N)) for _ in range(2)]
    return [*made, small(rng, feasible=False).instance(rng.normal(size=N))]


def feasible(inst, x):
    return all(abs(v - round(v)) <= TOLERANCE and 0 <= v <= 1 for v in x) and all(
        r.lower - TOLERANCE <= r.value @ x[r.index] <= r.upper + TOLERANCE for r in inst.payload.rows()
    )


def brute(inst):
    values = [inst.cost @ x for x in map(np.array, itertools.product((0.0, 1.0), repeat=N)) if feasible(inst, x)]
    return float(min(values)) if values else None


def hard():
    """A multidimensional knapsack that takes seconds."""
    rng = np.random.default_rng(0)
    n, rows = 60, rng.integers(1, 40, (8, 60)).astype(float)
    made = [Row(np.arange(n), r, -np.inf, r.sum() / 3) for r in rows]
    milp = Milp.of(made, n=n, lower=np.zeros(n), upper=np.ones(n), integer=np.ones(n, bool))
    return milp.instance(-rng.integers(10, 30, n).astype(float))


def make(**options):
    return HighsSolver(HighsOptions(**options))


KIT = {"instances": instances, "feasible": feasible, "brute": brute, "hard": hard()}

TestHighs = conformance.solver(
    make,
    options=[{}, {"cascade": True}],
    bad_options=[{"mip_gap": -0.1}, {"mip_gap": float("nan")}, {"workers": 0}],
    **KIT,
)
