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
    tokens: int = 512  # tokens to learn from; half as many to test on
    shuffled: bool = False  # learn from inputs that belong to other tokens: nothing can be learned from those

    def __post_init__(self) -> None:
        if self.tokens < 64:
            raise InvalidInput(f"tokens must be >= 64, got {self.tokens}", hint="set tokens=512")
