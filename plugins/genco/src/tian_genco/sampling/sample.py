"""Recipe `genco/sample`: designs of a trained generator under rules it has never seen, without training again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tian.config.compose import options_of
from tian.errors import RunError
from tian.types import Measurement
from tian_genco.learn.measures import copies, pattern_jsd
from tian_genco.learn.pipeline import share
from tian_genco.learn.task import repair_costs, solve_all
from tian_genco.levels.language import parse_rules
from tian_genco.levels.tiles import TILES, to_grid
from tian_genco.sampling.archive import Samples, fill_archive
from tian_genco.sampling.conflicts import refuse
from tian_genco.sampling.draw import Drawn, draw
from tian_genco.sampling.held_out import HELD_OUT, VERSION
from tian_genco.sampling.record import cells_of, save_levels
from tian_genco.sampling.source import load_source, train_source
from tian_genco.sampling.tamper import found_out
from tian_genco.solving.diverse import Extended

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tian.runs.rundir import Run
    from tian.spec import SolutionBatch
    from tian_genco.problem import Floats
    from tian_genco.sampling.options import SamplingOptions
    from tian_genco.sampling.source import Source

RESULTS, ARCHIVE = "results.json", "archive.npz"
REFERENCE_SEED = 2**16  # offset: the designs patterns are compared with come from other noise


def sample(cfg: Any, run: Run) -> list[Measurement]:
    """See `SamplingOptions`. A resumed run draws the same designs again.

    Raises:
        DataError: no trained generator in the source. InvalidInput: a line that is no rule, or rules that no level
        meets together, the fewest of them named. RunError: no solve ended with a design.
    """
    options: SamplingOptions = options_of(cfg)
    torch.set_num_threads(options.threads)
    sampler = Sampler(
        load_source(Path(options.from_)) if options.from_ else train_source(options.train, run), options, run
    )
    if options.held_out:
        return held_out(sampler)
    found = sampler.under(options.constraint, options.min_hamming, run.path)
    measured = sampler.measure(found, by={"designs": "ours"})
    if options.tamper.n:
        noticed = found_out(
            found.drawn,
            cells_of(sampler.base),
            n=options.tamper.n,
            checks=options.tamper.checks,
            seed=sampler.seed,
            run=run,
        )
        measured.append(share("forgeries found out", noticed.astype(np.float64), {"designs": "ours"}))
    results = {**sampler.about(found), "rules": options.constraint, "min_hamming": found.min_hamming}
    if options.archive.measures:
        results["archive"] = sampler.archive(found)
    run.write_json(RESULTS, results)
    return [*measured, *sampler.floor()]


@dataclass(frozen=True)
class Found:
    """Designs under some rules.

    Attributes:
        lines: the rules.
        level: checks them in plain Python.
        drawn: answers, those left out by `dedupe` gone.
        grids: `[k, H, W]` the designs among them.
        increase: `[k]` objective beyond the cheapest level under the same noise.
        min_hamming: cells in which they differ at least.
        repeated: designs left out.
        digest: of their certificates.
    """

    lines: Sequence[str]
    level: Any
    drawn: Drawn
    grids: NDArray[np.uint8]
    increase: Floats
    min_hamming: int
    repeated: int
    digest: str


class Sampler:
    """Costs of a generator, and designs under any rules.

    Args:
        source: the generator.
        options: of the run.
        run: its directory; its config gives the seed.
    """

    def __init__(self, source: Source, options: SamplingOptions, run: Run) -> None:
        self.source, self.options, self.run = source, options, run
        self.base = source.rules
        self.seed = int(run.config.seed)
        self.solver = run.load("solver", options.solver)
        self.oracle = run.load("solver", options.oracle)
        self.costs = source.costs(options.n, seed=self.seed)
        self.free = self._free(self.costs, "designs without the rules")
        if options.costs == "repair":
            self.costs = repair_costs(source.head, self._grids(self.free))
            self.free = self._free(self.costs, "the same as designs to repair")
        others = source.costs(options.reference, seed=REFERENCE_SEED + self.seed)
        self.reference = self._grids(self._free(others, "designs to compare with"))

    def _free(self, costs: Floats, desc: str) -> SolutionBatch:
        limit = self.options.time_limit_s
        return solve_all(self.oracle, self.base, costs, time_limit_s=limit, run=self.run, desc=desc)

    def _grids(self, batch: SolutionBatch) -> NDArray[np.uint8]:
        return to_grid(batch.x[batch.found], self.base.height, self.base.width)

    def under(self, lines: Sequence[str], min_hamming: int, folder: Path) -> Found:
        """Designs under rules; their record goes to `folder`."""
        request = parse_rules(lines, self.base)
        level = request.level if request.level.rules else self.base
        apart = max(min_hamming, request.hamming)
        limit = self.options.time_limit_s
        drawn = draw(
            Extended.of(level if self.options.enforce else self.base),
            self.costs,
            solver=self.solver,
            time_limit_s=limit,
            run=self.run,
            free=self.free,
            min_hamming=apart,
            cells=cells_of(self.base),
        )
        if "infeasible" in drawn.batch.status and not drawn.exhausted:
            refuse(lines, self.base, solver=self.solver, time_limit_s=limit)
        if not drawn.batch.found.any():
            raise RunError(
                f"none of {len(drawn.costs)} solves ended with a design: {dict(Counter(drawn.batch.status))}",
                where=f"time_limit_s={limit:g}",
                hint="raise time_limit_s",
            )
        kept = np.arange(len(drawn.costs))
        if self.options.dedupe:
            _, first = np.unique(drawn.batch.x, axis=0, return_index=True)
            kept = kept[np.isin(kept, first) | ~drawn.batch.found]
        repeated = len(drawn.costs) - len(kept)
        drawn = drawn.take(kept)
        kept_rules = lines if self.options.enforce else ()
        digest = save_levels(folder, drawn, self.base, rules=kept_rules, min_hamming=apart)
        found = drawn.batch.found
        increase = (drawn.batch.objective - self.free.objective[kept])[found]
        grids = self._grids(drawn.batch)
        return Found(lines, level, drawn, grids, increase, apart, repeated, digest)

    def measure(self, found: Found, *, by: dict[str, str]) -> list[Measurement]:
        """What the designs are worth."""
        batch, grids = found.drawn.batch, found.grids
        x = batch.x[batch.found]
        valid = np.array([not found.level.broken(row) for row in x], np.float64)
        out = [
            share("valid", valid, by),
            Measurement("designs", len(grids), "1", 1, by=by),
            Measurement("unique", float((1.0 / copies(grids)).mean()), "1", len(grids), None, True, by),  # noqa: FBT003
            self.jsd(grids, by),
            _mean("objective increase", found.increase, by, unit="RMS"),
            _mean("time per design", batch.seconds[batch.found], by, unit="s"),
        ]
        timeouts = batch.status.count("timeout")
        if timeouts:
            out.append(Measurement("timeouts", timeouts, "1", len(batch), higher_is_better=False, by=by))
        least = float(_distances(grids).min(initial=grids[0].size))
        out.append(Measurement("least distance", least, "cells", len(grids), higher_is_better=True, by=by))
        if found.min_hamming:
            out.append(Measurement("no more exist", float(found.drawn.exhausted), "1", 1, by=by))
        return out

    def jsd(self, grids: NDArray[np.uint8], by: dict[str, str]) -> Measurement:
        """How far the patterns are from those of the same generator without the rules."""
        value = pattern_jsd(grids, self.reference, len(TILES))
        return Measurement("pattern JSD over unconstrained", value, "bit", len(grids), higher_is_better=False, by=by)

    def floor(self) -> list[Measurement]:
        """The same of as many designs without the rules: what chance alone gives."""
        by = {"designs": "without the rules"}
        seconds = _mean("time per design", self.free.seconds, by, unit="s")
        return [self.jsd(self._grids(self.free), by), seconds]

    def about(self, found: Found) -> dict[str, Any]:
        """What the report says beside the measures."""
        batch = found.drawn.batch
        ways = [f"{route or 'solver'}, {s}" for route, s in zip(batch.route, batch.status, strict=True)]
        return {
            "source": self.options.from_ or "trained in this run",
            "asked": self.options.n,
            "designs": len(found.grids),
            "routes": dict(sorted(Counter(ways).items())),
            "exhausted": found.drawn.exhausted,
            "repeated": found.repeated,
            "digest": found.digest,
        }

    def archive(self, found: Found) -> dict[str, Any]:
        """Fill the archive; its levels go to `archive.npz`, the rest is returned."""
        batch = found.drawn.batch
        costs = found.drawn.costs[batch.found]
        least = batch.objective[batch.found] - found.increase
        cells = fill_archive(
            Samples(found.grids, costs, found.increase, least),
            self.options.archive,
            found.lines,
            self.base,
            solver=self.solver,
            time_limit_s=self.options.time_limit_s,
            run=self.run,
        )
        places = [(i, j) for i, row in enumerate(cells) for j, c in enumerate(row) if c.grid is not None]
        grids = [cells[i][j].grid for i, j in places]
        np.savez_compressed(self.run.path / ARCHIVE, designs=np.array(grids), places=np.array(places))
        plain = [
            [{"ranges": c.ranges, "state": c.state, "increase": None if c.grid is None else c.increase} for c in row]
            for row in cells
        ]
        return {"measures": self.options.archive.measures, "cells": plain}


def held_out(sampler: Sampler) -> list[Measurement]:
    """Every set of `HELD_OUT`, one after the other; records go to `held_out/SET/`."""
    out: list[Measurement] = []
    results = []
    for k, lines in enumerate(HELD_OUT):
        sampler.run.info(f"set {k + 1} of {len(HELD_OUT)}: {'; '.join(lines)}")
        found = sampler.under(lines, 0, sampler.run.path / "held_out" / f"{k + 1:02}")
        out += sampler.measure(found, by={"rules": "; ".join(lines)})
        results.append({**sampler.about(found), "rules": list(lines)})
    sampler.run.write_json(
        RESULTS, {"held_out": results, "version": VERSION, "source": sampler.options.from_ or "trained in this run"}
    )
    by = {"rules": "held-out"}
    value = {name: np.array([m.value for m in out if m.name == name]) for name in ("valid", JSD, "time per design")}
    designs = sum(m.n for m in out if m.name == "valid")
    good = np.repeat(value["valid"], [m.n for m in out if m.name == "valid"])
    low = share("valid under held-out rules", (good == 1.0).astype(np.float64), by)
    mean_valid = Measurement(low.name, float(good.mean()), "1", designs, low.ci95, higher_is_better=True, by=by)
    floor = sampler.floor()[0]
    return [
        *out,
        mean_valid,
        _mean(JSD, value[JSD], by, unit="bit"),
        Measurement(f"largest {JSD}", float(value[JSD].max()), "bit", len(HELD_OUT), higher_is_better=False, by=by),
        _mean("time per design", value["time per design"], by, unit="s"),
        Measurement(floor.name, floor.value, floor.unit, floor.n, None, False, {"rules": "none"}),  # noqa: FBT003
    ]


JSD = "pattern JSD over unconstrained"


def _mean(name: str, values: Floats, by: dict[str, str], *, unit: str) -> Measurement:
    """A mean that better is low, with its normal interval."""
    half = 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0
    mean = float(values.mean())
    interval = (mean - half, mean + half) if len(values) > 1 else None
    return Measurement(name, mean, unit, len(values), interval, higher_is_better=False, by=by)


def _distances(grids: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Cells in which each pair of designs differs."""
    flat = grids.reshape(len(grids), -1)
    parts = [(flat[i] != flat[i + 1 :]).sum(axis=1) for i in range(len(flat) - 1)]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
