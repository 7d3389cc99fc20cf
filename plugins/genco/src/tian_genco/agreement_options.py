"""Options of `genco/agreement`; no numba and no highspy, composing a config stays light."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tian.errors import InvalidInput

KINDS = ("soft", "one-hot", "gaussian")


@dataclass
class AgreementOptions:
    """Options of `genco/agreement`: one solver of levels against another, instance by instance."""

    solver: dict[str, Any] = field(  # the solver under test
        default_factory=lambda: {"use": "genco/level-oracle"}, metadata={"role": "solver"}
    )
    against: dict[str, Any] = field(  # what it is compared with, in objective and in CPU time
        default_factory=lambda: {"use": "genco/highs"}, metadata={"role": "solver"}
    )
    n: int = 300  # instances in all; they take turns in kinds and sizes
    kinds: list[str] = field(default_factory=lambda: list(KINDS))  # of costs
    sizes: list[list[int]] = field(default_factory=lambda: [[7, 7], [9, 13]])  # rows and columns of a level
    time_limit_s: float = 60.0  # seconds a solve; an instance that takes longer ends the run

    def __post_init__(self) -> None:
        unknown = sorted(set(self.kinds) - set(KINDS))
        if unknown or not self.kinds:
            raise InvalidInput(f"kinds holds {unknown or 'nothing'}", hint=f"choose of: {', '.join(KINDS)}")
        if not self.sizes or any(len(size) != 2 or min(size) < 5 for size in self.sizes):
            raise InvalidInput(
                f"sizes must be pairs of rows and columns, each >= 5, got {self.sizes}", hint="set sizes=[[9,13]]"
            )
        least = len(self.kinds) * len(self.sizes)
        if self.n < least:
            raise InvalidInput(f"n must be >= {least}, one of each kind and size, got {self.n}", hint=f"set n={least}")
        if not self.time_limit_s > 0:
            raise InvalidInput(f"time_limit_s must be > 0, got {self.time_limit_s}", hint="set time_limit_s=60")
