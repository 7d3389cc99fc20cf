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
    problems: int = 8  # points to be reached, planned for as one batch
    evals: int = 400  # evaluations of the objective a plan may use

    def __post_init__(self) -> None:
        for name in ("problems", "evals"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} must be >= 1, got {getattr(self, name)}", hint=f"set {name}=1 or more")
