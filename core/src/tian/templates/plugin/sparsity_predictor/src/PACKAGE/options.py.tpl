"""Options of `@@name@@`; no torch, so that composing a config stays light."""

from __future__ import annotations

from dataclasses import dataclass

from tian.errors import InvalidInput


@dataclass
class @@Class@@Options:
    """Options; the comment behind a field is its documentation."""

    rank: int = 16  # largest rank of the map from input to units
    ridge: float = 0.001  # how strongly large weights are held back
    base: str = ""  # fingerprint of the model it serves; a state fitted on another one is refused

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InvalidInput(f"rank must be >= 1, got {self.rank}", hint="set rank=1 or more")
        if self.ridge <= 0:
            raise InvalidInput(f"ridge must be > 0, got {self.ridge}", hint="set ridge=0.001")
