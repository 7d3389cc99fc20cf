"""Options of `@@name@@`; no torch, so that composing a config stays light."""

from __future__ import annotations

from dataclasses import dataclass

from tian.errors import InvalidInput


@dataclass
class @@Class@@Options:
    """Options; the comment behind a field is its documentation."""

    case_matters: bool = False  # whether "Paris" and "paris" are different answers
    resamples: int = 2000  # bootstrap samples behind an interval

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise InvalidInput(f"resamples must be >= 1, got {self.resamples}", hint="set resamples=2000")
