"""Options of the grid paths; no torch or numba, so that composing a config stays light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from tian.errors import InvalidInput

Route = Literal["auto", "sweeps", "torch", "scipy"]


@dataclass(frozen=True)
class PathOptions:
    """Options of the solver `grid-path`."""

    route: Route = "auto"  # all give the same paths; auto: sweeps with numba, else torch up to side 24, else scipy

    def __post_init__(self) -> None:
        if self.route not in get_args(Route):
            raise InvalidInput(f"route must be one of {', '.join(get_args(Route))}, got {self.route!r}")


@dataclass(frozen=True)
class TerrainSpec:
    """What terrain looks like: smoothed noise of unit variance, cut into five classes. Source: sheet of arXiv 2310.02442."""

    sigma: float = 1.6  # width of the Gaussian filter, cells; larger is smoother
    cuts: tuple[float, ...] = (-0.6, 0.1, 0.6, 1.1)  # where the next class begins, standard deviations
    costs: tuple[float, ...] = (0.8, 1.2, 5.3, 7.7, 9.2)  # of a cell of grass, earth, forest, water, rock

    def __post_init__(self) -> None:
        if not 0 < self.sigma <= 64:
            raise InvalidInput(f"sigma must be in (0, 64] cells, got {self.sigma}")
        if len(self.cuts) != 4 or list(self.cuts) != sorted(self.cuts):
            raise InvalidInput(f"cuts must be 4 ascending numbers, got {list(self.cuts)}")
        if len(self.costs) != 5 or not all(0 <= c < float("inf") for c in self.costs):
            raise InvalidInput(f"costs must be 5 finite numbers >= 0, got {list(self.costs)}")
