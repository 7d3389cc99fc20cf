"""What samples are steered towards: cheap shortest paths, or cheap cells as the control that needs no solver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tian.errors import InvalidInput
from tian_genco.grad.losses import min_value
from tian_genco.grad.oracle import Oracle

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Objective:
    """A cost of sampled maps, and its weight.

    `path`: the mean cost of their shortest paths. Its gradient with respect to the costs is the path itself (Danskin),
    so the solver is asked once and no estimator is needed. `tile-mean`: `cells` times the mean cost of a cell, which
    is what a path of so many average cells costs; no solver.

    Attributes:
        kind: path or tile-mean.
        weight: > 0, nats of a map for a unit of cost.
        oracle: shortest paths.
        cells: mean number of cells on the shortest path of training maps.

    Source:
        The penalised mode of arXiv 2310.02442; the control is ours.
    """

    kind: str
    weight: float
    oracle: Oracle
    cells: float

    def __call__(self, costs: Tensor) -> Tensor:
        """Mean over maps of the cost of `costs [B, H, W]`, expected or exact, >= 0; a scalar with a gradient, unweighted.

        Raises:
            InvalidInput: another shape, or a cost that is not finite.
        """
        if costs.dim() != 3:
            raise InvalidInput(f"costs of maps are [B, H, W], got shape {list(costs.shape)}")
        if self.kind == "path":
            return min_value(self.oracle, costs.flatten(1)).mean()
        return self.cells * costs.mean()
