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
    steps: int = 300  # training steps; 0 leaves the model untrained
    lr: float = 0.01  # learning rate of Adam

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise InvalidInput(f"steps must be >= 0, got {self.steps}", hint="set steps=300")
        if self.lr <= 0:
            raise InvalidInput(f"lr must be > 0, got {self.lr}", hint="set lr=0.01")
