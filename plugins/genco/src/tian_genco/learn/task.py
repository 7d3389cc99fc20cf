"""What a run is about: rules, data and the way designs are written; and what comes of a generator for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tian.spec import SolutionBatch
from tian_genco.learn.judge import Judge

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from tian.runs.rundir import Run
    from tian.spec import Solver
    from tian_genco.learn.designs import Layout
    from tian_genco.learn.generator import TileGenerator
    from tian_genco.learn.match import CostHead
    from tian_genco.learn.options import EvalOptions
    from tian_genco.problem import Problem

CHUNK = 50  # designs between two steps of the progress bar
SAMPLE_SEED = 2**20  # offset: samples never repeat the noise of training


@dataclass(frozen=True)
class Task:
    """Rules and data.

    Attributes:
        problem: the rules.
        layout: of its designs.
        train: `[n, H, W]` uint8 designs to learn from.
        reference: `[R, H, W]` designs to be compared with.
        unique: tiles of which a design has one each.
        label: where the designs come from, for reports.
        title: what the designs are, in the plural.
        gallery: grids and captions -> inline SVG.
        record: folder, costs and answers -> the designs with their certificates, written into the folder;
            None: designs alone.
    """

    problem: Problem
    layout: Layout
    train: NDArray[np.uint8]
    reference: NDArray[np.uint8]
    unique: list[int]
    label: str
    title: str
    gallery: Callable[[NDArray[np.uint8], Sequence[str]], str]
    record: Callable[[Path, NDArray[np.float64], SolutionBatch], Any] | None = None

    def judge(self, options: EvalOptions) -> Judge:
        """The measures against the reference designs."""
        return Judge(self.layout, self.train, self.reference, self.unique, options)


@dataclass(frozen=True)
class Samples:
    """Designs of a generator.

    Attributes:
        grids: `[n, H, W]` uint8 the solver's designs; rows without an answer are left out.
        raw: `[n, H, W]` uint8 the most likely tile of each cell, for all rows.
        costs: `[n, n_x]` float64 the solver was given.
        batch: its answers.
    """

    grids: NDArray[np.uint8]
    raw: NDArray[np.uint8]
    costs: NDArray[np.float64]
    batch: SolutionBatch


@torch.no_grad()
def costs_of(net: TileGenerator, head: CostHead, n: int, *, seed: int) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Costs `[n, n_x]` float64 and most likely tiles `[n, H, W]` of n fresh noise vectors."""
    rng = torch.Generator().manual_seed(SAMPLE_SEED + seed)
    costs, raw = [], []
    for start in range(0, n, CHUNK):
        logits = net(*net.draw(min(CHUNK, n - start), rng))
        costs.append(head.final(logits))
        raw.append(logits.argmax(dim=1).to(torch.uint8).numpy())
    return np.concatenate(costs), np.concatenate(raw)


def repair_costs(head: CostHead, grids: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Costs `[k, n_x]` float64 under which the cheapest design changes as few cells as possible of `grids [k, H, W]`."""
    parts = [grids[start : start + CHUNK] for start in range(0, len(grids), CHUNK)]
    x = [torch.from_numpy(head.layout.x(part)).float() for part in parts]
    return np.concatenate([head.final(head.layout.planes(part)) for part in x])


def solve_all(
    solver: Solver, problem: Problem, costs: NDArray[np.float64], *, time_limit_s: float, run: Run, desc: str
) -> SolutionBatch:
    """`solve_costs` in chunks, with a progress bar."""
    instance, parts = problem.instance(), []
    with run.progress(len(costs), desc) as bar:
        for start in range(0, len(costs), CHUNK):
            part = costs[start : start + CHUNK]
            parts.append(solver.solve_costs(instance, part, time_limit_s=time_limit_s))
            bar.advance(len(part))
    return joined(parts)


def joined(parts: Sequence[SolutionBatch]) -> SolutionBatch:
    """Several batches as one."""
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(p, name) for p in parts])
        for name in ("x", "objective", "bound", "found", "seconds")
    }
    return SolutionBatch(
        **arrays,
        status=tuple(s for p in parts for s in p.status),
        route=tuple(r for p in parts for r in p.route),
    )


def draw_samples(
    net: TileGenerator,
    head: CostHead,
    solver: Solver,
    problem: Problem,
    n: int,
    *,
    seed: int,
    time_limit_s: float,
    run: Run,
) -> Samples:
    """Draw n designs: noise, costs, the solver's optimum."""
    costs, raw = costs_of(net, head, n, seed=seed)
    batch = solve_all(solver, problem, costs, time_limit_s=time_limit_s, run=run, desc="designs")
    return Samples(head.layout.grids(batch.x[batch.found]), raw, costs, batch)
