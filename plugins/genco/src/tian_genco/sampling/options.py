"""Options of sampling; nothing heavy, composing a config stays light."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tian.errors import InvalidInput
from tian_genco.learn.options import TrainOptions


def rule_lines(given: Any) -> list[str]:
    """Rules as a list of lines, whatever the command line made of them.

    A string holds rules with `;` between them. YAML cuts a list at every comma and makes a mapping of `symmetric: lr`;
    both are undone, so that `[dist(player,key) >= 6, symmetric: lr]` needs no further quotes.

    Raises:
        InvalidInput: not text, or a list of texts.

    Example:
        >>> rule_lines(["dist(player", "key) >= 6", {"symmetric": "lr"}])
        ['dist(player,key) >= 6', 'symmetric: lr']
        >>> rule_lines("count(wall) <= 60; connected")
        ['count(wall) <= 60', 'connected']
    """
    lines: list[str] = []
    for part in given if isinstance(given, list) else [given]:
        if isinstance(part, dict) and len(part) == 1:
            part = "{}: {}".format(*next(iter(part.items())))  # noqa: PLW2901
        if not isinstance(part, str):
            if part is None:
                continue
            raise InvalidInput(f"a rule must be text, got {part!r}", hint="write it as 'count(wall) <= 60'")
        if lines and lines[-1].count("(") > lines[-1].count(")"):
            lines[-1] += f",{part}"
        else:
            lines += [line.strip() for line in part.split(";")]
    return [line for line in lines if line]


def given(folder: str | None, what: str) -> Path:
    """The folder named by the option `from`.

    Raises:
        InvalidInput: none is named.
    """
    if not folder:
        raise InvalidInput("no run is named to start from", where="from", hint=f"set from=DIR, the folder of {what}")
    return Path(folder)


def brief() -> TrainOptions:
    """A training of half a minute."""
    return TrainOptions(plain=300, through=150)


def highs() -> dict[str, Any]:
    """The solver that takes any rules."""
    return {"use": "genco/highs"}


@dataclass
class ArchiveOptions:
    """A grid over two measures of a design that holds the best design of each cell."""

    measures: list[Any] = field(
        default_factory=list
    )  # two of the language, as [count(wall), dist(player,key)]; []: none
    bins: list[int] = field(default_factory=lambda: [6, 6])  # cells along each measure
    low: list[int] = field(default_factory=list)  # least value of each measure; []: that of the samples
    high: list[int] = field(default_factory=list)  # largest value of each measure; []: that of the samples
    fill: bool = True  # solve for cells that no sample falls into

    def __post_init__(self) -> None:
        self.measures = rule_lines(self.measures)
        if len(self.measures) not in (0, 2):
            raise InvalidInput(f"archive.measures must be two, got {len(self.measures)}: {self.measures}")
        if len(self.bins) != 2 or min(self.bins) < 1:
            raise InvalidInput(f"archive.bins must be two numbers >= 1, got {self.bins}")
        if len(self.low) not in (0, 2) or len(self.high) != len(self.low):
            raise InvalidInput(f"archive.low and high must be two numbers each, got {self.low} and {self.high}")
        if any(low > high for low, high in zip(self.low, self.high, strict=True)):
            raise InvalidInput(f"archive.low must not be above high, got {self.low} and {self.high}")


@dataclass
class TamperOptions:
    """Forged certificates, to see whether they are found out."""

    n: int = 0  # forgeries
    checks: Literal["all", "chain"] = "all"  # what they must get past: all of genco/verify, or digests alone

    def __post_init__(self) -> None:
        if self.n < 0:
            raise InvalidInput(f"tamper.n must be >= 0, got {self.n}")


@dataclass
class SamplingOptions:
    """Options of `genco/sample`."""

    from_: str | None = None  # folder of a finished run of genco/zelda; null: a generator that is trained first
    train: TrainOptions = field(default_factory=brief)  # of that generator, without from
    n: int = 100  # designs
    constraint: Any = None  # rules in the tile language: one, several with ; between, or a list
    min_hamming: int = 0  # cells in which designs must differ pairwise; 0: no such rule
    dedupe: bool = False  # leave out designs that occurred before
    time_limit_s: float = 60.0  # seconds for each solve
    reference: int = 1000  # designs without the rules that patterns are compared with
    held_out: bool = False  # in place of constraint: the 20 sets of rules nobody tuned anything on, n designs each
    costs: Literal["generator", "repair"] = (
        "generator"  # repair: only its levels are kept, and as few of their cells changed as the rules need; for comparison
    )
    enforce: bool = True  # false: draw without the rules and only look whether they are met; for comparison
    tamper: TamperOptions = field(default_factory=TamperOptions)
    archive: ArchiveOptions = field(default_factory=ArchiveOptions)
    solver: dict[str, Any] = field(
        default_factory=highs, metadata={"role": "solver"}
    )  # for rules; workers is one of its options
    oracle: dict[str, Any] = field(  # for everything but the rules
        default_factory=lambda: {"use": "genco/level-oracle", "limit": "exact"}, metadata={"role": "solver"}
    )
    threads: int = 1  # CPU threads of torch

    def __post_init__(self) -> None:
        self.constraint = rule_lines(self.constraint)
        if self.n < 1 or self.reference < 2:
            raise InvalidInput(f"need n >= 1 and reference >= 2, got {self.n} and {self.reference}")
        if self.min_hamming < 0:
            raise InvalidInput(f"min_hamming must be >= 0, got {self.min_hamming}")
        if self.time_limit_s <= 0:
            raise InvalidInput(f"time_limit_s must be > 0, got {self.time_limit_s}")
        if self.held_out and (self.constraint or self.min_hamming or self.archive.measures):
            raise InvalidInput("held_out brings its own rules", hint="leave out constraint, min_hamming and archive")


@dataclass
class VerifyOptions:
    """Options of `genco/verify`."""

    from_: str | None = None  # folder of a run that left certificates; must be given
    resolve: bool = False  # solve every instance again, which proves bounds and statuses too
    digest: str = ""  # what the run said when it was made, known from elsewhere; with it no change goes unseen
    time_limit_s: float = 60.0  # seconds for each solve
    solver: dict[str, Any] = field(default_factory=highs, metadata={"role": "solver"})

    def __post_init__(self) -> None:
        if self.time_limit_s <= 0:
            raise InvalidInput(f"time_limit_s must be > 0, got {self.time_limit_s}")


@dataclass
class ModelOptions:
    """A model written in Pyomo."""

    pyomo: str = "tian_genco.sampling.example:build"  # package.module:function that returns a ConcreteModel; executed
    costs: str | None = None  # name of the indexed binary Var that receives costs; null: the only one there is


@dataclass
class DesignData:
    """Designs to learn from."""

    path: str | None = None  # [N, n] zeros and ones as .npy; null: designs under random costs


@dataclass
class FitOptions:
    """How a small generator of costs is trained on the designs."""

    steps: int = 100  # steps, each with two solves a design
    batch: int = 32  # designs a step
    hidden: int = 64  # width of the network
    lr: float = 3e-3  # peak learning rate
    lam: float = 0.3  # how far the black-box gradient moves costs, in units of their RMS

    def __post_init__(self) -> None:
        for name in ("steps", "hidden"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"train.{name} must be >= 1, got {getattr(self, name)}")
        if self.batch < 2 or self.lr <= 0 or self.lam <= 0:
            raise InvalidInput(f"need train.batch >= 2, lr > 0 and lam > 0, got {self.batch}, {self.lr} and {self.lam}")


@dataclass
class CustomOptions:
    """Options of `genco/custom`."""

    model: ModelOptions = field(default_factory=ModelOptions)
    data: DesignData = field(default_factory=DesignData)
    n: int = 100  # designs
    min_hamming: int = 0  # entries in which designs must differ pairwise; 0: no such rule
    train: FitOptions = field(default_factory=FitOptions)
    time_limit_s: float = 60.0  # seconds for each solve
    solver: dict[str, Any] = field(default_factory=highs, metadata={"role": "solver"})
    threads: int = 1  # CPU threads of torch

    def __post_init__(self) -> None:
        if self.n < 1 or self.min_hamming < 0:
            raise InvalidInput(f"need n >= 1 and min_hamming >= 0, got {self.n} and {self.min_hamming}")
        if self.time_limit_s <= 0:
            raise InvalidInput(f"time_limit_s must be > 0, got {self.time_limit_s}")
