"""How many forged certificates are found out: one cell of a design changed, everything that can be computed made to fit."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from tian_genco.solving.certificate import SUMMARY, Certificate, certify, verify, write

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tian.runs.rundir import Run
    from tian_genco.sampling.draw import Drawn


def forged(
    c: Certificate, cost: NDArray[np.float64], cells: NDArray[np.int64], rng: np.random.Generator
) -> Certificate:
    """`c` with another tile in one cell, and the objective and gap that go with it.

    Args:
        c: a certificate with a design.
        cost: `[n]` it was solved under.
        cells: `[cells, tiles]` columns of each cell.
        rng: chooses cell and tile.
    """
    x = np.array(c.x)
    cell = cells[rng.integers(len(cells))]
    held = int(x[cell].argmax())
    other = int((held + 1 + rng.integers(len(cell) - 1)) % len(cell))
    x[cell[held]], x[cell[other]] = 0.0, 1.0
    objective = float(cost @ x)
    gap = (objective - c.bound) / max(1.0, abs(objective))
    return replace(c, x=tuple(x.tolist()), objective=objective, gap=gap)


def found_out(
    drawn: Drawn, cells: NDArray[np.int64], *, n: int, checks: Literal["all", "chain"], seed: int, run: Run
) -> NDArray[np.bool_]:
    """`[n]`: whether each of n forgeries is noticed, though the forger writes all digests anew.

    Args:
        drawn: answers with a design each.
        cells: `[cells, tiles]` columns of each cell.
        n: forgeries, of designs drawn at random.
        checks: `all` that `genco/verify` does; `chain`: the digests alone, which the forger has seen to.
        seed: of the choices.
        run: shows progress.
    """
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(drawn.batch.found)
    known: dict[int, Certificate] = {}
    out = []
    with run.progress(n, "forgeries") as bar, tempfile.TemporaryDirectory() as scratch:
        for row in rng.choice(rows, size=n).tolist():
            part = drawn.take(np.array([row]))
            if row not in known:
                (known[row],) = certify(part.problems[0], part.costs, part.batch)
            write(Path(scratch), [forged(known[row], part.costs[0], cells, rng)])
            wrong = verify(Path(scratch), part.problems[0], part.costs)
            out.append(bool(_of_chain(wrong) if checks == "chain" else wrong))
            bar.advance()
    return np.array(out, bool)


def _of_chain(wrong: Sequence[str]) -> list[str]:
    return [text for text in wrong if "chain" in text or text.startswith(SUMMARY)]
