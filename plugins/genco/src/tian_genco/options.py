"""Options of the runs that train generators; no torch, so that composing a config stays light."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from tian.errors import InvalidInput
from tian.training.options import TrainerOptions
from tian_genco.grad.options import GradOptions
from tian_genco.learn.options import EvalOptions, GeneratorOptions, LevelSampleOptions, TrainOptions, small_trainer


@dataclass
class LevelData:
    """Levels to learn from."""

    path: str | None = None  # a level file or a folder of them (GVGAI text, *.txt); null: levels made on the spot
    preset: Literal["zelda", "vglc-room"] = (
        "zelda"  # which rules and files: playable levels, or dungeon rooms of the VGLC (needs path and solver=highs)
    )
    skip_bad: bool = False  # leave out unusable files, and count them, instead of stopping at the first
    height: int = 9  # rows of the levels that are made
    width: int = 13  # columns of the levels that are made
    train: int = 2000  # levels to learn from
    reference: int = 1000  # further levels to be compared with

    def __post_init__(self) -> None:
        if self.height < 7 or self.width < 7:
            raise InvalidInput(f"data.height and width must be >= 7, got {self.height} x {self.width}")
        if self.preset == "vglc-room" and self.path is None:
            raise InvalidInput("data.preset=vglc-room needs data.path", hint="set data.path=FOLDER of tloz*.txt files")
        if self.train < 2 or self.reference < 2:
            raise InvalidInput(f"data.train and reference must be >= 2, got {self.train} and {self.reference}")


@dataclass
class SolveOptions:
    """Limits of each solve."""

    time_limit_s: float = 10.0  # seconds
    max_fail_rate: float = 0.01  # share of solves in training that may end without a design

    def __post_init__(self) -> None:
        if self.time_limit_s <= 0 or not 0 <= self.max_fail_rate <= 1:
            raise InvalidInput(
                f"need solve.time_limit_s > 0 and 0 <= max_fail_rate <= 1, got {self.time_limit_s} and {self.max_fail_rate}"
            )


@dataclass
class ZeldaOptions:
    """Options of `genco/zelda`."""

    data: LevelData = field(default_factory=LevelData)
    generator: GeneratorOptions = field(default_factory=GeneratorOptions)
    train: TrainOptions = field(default_factory=TrainOptions)
    grad: GradOptions = field(default_factory=GradOptions)
    solver: dict[str, Any] = field(  # in the training loop: too many enemies are priced, not optimised
        default_factory=lambda: {"use": "genco/level-oracle", "limit": "multiplier"}, metadata={"role": "solver"}
    )
    sampler: dict[str, Any] = field(  # for the designs that are kept: always optimal
        default_factory=lambda: {"use": "genco/level-oracle", "limit": "exact"}, metadata={"role": "solver"}
    )
    solve: SolveOptions = field(default_factory=SolveOptions)
    sample: LevelSampleOptions = field(default_factory=LevelSampleOptions)
    eval: EvalOptions = field(default_factory=EvalOptions)
    trainer: TrainerOptions = field(default_factory=small_trainer)
    threads: int = 1  # CPU threads; the order of sums, and with it every later digit, depends on them
