"""Options of `@@name@@`; no torch, so that composing a config stays light."""

from __future__ import annotations

from dataclasses import dataclass

from tian.errors import InvalidInput


@dataclass
class @@Class@@Options:
    """Options; the comment behind a field is its documentation."""

    max_nodes: int = 1_000_000  # nodes of the search after which the best so far is returned; 0: greedy only

    def __post_init__(self) -> None:
        if self.max_nodes < 0:
            raise InvalidInput(f"max_nodes must be >= 0, got {self.max_nodes}", hint="set max_nodes=1000000")
