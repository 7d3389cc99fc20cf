"""Recipe `genco/agreement`: does an exact solver of levels find what a general one finds, and in what CPU time?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tian.config.compose import options_of
from tian.errors import RunError
from tian.runs.files import append_jsonl, read_jsonl
from tian.types import Measurement
from tian_genco.learn.pipeline import share
from tian_genco.levels.rules import LevelRules
from tian_genco.levels.tiles import EMPTY, TILES, WALL, to_x

if TYPE_CHECKING:
    from tian.runs.rundir import Run
    from tian.spec import Solver
    from tian_genco.agreement_options import AgreementOptions
    from tian_genco.problem import Floats

FILE = "agreement.jsonl"
# HiGHS stops at an absolute gap of 1e-6 and cuts off nodes that are better by less. Both solvers are given the costs
# times this power of two, which changes no digit of them, so that what is compared can differ by 1e-9 only.
SCALE = 2.0**10
WORSE = 1e-9  # relative; an objective above the other one by more counts as worse
JITTER = 1e-6  # on one-hot costs, which are full of ties
SHARES = (0.35, 0.55, 0.01, 0.01, 0.03, 0.02, 0.02, 0.01)  # of the tiles in one-hot costs; of real levels, roughly
UNNAMED = "solver"  # route of a solver that names none
STATISTICS = {"first quartile": 0.25, "median": 0.5, "third quartile": 0.75, "worst": 0.0}


def draw_cost(kind: str, height: int, width: int, rng: np.random.Generator) -> Floats:
    """A cost `[8*height*width]` float64.

    Args:
        kind: `soft`, minus probabilities of tiles, floor and wall the likely ones; `one-hot`, minus the tiles of a
            random grid, jittered by up to 1e-6; `gaussian`, under which most levels want more enemies than allowed.
        height: rows.
        width: columns.
        rng: where randomness comes from.
    """
    shape = (len(TILES), height, width)
    if kind == "gaussian":
        return rng.standard_normal(shape).reshape(-1)
    if kind == "one-hot":
        grid = rng.choice(len(TILES), size=(height, width), p=SHARES).astype(np.uint8)
        return JITTER * rng.random(len(TILES) * height * width) - to_x(grid)
    logits = rng.standard_normal(shape)
    logits[[EMPTY, WALL]] += 2.0
    p = np.exp(logits)
    soft: Floats = -(p / p.sum(axis=0)).reshape(-1)
    return soft


def agreement(cfg: Any, run: Run) -> list[Measurement]:
    """See `AgreementOptions`. Instances that were solved are read from the run directory when it is resumed."""
    options: AgreementOptions = options_of(cfg)
    solver, against = run.load("solver", options.solver), run.load("solver", options.against)
    return compare(solver, against, options, run, seed=int(cfg.seed))


def compare(solver: Solver, against: Solver, options: AgreementOptions, run: Run, *, seed: int) -> list[Measurement]:
    """Solve every instance with both, written to the run directory one by one.

    Raises:
        RunError: a solver left an instance without an answer.
    """
    rows = read_jsonl(run.path / FILE)[: options.n]
    warm: set[LevelRules] = set()
    with run.progress(options.n, "instances (random costs)", done=len(rows)) as bar:
        for i in range(len(rows), options.n):
            rules, _, cost = instance_of(i, options, seed)
            if rules not in warm:  # compiling, once a size, is no part of a solve
                warm.add(rules)
                for one in (solver, against):
                    one.solve(rules.instance(cost), time_limit_s=options.time_limit_s)
            rows.append(measure(i, solver, against, options, seed))
            append_jsonl(run.path / FILE, rows[-1])
            bar.advance()
    return measurements(rows)


def instance_of(i: int, options: AgreementOptions, seed: int) -> tuple[LevelRules, str, Floats]:
    """Rules, kind and cost of instance i, which depend on the options, the seed and i alone."""
    kinds, sizes = options.kinds, options.sizes
    kind, (height, width) = kinds[i % len(kinds)], sizes[i // len(kinds) % len(sizes)]
    return LevelRules(height, width), kind, draw_cost(kind, height, width, np.random.default_rng([seed, i]))


def measure(i: int, solver: Solver, against: Solver, options: AgreementOptions, seed: int) -> dict[str, Any]:
    """One row: both solve instance i, in an order that is drawn.

    Objectives are computed here, from x and the cost, not taken from the solvers.
    """
    rules, kind, cost = instance_of(i, options, seed)
    pair, xs, seconds, routes = (solver, against), [np.zeros(0)] * 2, [0.0] * 2, [""] * 2
    for k in np.random.default_rng([seed, i, 1]).permutation(2):
        start = time.process_time()
        batch = pair[k].solve_costs(rules.instance(), SCALE * cost[None], time_limit_s=options.time_limit_s)
        seconds[k] = time.process_time() - start
        if not batch.found[0]:
            raise RunError(
                f"{type(pair[k]).__name__} left instance {i} without an answer: {batch.status[0]}",
                where=f"{kind} costs, {rules.height} x {rules.width} cells, seed {seed}",
                hint="raise time_limit_s",
            )
        xs[k], routes[k] = batch.x[0], batch.route[0]
    ours, other = (float(cost @ x) for x in xs)
    return {
        "kind": kind,
        "size": f"{rules.height}x{rules.width}",
        "difference": (ours - other) / max(1.0, abs(other)),
        "broken": [rules.broken(x) for x in xs],
        "route": routes[0],
        "seconds": seconds,
    }


def groups(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Rows by kind of costs and route, `all` and `any` included; a group without rows is left out."""
    out: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        for kind in ("all", row["kind"]):
            for route in ("any", row["route"] or UNNAMED):
                out.setdefault((kind, route), []).append(row)
    return dict(sorted(out.items()))


