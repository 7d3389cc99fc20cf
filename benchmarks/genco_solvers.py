"""Cheapest playable level, milliseconds an instance by route: exact search, HiGHS, its relaxation, Pyomo; CPU time.

Every instance is solved in each way, in an order drawn anew. Printed are quartiles and the worst, and of `HiGHS cold`
over each way, instance by instance, quartiles and the worst. Ours are whole calls of the solver, checks of the costs
included; `oracle, once` finds the caches full of another solver's data, `oracle` is the mean of calls in a row, as in a
training loop. All programs have the same rows and the same HiGHS options (gap 0, one thread). `Pyomo, new solver` keeps the
model and translates it for every instance; `Pyomo, new model` builds that as well. The bound is what reading the costs
takes at the speed of a plain copy. Bars on jittered costs: the oracle at least 100 times as fast as `HiGHS cold` in the
median; our HiGHS route at least 2.3 times as fast as Pyomo with a new model. `tied` costs have no jitter: they show the
oracle's worst case, for which there is no bar.
"""

from __future__ import annotations

import argparse
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pyomo.environ as pyo
import torch
from _result import save
from pyomo.contrib.appsi.solvers.highs import Highs
from pyomo.core.expr import LinearExpression

from tian_genco.agreement import draw_cost
from tian_genco.levels.oracle import LevelOracle
from tian_genco.levels.rules import LevelRules
from tian_genco.solving.engine import ABSOLUTE_GAP, Engine
from tian_kvcache.speed_bound import measure_limits
from tian_kvcache.speed_timing import Clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from tian_genco.problem import Floats, Milp

COLD, RELAXED = "HiGHS cold", "relaxation, warm"
LIMIT = 60.0
OPTIONS = {
    "threads": 1,
    "mip_rel_gap": 0.0,
    "mip_abs_gap": ABSOLUTE_GAP,
    "mip_heuristic_run_feasibility_jump": False,
    "output_flag": False,
}
AT = (0.25, 0.5, 0.75)
ONCE, REPEATS = "oracle, once", {"oracle": 16}  # calls a turn
TAIL = 1000  # instances solved by the oracle alone, for its worst time


def pyomo_model(milp: Milp, cost: Floats) -> Any:
    """The program as a ConcreteModel whose costs are a mutable Param."""
    model = pyo.ConcreteModel()
    columns = range(len(milp.col_lower))
    model.y = pyo.Var(
        columns,
        domain=lambda _, j: pyo.Integers if milp.integer[j] else pyo.Reals,
        bounds=lambda _, j: (milp.col_lower[j], milp.col_upper[j]),
    )
    y = [model.y[j] for j in columns]
    model.row = pyo.ConstraintList()
    for row in milp.rows():
        lower, upper = (None if np.isinf(v) else float(v) for v in (row.lower, row.upper))
        terms = LinearExpression(linear_coefs=row.value.tolist(), linear_vars=[y[j] for j in row.index])
        model.row.add(terms == lower if lower == upper else (lower, terms, upper))
    model.cost = pyo.Param(range(milp.n), initialize=lambda _, j: cost[j], mutable=True)
    model.total = pyo.Objective(
        expr=LinearExpression(linear_coefs=[model.cost[j] for j in range(milp.n)], linear_vars=y[: milp.n])
    )
    return model


class Persistent:
    """One appsi solver that is told of new costs and looks for no other change."""

    def __init__(self, milp: Milp) -> None:
        self.model = pyomo_model(milp, np.zeros(milp.n))
        self.solver = Highs()
        self.solver.highs_options = OPTIONS
        self.solver.config.load_solution = False
        for name in (
            "check_for_new_or_removed_constraints",
            "check_for_new_or_removed_vars",
            "check_for_new_or_removed_params",
            "check_for_new_objective",
            "update_constraints",
            "update_vars",
            "update_named_expressions",
            "update_objective",
            "treat_fixed_vars_as_params",
        ):
            setattr(self.solver.update_config, name, False)
        self.solver.set_instance(self.model)

    def __call__(self, cost: Floats) -> float:
        """The objective."""
        self.model.cost.store_values(dict(enumerate(cost.tolist())))
        return float(self.solver.solve(self.model).best_feasible_objective)


def by_factory(name: str, model: Any) -> float:
    """The objective by a solver made for this instance alone."""
    solver = pyo.SolverFactory(name)
    if name == "appsi_highs":
        solver.highs_options = OPTIONS
        solver.solve(model)
    else:
        solver.solve(model, solver_options=OPTIONS)
    return float(pyo.value(model.total))


