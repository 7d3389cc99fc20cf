"""Options of training and sampling that the runs share; no torch, so that composing a config stays light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tian.errors import InvalidInput
from tian.training.options import TrainerOptions


@dataclass
class GeneratorOptions:
    """Shape of the generator."""

    nz: int = 32  # length of the noise vector
    channels: int = 32  # width of the hidden maps

    def __post_init__(self) -> None:
        if self.nz < 1 or self.channels < 1:
            raise InvalidInput(f"generator.nz and channels must be >= 1, got {self.nz} and {self.channels}")


@dataclass
class DesignGeneratorOptions:
    """Shape of a fresh `genco/generator`; a trained one is read with `load_weights`."""

    tiles: int = 8  # kinds of tile
    height: int = 9  # rows
    width: int = 13  # columns
    nz: int = 32  # length of the noise vector
    channels: int = 32  # width of the hidden maps
    seed: int = 0  # of the first weights

    def __post_init__(self) -> None:
        if min(self.tiles - 1, self.height - 2, self.width - 2, self.nz, self.channels) < 1:
            raise InvalidInput(f"a generator needs 2 tiles, 3 rows and columns, nz and channels >= 1, got {self}")


@dataclass
class TrainOptions:
    """Two stages: on the most likely tiles (plain), then on what the solver makes of them (through)."""

    plain: int = 600  # steps in which the loss sees the most likely tile of each cell, without a solver
    through: int = 400  # steps in which it sees the solver's designs and the gradient comes back through the solver
    lr: float = 2e-3  # peak learning rate of the plain stage
    lr_through: float = 1e-3  # of the stage through the solver
    batch: int = 64  # designs a step
    reals: int = 256  # training designs they are compared with
    loss: Literal["energy", "wgan-gp"] = "energy"  # energy distance of features, or a critic that is trained beside
    adversary: Literal["updated", "fixed"] = (
        "updated"  # fixed: through the solver, the critic (or the witness of the energy distance) of the plain stage stays
    )
    critic_steps: int = 5  # wgan-gp: steps of the critic for one of the generator
    gp: float = 10.0  # wgan-gp: weight of the gradient penalty
    costs: Literal["logit", "softmax"] = "logit"  # what the solver is given: minus the logits, or minus probabilities
    penalty: float = 0.0  # weight of the probability on tiles the solver would change (a soft rule; needs the solver)

    def __post_init__(self) -> None:
        if self.plain < 0 or self.through < 0 or self.plain + self.through < 1:
            raise InvalidInput(f"train.plain and train.through are steps, got {self.plain} and {self.through}")
        if self.batch < 2 or self.reals < 2:
            raise InvalidInput(f"train.batch and reals must be >= 2, got {self.batch} and {self.reals}")
        if self.critic_steps < 1 or self.gp < 0:
            raise InvalidInput(f"train.critic_steps must be >= 1 and gp >= 0, got {self.critic_steps} and {self.gp}")
        if self.lr <= 0 or self.lr_through <= 0:
            raise InvalidInput(f"learning rates must be > 0, got {self.lr} and {self.lr_through}")
        if self.penalty < 0:
            raise InvalidInput(f"train.penalty must be >= 0, got {self.penalty}")


@dataclass
class SampleOptions:
    """What is drawn from the trained generator."""

    n: int = 1000  # designs

    def __post_init__(self) -> None:
        if self.n < 2:
            raise InvalidInput(f"sample.n must be >= 2, got {self.n}")


@dataclass
class LevelSampleOptions(SampleOptions):
    """The same for levels."""

    certify: bool = True  # write a certificate of each design, which genco/verify checks (some 10 ms a design)
    solver: bool = True  # false: the most likely tiles as they are, which mostly break rules; for comparison


@dataclass
class EvalOptions:
    """How the samples are judged."""

    k: int = 5  # neighbours of density and coverage
    most: int = 1000  # designs that are judged, the first ones; validity is checked for all
    critic_steps: int = 300  # steps of the critic trained afterwards to tell samples from data; 0: none

    def __post_init__(self) -> None:
        if self.k < 1 or self.critic_steps < 0 or self.most < 2:
            raise InvalidInput(
                f"need eval.k >= 1, most >= 2 and critic_steps >= 0, got {self.k}, {self.most} and {self.critic_steps}"
            )


def small_trainer() -> TrainerOptions:
    """A CPU trainer whose steps come from the stages."""
    return TrainerOptions(max_steps=1, accelerator="cpu", checkpoint_every=100, log_every=20)
