"""Options of `@@name@@`; no torch, so that composing a config stays light."""

from __future__ import annotations

from dataclasses import dataclass

from tian.errors import InvalidInput


@dataclass
class @@Class@@Options:
    """Options; the comment behind a field is its documentation."""

    budget: int = 256  # tokens kept, per layer and head

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise InvalidInput(f"budget must be >= 1, got {self.budget}", hint="set budget=1 or more")
