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
    tokens: int = 32  # length of the stream
    withheld: int = 0  # first tokens of the stream the model is not shown; the exact reading has them

    def __post_init__(self) -> None:
        if not 0 <= self.withheld < self.tokens:
            raise InvalidInput(
                f"need 0 <= withheld < tokens, got withheld={self.withheld}, tokens={self.tokens}",
                hint="set tokens=32 withheld=0",
            )