def ways_of(rules: LevelRules) -> dict[str, Callable[[Floats], float]]:
    """Label -> objective of a cost."""
    oracle, instance, milp = LevelOracle(), rules.instance(), rules.milp()
    program, relaxed, persistent = Engine(milp), Engine(milp, relaxed=True), Persistent(milp)
    kept_model = pyomo_model(milp, np.zeros(milp.n))

    def kept(cost: Floats) -> float:
        y = program.solve(cost, time_limit_s=LIMIT).y
        assert y is not None  # noqa: S101 - a level always exists
        return float(cost @ y[: milp.n])

    def cold(cost: Floats) -> float:
        program.reset()
        return kept(cost)

    def new_solver(name: str, cost: Floats) -> float:
        kept_model.cost.store_values(dict(enumerate(cost.tolist())))
        return by_factory(name, kept_model)

    def searched(cost: Floats) -> float:
        return float(oracle.solve_costs(instance, cost[None], time_limit_s=LIMIT).objective[0])

    return {
        COLD: cold,
        "HiGHS kept": kept,
        RELAXED: lambda cost: relaxed.solve(cost, time_limit_s=LIMIT).bound,
        ONCE: searched,
        "oracle": searched,
        "Pyomo, persistent": persistent,
        "Pyomo, new solver, appsi_highs": lambda cost: new_solver("appsi_highs", cost),
        "Pyomo, new model, appsi_highs": lambda cost: by_factory("appsi_highs", pyomo_model(milp, cost)),
        "Pyomo, new model, highs": lambda cost: by_factory("highs", pyomo_model(milp, cost)),
    }


def draw(kind: str, rules: LevelRules, i: int) -> Floats:
    """Cost of instance i."""
    cost = draw_cost("soft" if kind == "soft" else "one-hot", rules.height, rules.width, np.random.default_rng([7, i]))
    return np.round(cost, 3) + 0.0 if kind == "tied" else cost


def row_of(kind: str, rules: LevelRules, *, instances: int, bandwidth: float) -> dict[str, Any]:
    """Milliseconds of each way, and ratios."""
    rng = np.random.default_rng(rules.cells)
    ways = ways_of(rules)
    for way in ways.values():
        way(draw(kind, rules, instances))  # warms up
    found: dict[str, list[float]] = {label: [] for label in ways}
    integral = 0
    for i in range(instances):
        cost, objective = draw(kind, rules, i), {}
        for label in rng.permutation(list(ways)):
            repeats = REPEATS.get(label, 1)
            start = time.process_time()
            for _ in range(repeats):
                objective[label] = ways[label](cost)
            found[label].append(1e3 * (time.process_time() - start) / repeats)
        least = objective.pop(RELAXED)
        integral += objective[COLD] - least <= 1e-7
        if np.ptp(list(objective.values())) > 3e-6 or least > min(objective.values()) + 1e-6:
            raise SystemExit(f"instance {i} of {kind}, {rules}: {least} relaxed, {objective}")
    oracle = LevelOracle()
    tail = np.stack([draw(kind, rules, instances + 1 + i) for i in range(TAIL)])
    alone = []
    for cost in tail:
        start = time.process_time()
        oracle.solve_costs(rules.instance(), cost[None], time_limit_s=LIMIT)
        alone.append(1e3 * (time.process_time() - start))
    start = time.process_time()
    batch = oracle.solve_costs(rules.instance(), tail, time_limit_s=LIMIT)
    together = 1e3 * (time.process_time() - start) / TAIL
    row: dict[str, Any] = {
        "costs": kind,
        "level": f"{rules.height}x{rules.width}",
        "instances": instances,
        "relaxation integral": integral / instances,
        "bound, ms": float(f"{8e3 * rules.n / bandwidth:.2g}"),
        "oracle alone, instances": TAIL,
        "oracle alone, share by its own search": batch.route.count("oracle") / TAIL,
        "oracle alone, ms, median and worst": [round(float(np.median(alone)), 4), round(max(alone), 3)],
        "oracle in one batch, ms": round(together, 4),
    }
    first = np.array(found[COLD])
    for label, ms in found.items():
        row[f"{label}, ms"] = [round(float(v), 3) for v in (*np.quantile(ms, AT), max(ms))]
        if label != COLD:
            x = first / np.array(ms)
            row[f"{COLD} / {label}"] = [round(float(v), 2) for v in (*np.quantile(x, AT), x.min())]
    kept = np.array(found["HiGHS kept"])
    for label in ("Pyomo, new solver, appsi_highs", "Pyomo, new model, appsi_highs", "Pyomo, new model, highs"):
        x = np.array(found[label]) / kept
        row[f"{label} / HiGHS kept"] = [round(float(v), 2) for v in (*np.quantile(x, AT), x.min())]
    print("\n  ".join(f"{k} {v}" for k, v in row.items()), flush=True)
    return row


def main() -> None:
    """Both sizes, three kinds of costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=12, help="of each kind and size, by every way")
    args = parser.parse_args()
    torch.set_num_threads(1)
    clock = Clock(torch.device("cpu"), 1)
    bandwidth = measure_limits(clock, dtype=torch.float32, device=torch.device("cpu")).bandwidth
    rows = [
        row_of(kind, LevelRules(*size), instances=args.instances if kind != "tied" else 4, bandwidth=bandwidth)
        for size in ((9, 13), (11, 16))
        for kind in ("soft", "one-hot", "tied")
    ]
    versions = {name: version(name) for name in ("highspy", "pyomo", "numba")}
    save("genco-solvers", {"bandwidth": bandwidth, "clock": clock.name, "versions": versions, "cases": rows})


if __name__ == "__main__":
    main()
