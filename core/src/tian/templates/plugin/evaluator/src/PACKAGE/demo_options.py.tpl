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
    evaluations: int = 300  # evaluations of the same subject, each on other questions
    questions: int = 40  # of one evaluation
    right: float = 0.7  # share of all questions the subject answers right: the truth to be found

    def __post_init__(self) -> None:
        for name in ("evaluations", "questions"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} must be >= 1, got {getattr(self, name)}", hint=f"set {name}=40")
        if not 0 <= self.right <= 1:
            raise InvalidInput(f"right must be within 0..1, got {self.right}", hint="set right=0.7")
