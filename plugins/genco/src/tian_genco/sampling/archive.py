"""An archive over two measures: of each cell the design that took the generator least out of its way (MAP-Elites).

Quality is the objective increase: what a design costs beyond the cheapest level under the same noise. Cells that no
sample falls into are solved for, under the noise whose design lies nearest; a cell that no level at all falls into is
proven empty. Source of the idea: Mouret and Clune, arXiv 1504.04909; exact filling is ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from tian.errors import InvalidInput
from tian_genco.levels.language import parse_rules
from tian_genco.levels.rule_kinds import Count, Distance
from tian_genco.levels.ruled_checker import rule_offence
from tian_genco.levels.tiles import to_grid
from tian_genco.solving.diverse import Extended

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tian.runs.rundir import Run
    from tian.spec import Solver
    from tian_genco.levels.rules import LevelRules
    from tian_genco.problem import Floats
    from tian_genco.sampling.options import ArchiveOptions

State = Literal["sampled", "solved", "infeasible", "timeout", "empty"]


class Measure:
    """A number of a level: a sum of tile counts or a distance.

    Args:
        text: as in the tile language, left of its comparison.
        base: size of the levels.

    Raises:
        InvalidInput: neither a sum of counts with whole factors nor a distance.
    """

    def __init__(self, text: str, base: LevelRules) -> None:
        self.text, self.base = text, base
        rules = parse_rules([f"{text} >= 0"], base).level.rules
        rule = rules[0] if rules else None
        whole = isinstance(rule, Count) and all(float(c).is_integer() for _, c in rule.terms)
        if not (whole or isinstance(rule, Distance)):
            raise InvalidInput(
                f"measure {text!r} is neither a distance nor a sum of counts with whole factors",
                where="archive.measures",
                hint="for instance count(wall), count(enemy), dist(player,key), dist_path(player,door)",
            )
        self.rule: Count | Distance = rule  # type: ignore[assignment]  # the check above says so

    def of(self, grid: NDArray[np.uint8]) -> int:
        """Its value for `grid [H, W]`, a valid level."""
        rows, rule = grid.tolist(), self.rule
        if isinstance(rule, Count):
            total = sum(factor * sum(row.count(tile) for row in rows) for tile, factor in rule.terms)
            return round(float(total) - rule.lower)
        within = (replace(rule, lower=-np.inf, upper=v) for v in range(grid.size))
        return next(v for v, limit in enumerate(within) if not rule_offence(limit, rows))

    def between(self, low: int, high: int) -> list[str]:
        """Rules that its value is within."""
        return [f"{self.text} >= {low}", f"{self.text} <= {high}"]


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        ranges: least and largest value of each measure.
        state: `sampled`, `solved` (by asking for it), `infeasible` (proven empty), `timeout` or `empty` (not asked).
        grid: `[H, W]` uint8, or None.
        increase: objective beyond the cheapest level under the same noise, NaN without a grid.
    """

    ranges: tuple[tuple[int, int], tuple[int, int]]
    state: State
    grid: NDArray[np.uint8] | None = None
    increase: float = float("nan")


@dataclass(frozen=True)
class Samples:
    """Levels to sort in: `grids [m, H, W]`, their `costs [m, n]`, and the `least [m]` objectives without rules."""

    grids: NDArray[np.uint8]
    costs: Floats
    increase: Floats
    least: Floats


def bins_of(low: int, high: int, count: int) -> list[tuple[int, int]]:
    """At most `count` ranges of whole numbers, equally wide but for the last, that cover `low` to `high`.

    Example:
        >>> bins_of(3, 9, 3)
        [(3, 5), (6, 8), (9, 9)]
    """
    width = -(-(high - low + 1) // count)
    return [(a, min(a + width - 1, high)) for a in range(low, high + 1, width)]


def fill_archive(
    samples: Samples,
    options: ArchiveOptions,
    rules: Sequence[str],
    base: LevelRules,
    *,
    solver: Solver,
    time_limit_s: float,
    run: Run,
) -> list[list[Cell]]:
    """Sort samples into cells, and solve for cells without any.

    Args:
        samples: that obey the rules.
        options: measures, numbers of bins and ranges; values outside the ranges are in no cell.
        rules: the user's.
        base: rules of every level.
        solver: takes kind `milp`.
        time_limit_s: of each solve.
        run: for progress.

    Returns:
        Cells by bin of the first measure, then of the second.
    """
    measures = [Measure(str(text), base) for text in options.measures]
    values = np.array([[m.of(grid) for m in measures] for grid in samples.grids], np.int64)
    low = options.low or values.min(axis=0).tolist()
    high = options.high or values.max(axis=0).tolist()
    bins = [bins_of(low[k], high[k], options.bins[k]) for k in (0, 1)]
    out: list[list[Cell]] = []
    with run.progress(len(bins[0]) * len(bins[1]), "archive") as bar:
        for first in bins[0]:
            out.append([])
            for second in bins[1]:
                cell = _best(samples, values, (first, second))
                if cell.state == "empty" and options.fill:
                    cell = _solved(samples, values, cell, measures, rules, base, solver, time_limit_s)
                out[-1].append(cell)
                bar.advance(1)
    return out


def _best(samples: Samples, values: NDArray[np.int64], ranges: tuple[tuple[int, int], tuple[int, int]]) -> Cell:
    low, high = np.array(ranges).T
    inside = np.flatnonzero(((values >= low) & (values <= high)).all(axis=1))
    if not len(inside):
        return Cell(ranges, "empty")
    best = inside[samples.increase[inside].argmin()]
    return Cell(ranges, "sampled", samples.grids[best], float(samples.increase[best]))


def _solved(
    samples: Samples,
    values: NDArray[np.int64],
    cell: Cell,
    measures: Sequence[Measure],
    rules: Sequence[str],
    base: LevelRules,
    solver: Solver,
    time_limit_s: float,
) -> Cell:
    """The cell solved for, under the noise of the sample nearest to it (in spreads of the measures)."""
    low, high = np.array(cell.ranges).T
    off = np.maximum(np.maximum(low - values, values - high), 0) / np.maximum(np.ptp(values, axis=0), 1)
    near = int(off.sum(axis=1).argmin())
    lines = [*rules, *(line for m, (a, b) in zip(measures, cell.ranges, strict=True) for line in m.between(a, b))]
    problem = Extended.of(parse_rules(lines, base).level)
    answer = solver.solve(problem.instance(samples.costs[near]), time_limit_s=time_limit_s)
    if answer.x is None:
        return replace(cell, state="infeasible" if answer.status == "infeasible" else "timeout")
    grid = to_grid(answer.x, base.height, base.width)
    return replace(cell, state="solved", grid=grid, increase=float(answer.objective - samples.least[near]))
