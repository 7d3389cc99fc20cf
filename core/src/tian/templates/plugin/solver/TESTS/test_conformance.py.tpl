"""@@name@@ keeps the contract of role solver; `tian show solver` prints it."""

import itertools

import numpy as np

from tian.spec import Instance
from tian.testing import conformance


def knapsack(n, rng, capacity=None):
    weights = rng.integers(1, 20, n).astype(float)
    capacity = weights.sum() / 2 if capacity is None else capacity
    return Instance("knapsack", rng.normal(-5, 5, n), {"weights": weights.tolist(), "capacity": float(capacity)})


def instances(seed):
    """Small ones; the last has no solution."""
    rng = np.random.default_rng(seed)
    return [knapsack(6, rng), knapsack(1, rng), knapsack(5, rng, capacity=0), knapsack(4, rng, capacity=-1)]


def feasible(inst, x):
    whole = np.isin(x, (0.0, 1.0)).all()
    return bool(whole and np.asarray(inst.payload["weights"]) @ x <= inst.payload["capacity"])


def brute(inst):
    """The exact minimum over all subsets, None when there is none."""
    every = (np.array(x, dtype=float) for x in itertools.product((0, 1), repeat=len(inst.cost)))
    return min((float(inst.cost @ x) for x in every if feasible(inst, x)), default=None)


def hard(n=200):
    rng = np.random.default_rng(0)
    weights = rng.integers(100, 1000, n)
    cost = -(weights + 100.0)
    return Instance("knapsack", cost, {"weights": weights.tolist(), "capacity": int(weights.sum()) // 2})


Test@@Class@@ = conformance.solver(
    "@@name@@/@@name@@",
    options=[{}, {"max_nodes": 0}],
    bad_options=[{"max_nodes": -1}],
    instances=instances,
    feasible=feasible,
    brute=brute,
    hard=hard(),
)
