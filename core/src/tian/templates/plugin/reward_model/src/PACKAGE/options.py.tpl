"""Options of `@@name@@`; no torch, so that composing a config stays light."""

from __future__ import annotations

from dataclasses import dataclass

from tian.errors import InvalidInput


@dataclass
class @@Class@@Options:
    """Options; the comment behind a field is its documentation."""

    target_words: int = 50  # number of words from which on a longer text scores no higher

    def __post_init__(self) -> None:
        if self.target_words < 1:
            raise InvalidInput(f"target_words must be >= 1, got {self.target_words}", hint="set target_words=50")
