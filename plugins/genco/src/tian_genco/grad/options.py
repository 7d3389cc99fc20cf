"""Options of gradients through solvers; no torch, composing a config stays light."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tian.errors import InvalidInput

METHODS = ("two-stage", "spo-plus", "fenchel-young", "blackbox", "imle")
RELAXED = ("qptl", "log-barrier")  # dearer by far: left out unless they are named
GradName = Literal["identity", "blackbox", "perturbed", "imle", "qptl", "log-barrier", "fenchel-young", "spo-plus"]


@dataclass
class GradOptions:
    """How a gradient comes back through a solver."""

    name: GradName = "blackbox"  # fenchel-young and spo-plus are losses and need targets
    lam: float = 0.05  # blackbox, imle: how far the cost moves, in units of its RMS
    sigma: float = 0.1  # perturbed, imle, fenchel-young: size of the noise, in units of the cost's RMS
    samples: int = 4  # perturbed (>= 2), imle, fenchel-young: solves a row
    two_sided: bool = False  # imle: central instead of one-sided differences
    k: int = 10  # imle: entries that are 1 in a typical solution
    gamma: float = 1.0  # qptl: weight of |x|^2 / 2
    mu: float = 0.1  # log-barrier: weight of the barrier
    normalise: bool = True  # costs to unit RMS without what the optimum does not see
    tie_seed: int | None = 0  # seed of the field of 1e-6 that breaks ties alike in every sample; null: none

    def __post_init__(self) -> None:
        for name in ("lam", "sigma", "gamma", "mu"):
            if not getattr(self, name) > 0:
                raise InvalidInput(f"grad.{name} must be > 0, got {getattr(self, name)}")
        for name in ("samples", "k"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"grad.{name} must be >= 1, got {getattr(self, name)}")
        if self.name == "perturbed" and self.samples < 2:
            raise InvalidInput("grad.samples must be >= 2 for perturbed: each sample is the other's baseline")


@dataclass
class LaboratoryOptions:
    """Options of `genco/estimators`: every estimator against the exact gradient of a smoothed loss."""

    side: int = 3  # cells of a side of the square in which objects are placed
    placed: int = 3  # objects placed, one a cell
    sigma: float = 0.3  # size of the noise on costs of unit RMS; the loss is smoothed by it
    points: int = 24  # costs at which gradients are compared; error bars are over them
    repeats: int = 1000  # gradients drawn at each
    lams: list[float] = field(default_factory=lambda: [0.05, 0.3, 1.0, 3.0])  # of blackbox and imle
    samples: list[int] = field(default_factory=lambda: [4, 16])  # of perturbed and the score function, each >= 2
    gamma: float = 1.0  # of qptl
    mu: float = 0.1  # of log-barrier

    def __post_init__(self) -> None:
        cells = self.side**2
        if not 2 <= self.side <= 4:
            raise InvalidInput(f"side must be 2 to 4, for every placement to be listed, got {self.side}")
        if not 1 <= self.placed < cells:
            raise InvalidInput(f"placed must be 1 to {cells - 1}, got {self.placed}")
        if not all(value > 0 for value in (self.sigma, self.gamma, self.mu, *self.lams)):
            raise InvalidInput(
                f"need sigma, gamma, mu and lams > 0, got {self.sigma}, {self.gamma}, {self.mu} and {self.lams}"
            )
        if self.points < 4 or self.repeats < 20:
            raise InvalidInput(f"need points >= 4 and repeats >= 20, got {self.points} and {self.repeats}")
        if not all(count >= 2 for count in self.samples):
            raise InvalidInput(f"samples must be >= 2, got {self.samples}")


@dataclass
class PredictOptions:
    """Options of `genco/predict`: costs of a grid are predicted from features, and a path is chosen by them."""

    size: int = 5  # cells of a side of the grid
    features: int = 5  # numbers a prediction is made from
    degree: int = 6  # of the polynomial behind the costs; from 2 on a linear prediction cannot be right
    spread: float = 0.5  # costs are multiplied by numbers from 1 - spread to 1 + spread
    train: int = 200  # examples to learn from
    test: int = 500  # examples to judge by
    epochs: int = 40  # passes over the examples, the same for every method
    batch: int = 32  # examples a step
    lr: float = 0.02  # of Adam, the same for every method
    seeds: int = 5  # repetitions with other data; the intervals are over them
    methods: list[str] = field(default_factory=lambda: list(METHODS))  # the first is the one others are set against
    lam: float = 4.0  # blackbox, imle: how far the cost moves, in units of its RMS
    sigma: float = 0.5  # fenchel-young, imle: size of the noise, in units of the cost
    samples: int = 4  # fenchel-young, imle: solves an example
    gamma: float = 1.0  # qptl: weight of |x|^2 / 2
    mu: float = 0.1  # log-barrier: weight of the barrier

    def __post_init__(self) -> None:
        if self.size < 2 or self.features < 1 or self.degree < 1:
            raise InvalidInput(
                f"need size >= 2, features >= 1 and degree >= 1, got {self.size}, {self.features} and {self.degree}"
            )
        if not 0 <= self.spread < 1:
            raise InvalidInput(f"spread must be 0 or more and below 1, got {self.spread}")
        for name in ("train", "test", "epochs", "batch", "samples"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.seeds < 2:
            raise InvalidInput(f"seeds must be >= 2, for an interval, got {self.seeds}")
        for name in ("lr", "lam", "sigma", "gamma", "mu"):
            if not getattr(self, name) > 0:
                raise InvalidInput(f"{name} must be > 0, got {getattr(self, name)}")
        known = METHODS + RELAXED
        unknown = sorted(set(self.methods) - set(known))
        if unknown or not self.methods:
            raise InvalidInput(f"methods holds {unknown or 'nothing'}", hint=f"choose of: {', '.join(known)}")
