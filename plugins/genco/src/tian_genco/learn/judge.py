"""All measures of a set of samples, beside the row of data against data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tian.errors import InvalidInput
from tian.types import Measurement
from tian_genco.learn import measures
from tian_genco.learn.critic import critic_accuracy
from tian_genco.learn.energy import energy_distance
from tian_genco.learn.match import features_of, fitted_features

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tian.runs.rundir import Run
    from tian.training.options import TrainerOptions
    from tian_genco.learn.designs import Layout
    from tian_genco.learn.options import EvalOptions

HELD_OUT = 7919  # seed of the filters no training sees
HINT = (
    "Density and coverage alone mislead: in one-hot space a single repeated design once reached coverage 0.46 and density "
    "93, and repair with random ties turned 28 % unique designs into 100 %. Read the columns together, and beside the row "
    "of data against data."
)


@dataclass(frozen=True)
class Judge:
    """Measures sets of designs against reference designs no training has seen.

    Attributes:
        layout: of the designs.
        train: `[n, H, W]` designs the generator has seen: for novelty and the critic.
        reference: `[R, H, W]` designs of the same kind it has not seen.
        unique: tiles of which a design has one each.
        options: of the evaluation.
    """

    layout: Layout
    train: NDArray[np.uint8]
    reference: NDArray[np.uint8]
    unique: list[int]
    options: EvalOptions

    def __post_init__(self) -> None:
        if self.options.k >= len(self.reference):
            raise InvalidInput(
                f"eval.k={self.options.k} neighbours need more than {len(self.reference)} reference designs",
                where="eval.k",
                hint=f"set eval.k={max(1, len(self.reference) // 10)}, or give more designs",
            )

    def numbers(self, grids: NDArray[np.uint8]) -> dict[str, NDArray[np.float64] | float]:
        """Measures of `grids [n, H, W]`: arrays `[n]` of one number a design, or one number of the set."""
        tiles = self.layout.tiles
        density, coverage = measures.density_coverage(grids, self.reference, tiles, self.options.k)
        features = fitted_features(self.layout, self.reference, unique=self.unique, seed=HELD_OUT)
        energy = energy_distance(
            features_of(features, self.layout, grids),
            features_of(features, self.layout, self.reference),
            features.sizes,
        )
        return {
            "unique": 1.0 / measures.copies(grids),
            "novel": measures.novel(grids, self.train).astype(np.float64),
            "Hamming": measures.mean_hamming(grids, tiles),
            "energy distance": float(energy),
            "pattern JSD": measures.pattern_jsd(grids, self.reference, tiles),
            "density": density,
            "coverage": coverage,
        }

    def measure(
        self, grids: NDArray[np.uint8], *, by: dict[str, str], run: Run, trainer: TrainerOptions, seed: int, part: str
    ) -> list[Measurement]:
        """The same as measurements, and the accuracy of a critic trained afterwards.

        Intervals are over designs (normal); numbers of the whole set have none here, they get one over seeds.
        """
        grids = grids[: self.options.most]
        out = [_measurement(name, value, len(grids), by) for name, value in self.numbers(grids).items()]
        if self.options.critic_steps:
            real, fake = (self.planes(g[: len(grids)]) for g in (self.train, grids))
            accuracy, n = critic_accuracy(
                real, fake, steps=self.options.critic_steps, trainer=trainer, run=run, seed=seed, part=part
            )
            half = 1.96 * (accuracy * (1 - accuracy) / n) ** 0.5
            interval = (accuracy - half, accuracy + half)
            out.append(Measurement("critic accuracy", accuracy, "1", n, interval, higher_is_better=False, by=by))
        return out

    def planes(self, grids: NDArray[np.uint8]) -> Any:
        """`[n, T, H, W]` float32 one-hot tensors."""
        return self.layout.planes(torch.from_numpy(self.layout.x(grids)).float())


BETTER = {"unique": True, "novel": True, "energy distance": False, "pattern JSD": False}
UNITS = {"Hamming": "cells", "pattern JSD": "bit"}


def _measurement(name: str, value: NDArray[np.float64] | float, n: int, by: dict[str, str]) -> Measurement:
    unit, better = UNITS.get(name, "1"), BETTER.get(name)
    if isinstance(value, float):
        return Measurement(name, value, unit, n, None, better, by)
    mean, half = float(value.mean()), 1.96 * float(value.std()) / len(value) ** 0.5
    return Measurement(name, mean, unit, n, (mean - half, mean + half), better, by)
