"""Recipe `genco/custom`: designs that obey the rules of the user's own Pyomo model, like given ones or all different."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyomo.environ as pyo
import torch

from tian.config.compose import options_of
from tian.errors import DataError, InvalidInput, ResumeMismatch, RunError
from tian.types import Measurement
from tian_genco.learn.measures import copies
from tian_genco.learn.pipeline import share
from tian_genco.sampling.draw import draw
from tian_genco.sampling.learned import learned_costs, set_distance
from tian_genco.sampling.record import save_model
from tian_genco.solving.diverse import Extended
from tian_genco.solving.infeasible import conflict
from tian_genco.solving.pyomo_model import PyomoProblem, compile_pyomo, load_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tian.runs.rundir import Run
    from tian_genco.problem import Floats
    from tian_genco.sampling.options import CustomOptions, ModelOptions

RESULTS = "results.json"


def custom(cfg: Any, run: Run) -> list[Measurement]:
    """See `CustomOptions`.

    The model is code, and only what is named when a run is started is executed: a run directory may come from anyone,
    so a run is not continued from one.

    Raises:
        ResumeMismatch: the run is resumed. InvalidInput: a model that cannot be read, no Var to take the costs, or
        constraints in conflict, which are named. DataError: designs of another shape. RunError: no design was found.
    """
    options: CustomOptions = options_of(cfg)
    if run.resumed:
        raise ResumeMismatch(
            f"the run names code, {options.model.pyomo!r}, and code is executed only when named on the command line",
            where=str(run.path),
            hint=f"start it again, with the same result: tian run genco/custom model.pyomo={options.model.pyomo} ...",
        )
    torch.set_num_threads(options.threads)
    problem, names = _compiled(options.model)
    data = None if options.data.path is None else _designs(Path(options.data.path), problem.n)
    solver = run.load("solver", options.solver)
    seed, limit = int(run.config.seed), options.time_limit_s
    _refuse(problem, solver, limit)
    if data is None:
        costs = np.random.default_rng(seed).normal(size=(options.n, problem.n))
    else:
        costs = learned_costs(problem, solver, data, options, run=run, seed=seed)
    drawn = draw(
        Extended.of(problem), costs, solver=solver, time_limit_s=limit, run=run, min_hamming=options.min_hamming
    )
    batch = drawn.batch
    if not batch.found.any():
        raise RunError(
            f"none of {len(batch)} solves ended with a design: {dict(Counter(batch.status))}",
            where=f"time_limit_s={limit:g}",
            hint="raise time_limit_s",
        )
    digest = save_model(run.path, drawn, problem.milp(), names, min_hamming=options.min_hamming)
    designs = np.rint(batch.x[batch.found]).astype(np.uint8)
    ways = [f"{route}, {status}" for route, status in zip(batch.route, batch.status, strict=True)]
    run.write_json(
        RESULTS,
        {
            "model": options.model.pyomo,
            "names": names,
            "asked": options.n,
            "routes": dict(sorted(Counter(ways).items())),
            "exhausted": drawn.exhausted,
            "digest": digest,
            "data": options.data.path,
        },
    )
    found = measures(problem, designs, by={"designs": "ours"})
    found.append(Measurement("time per design", float(batch.seconds[batch.found].mean()), "s", len(designs)))
    if options.min_hamming:
        found.append(Measurement("no more exist", float(drawn.exhausted), "1", 1, by={"designs": "ours"}))
    if data is not None:
        for name, rows in (
            ("ours", designs.astype(np.float64)),
            ("random costs", _random(problem, solver, costs, limit)),
        ):
            value = set_distance(rows, data)
            by = {"designs": name}
            found.append(Measurement("energy distance", value, "1", len(rows), higher_is_better=False, by=by))
        found += measures(problem, data.astype(np.uint8), by={"designs": "data"})
    return found


def measures(problem: PyomoProblem, designs: NDArray[np.uint8], *, by: dict[str, str]) -> list[Measurement]:
    """Of `designs [k, n]`: whether the Pyomo model itself holds, how many are unique, how far apart they are."""
    valid = np.array([not problem.broken(x) for x in designs.astype(np.float64)], np.float64)
    k = len(designs)
    unique = float((1.0 / copies(designs)).mean())
    out = [share("valid", valid, by), Measurement("unique", unique, "1", k, higher_is_better=True, by=by)]
    if k > 1:
        ones = designs.sum(axis=0, dtype=np.float64)
        apart = float((2 * ones * (k - ones)).sum() / (k * (k - 1)))
        out.append(Measurement("Hamming", apart, "entries", k, by=by))
    return out


def _compiled(options: ModelOptions) -> tuple[PyomoProblem, list[str]]:
    """The model, and the names of the entries that take costs."""
    model = load_model(options.pyomo)
    indexed = [v.name for v in model.component_objects(pyo.Var, active=True) if v.is_indexed()]
    if options.costs is None and len(indexed) != 1:
        raise InvalidInput(
            f"the model has {len(indexed)} indexed Vars: {', '.join(indexed) or 'none'}",
            where="model.costs",
            hint=f"say which one takes the costs: model.costs={indexed[0]}"
            if indexed
            else "index the decisions by a Set",
        )
    problem = compile_pyomo(model, options.costs or indexed[0])
    n, milp = problem.n, problem.milp()
    names = [str(v.name) for v in problem.variables[:n]]
    low, high = milp.col_lower[:n], milp.col_upper[:n]
    fixed = (low == high) & np.isin(low, (0.0, 1.0))
    wrong = np.flatnonzero(~fixed & ~(milp.integer[:n] & (low >= 0) & (high <= 1)))
    if len(wrong):
        raise InvalidInput(
            f"the Var that takes the costs must be binary, {names[wrong[0]]} is not",
            where="model.costs",
            hint=f"indexed: {', '.join(indexed)}; choose another one with model.costs=NAME, or make it binary",
        )
    return problem, names


def _designs(path: Path, n: int) -> Floats:
    """The designs `[N, n]` to learn from."""
    try:
        data = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"no array can be read from {path}: {error}", where="data.path", hint="np.save a [N, n] array"
        ) from error
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != n or len(data) < 2:
        shape = list(data.shape) if isinstance(data, np.ndarray) else "several arrays"
        raise DataError(
            f"{path} holds {shape}, designs of this model are [N, {n}] with N >= 2",
            where="data.path",
            hint="one row a design, entries in the order of the Var's index set",
        )
    if not np.isin(data, (0, 1)).all():
        raise DataError(f"{path} holds numbers other than 0 and 1", where="data.path", hint="round it")
    return np.asarray(data, np.float64)


def _refuse(problem: PyomoProblem, solver: Any, limit: float) -> None:
    """Raise the InvalidInput that names constraints in conflict."""
    if solver.solve(problem.instance(), time_limit_s=limit).status == "infeasible":
        found = conflict(problem, time_limit_s=limit)
        raise InvalidInput(
            f"no design meets the constraints of the model: {' and '.join(found.rows) or 'its bounds'} are in conflict",
            where="model.pyomo",
            hint="loosen one of them" + ("" if found.status == "minimal" else "; perhaps fewer are in conflict"),
        )


def _random(problem: PyomoProblem, solver: Any, costs: Floats, limit: float) -> Floats:
    """As many designs under random costs, `[k, n]`: what the rules alone give."""
    random = np.random.default_rng(0).normal(size=costs.shape)
    batch = solver.solve_costs(problem.instance(), random, time_limit_s=limit)
    found: Floats = batch.x[batch.found]
    return found
