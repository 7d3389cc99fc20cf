"""Options of `@@name@@`; no torch, so that composing a config stays light."""

from __future__ import annotations

from dataclasses import dataclass

from tian.errors import InvalidInput


@dataclass
class @@Class@@Options:
    """Options; the comment behind a field is its documentation."""

    horizon: int = 6  # steps of a plan
    actions: int = 2  # numbers an action consists of, each within -1..1
    population: int = 64  # sequences tried in an iteration
    elites: int = 8  # the best of them, which the next iteration is drawn around
    iterations: int = 6  # rounds, while the budget lasts

    def __post_init__(self) -> None:
        for name in ("horizon", "actions", "population", "elites", "iterations"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} must be >= 1, got {getattr(self, name)}", hint=f"set {name}=1 or more")
        if self.elites > self.population:
            raise InvalidInput(
                f"elites must be <= population, got elites={self.elites}, population={self.population}",
                hint="set elites=8 population=64",
            )
