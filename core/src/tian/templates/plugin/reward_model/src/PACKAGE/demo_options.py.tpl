"""Options of the run `@@name@@/demo`; no torch, so that composing a config stays light."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tian.errors import InvalidInput


@dataclass
class DemoOptions:
    """Options; the comment behind a field is its documentation."""

    subject: dict[str, Any] = field(  # the component on show
        default_factory=lambda: {"use": "@@name@@/@@name@@"},
        metadata={"role": "@@role@@"},
    )
    pairs: int = 64  # pairs of texts to compare
    repeats: int = 4  # words of the worse text that are replaced by its first word; 0 makes both the same

    def __post_init__(self) -> None:
        if self.pairs < 1:
            raise InvalidInput(f"pairs must be >= 1, got {self.pairs}", hint="set pairs=64")
        if self.repeats < 0:
            raise InvalidInput(f"repeats must be >= 0, got {self.repeats}", hint="set repeats=4")
