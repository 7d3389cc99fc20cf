"""Options of `@@name@@`; no torch, so that composing a config stays light."""

from __future__ import annotations

from dataclasses import dataclass

from tian.errors import InvalidInput


@dataclass
class @@Class@@Options:
    """Options; the comment behind a field is its documentation."""

    inputs: int = 1  # numbers a sample consists of
    width: int = 32  # units of each hidden layer
    depth: int = 2  # hidden layers
    seed: int = 0  # of the initial weights

    def __post_init__(self) -> None:
        for name in ("inputs", "width", "depth"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} must be >= 1, got {getattr(self, name)}", hint=f"set {name}=1 or more")
