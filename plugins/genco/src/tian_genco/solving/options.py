"""Options of the solvers; no highspy, so that composing a config stays light."""

from __future__ import annotations

from dataclasses import dataclass

from tian.errors import InvalidInput


@dataclass
class HighsOptions:
    """Options of `highs`."""

    mip_gap: float = 0.0  # relative gap at which the search may stop; answers above 1e-4 are called feasible
    presolve: bool = True  # simplify the program before each solve
    cascade: bool = False  # try the LP relaxation first and accept it when integral; pays when that is common
    workers: int = 1  # processes for batches; answers do not depend on it

    def __post_init__(self) -> None:
        if not 0.0 <= self.mip_gap < 1.0:
            raise InvalidInput(
                f"mip_gap must be at least 0 and below 1, got {self.mip_gap}", hint="set solver.mip_gap=0 for a proof"
            )
        if self.workers < 1:
            raise InvalidInput(
                f"workers must be >= 1, got {self.workers}", hint="set solver.workers=1 to solve in this process"
            )
