"""Options of devices; neither torch nor numba, composing a config stays light."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from tian.errors import InvalidInput
from tian.training.options import TrainerOptions
from tian_genco.grad.options import GradOptions
from tian_genco.learn.options import EvalOptions, GeneratorOptions, SampleOptions, TrainOptions, small_trainer
from tian_genco.options import SolveOptions

ARMS = ("postprocess", "through", "through+objective")


@dataclass(frozen=True)
class BrushOptions:
    """Options of `BrushSolver`."""

    max_states: int = 20_000  # states of the dynamic program at a place, beyond which HiGHS takes over

    def __post_init__(self) -> None:
        if self.max_states < 1:
            raise InvalidInput(f"max_states must be >= 1, got {self.max_states}", hint="set solver.max_states=20000")


@dataclass
class DeviceData:
    """Designs to learn from, made on the spot."""

    height: int = 10  # rows; the solver's time grows 2.4-fold with each
    width: int = 18  # columns; the solver's time grows in proportion
    brush: str = "plus"  # plus, square, block or bar
    train: int = 2000  # designs to learn from
    reference: int = 1000  # further designs to be compared with

    def __post_init__(self) -> None:
        if self.height < 7 or self.width < 7:
            raise InvalidInput(f"data.height and width must be >= 7, got {self.height} x {self.width}")
        if self.train < 2 or self.reference < 2:
            raise InvalidInput(f"data.train and reference must be >= 2, got {self.train} and {self.reference}")


@dataclass
class ObjectiveOptions:
    """The simulated loss: squared distance of the two transmissions to their targets, as a share of the targets'."""

    weight: float = 3.0  # of the simulated loss beside the match with the data; 0: no arm sees it
    targets: list[float] = field(default_factory=lambda: [0.08, 0.04])  # currents into the upper and lower output

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise InvalidInput(f"objective.weight must be >= 0 and finite, got {self.weight}")
        if len(self.targets) != 2 or not all(0 < t < 1 for t in self.targets):
            raise InvalidInput(
                f"objective.targets are two currents between 0 and 1, got {list(self.targets)}",
                hint="set objective.targets=[0.08,0.04]",
            )


@dataclass
class DeviceOptions:
    """Options of `genco/device`: a stand-in for photonics, resistor networks instead of electromagnetics."""

    postprocess: int = 450  # steps of that arm's second stage, as long in CPU time as `train.through` with the solver
    arms: list[str] = field(default_factory=lambda: list(ARMS))  # ways of training that are compared
    data: DeviceData = field(default_factory=DeviceData)
    objective: ObjectiveOptions = field(default_factory=ObjectiveOptions)
    generator: GeneratorOptions = field(default_factory=GeneratorOptions)
    train: TrainOptions = field(default_factory=TrainOptions)
    grad: GradOptions = field(default_factory=GradOptions)
    solver: dict[str, Any] = field(default_factory=lambda: {"use": "genco/brush"}, metadata={"role": "solver"})
    sampler: dict[str, Any] = field(default_factory=lambda: {"use": "genco/brush"}, metadata={"role": "solver"})
    solve: SolveOptions = field(default_factory=SolveOptions)
    sample: SampleOptions = field(default_factory=SampleOptions)
    eval: EvalOptions = field(default_factory=EvalOptions)
    trainer: TrainerOptions = field(default_factory=small_trainer)
    threads: int = 1  # CPU threads; the order of sums, and with it every later digit, depends on them

    def __post_init__(self) -> None:
        unknown = sorted(set(self.arms) - set(ARMS))
        if unknown or not self.arms or len(set(self.arms)) < len(self.arms):
            raise InvalidInput(
                f"arms must be different ones of {', '.join(ARMS)}, got {list(self.arms)}",
                hint="leave arms out for all",
            )
        if self.train.loss != "energy" or self.train.adversary != "updated" or self.train.penalty:
            raise InvalidInput(
                "devices are trained on the energy distance, without adversary or penalty",
                hint="leave train.loss, train.adversary and train.penalty as they are",
            )