def ratios(rows: Sequence[dict[str, Any]]) -> Floats:
    """CPU time of the other solver over that of the solver under test, one entry a row."""
    seconds = np.array([row["seconds"] for row in rows])
    out: Floats = seconds[:, 1] / np.maximum(seconds[:, 0], 1e-9)
    return out


def measurements(rows: Sequence[dict[str, Any]]) -> list[Measurement]:
    """Differences, shares and ratios of each group; shares have Wilson intervals, medians those of order statistics.

    `route` says how the solver under test found its answers; those of the oracle's route `mip` are HiGHS's own.
    """
    out, found = [], groups(rows)
    for (kind, route), group in found.items():
        by, n = {"costs": kind, "route": route, "data": "random"}, len(group)
        difference, x = np.array([row["difference"] for row in group]), ratios(group)
        here = np.array([route in ("any", row["route"] or UNNAMED) for row in found[kind, "any"]], np.float64)
        valid = np.array([row["broken"][0] == "" for row in group], np.float64)
        out += [
            Measurement("largest difference", float(np.abs(difference).max()), "1", n, higher_is_better=False, by=by),
            replace(share("share above", (difference > WORSE).astype(np.float64), by), higher_is_better=False),
            replace(share("share below", (difference < -WORSE).astype(np.float64), by), higher_is_better=None),
            share("share valid", valid, by),
            replace(share("share of answers", here, by), higher_is_better=None),
        ]
        for name, at in STATISTICS.items():
            interval = _median_interval(x) if name == "median" else None
            measure_name = f"against over solver, CPU time, {name}"
            out.append(
                Measurement(measure_name, float(np.quantile(x, at)), "1", n, interval, higher_is_better=True, by=by)
            )
    return out


def _median_interval(x: Floats) -> tuple[float, float] | None:
    """95 % interval of the median from order statistics; None for fewer than 6 values."""
    from scipy.stats import binom

    rank = int(binom.ppf(0.025, len(x), 0.5))
    ordered = np.sort(x)
    return (float(ordered[rank - 1]), float(ordered[len(x) - rank])) if rank else None
