"""Measures of designs in the role of an evaluator: sample by sample, with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tian.errors import DataError
from tian.spec import Evaluator, Sample
from tian.types import Measurement
from tian_genco.learn import measures

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from tian_genco.problem import Problem


def _order(n: int, limit: int | None, seed: int) -> list[int]:
    """The indices of at most `limit` of n samples in the order of the seed."""
    found: list[int] = np.random.default_rng(seed).permutation(n)[:limit].tolist()
    return found


def _mean(rows: Sequence[Mapping[str, float]], units: Mapping[str, str]) -> list[Measurement]:
    """Mean of each number with a normal interval."""
    out = []
    for name in rows[0] if rows else ():
        x = np.array([row[name] for row in rows], np.float64)
        mean, half = float(x.mean()), 1.96 * float(x.std()) / len(x) ** 0.5
        out.append(Measurement(name, mean, units.get(name, "1"), len(x), (mean - half, mean + half), None))
    return out


class ValidityEvaluator(Evaluator):
    """Share of designs that obey the rules; data `x [n, n_x]`, subject the `Problem` with the rules."""

    def samples(self, data: Any, *, limit: int | None, seed: int) -> Iterable[Sample]:
        """The rows of `x [n, n_x]` float, under their index. Raises DataError for anything else."""
        if not isinstance(data, np.ndarray) or data.ndim != 2 or not np.issubdtype(data.dtype, np.floating):
            raise DataError("designs must be an array x [n, n_x] of floats", hint="write grids as x with Layout.x")
        return [Sample(str(i), data[i].copy()) for i in _order(len(data), limit, seed)]

    def measure(self, subject: Problem, sample: Sample) -> Mapping[str, float]:
        """1 for a design that the problem's independent checker accepts."""
        return {"valid": float(not subject.broken(sample.data))}

    def aggregate(self, rows: Sequence[Mapping[str, float]]) -> list[Measurement]:
        """The share."""
        return _mean(rows, {})


class DiversityEvaluator(Evaluator):
    """How designs differ from each other and from known ones.

    Data are grids of tile numbers `[n, H, W]` uint8; the subject is the grids that are known, e.g. those of training.
    What concerns the whole set (copies, mean distance to the others) is found when the samples are listed, so that each
    is then measured on its own.
    """

    def samples(self, data: Any, *, limit: int | None, seed: int) -> Iterable[Sample]:
        """The grids under their index, with copies and mean distance. Raises DataError for anything else."""
        if not isinstance(data, np.ndarray) or data.ndim != 3 or data.dtype != np.uint8 or not data.size:
            raise DataError("designs must be grids [n, H, W] of uint8 tile numbers")
        tiles = int(data.max()) + 1
        copies, apart = measures.copies(data), measures.mean_hamming(data, tiles)
        return [
            Sample(str(i), (data[i].copy(), int(copies[i]), float(apart[i]))) for i in _order(len(data), limit, seed)
        ]

    def measure(self, subject: NDArray[np.uint8], sample: Sample) -> Mapping[str, float]:
        """`unique` (1/copies), `Hamming` (cells, mean over the other designs), `novel`, `nearest` (cells to a known one)."""
        grid, copies, apart = sample.data
        nearest = int((subject != grid).sum(axis=(1, 2)).min())
        return {"unique": 1.0 / copies, "Hamming": apart, "novel": float(nearest > 0), "nearest": float(nearest)}

    def aggregate(self, rows: Sequence[Mapping[str, float]]) -> list[Measurement]:
        """Their means; the mean of `unique` is the number of distinct designs over the number of designs."""
        return _mean(rows, {"Hamming": "cells", "nearest": "cells"})
