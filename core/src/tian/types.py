"""Small value types shared by runs, reports and plugins; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Measurement:
    """One measured number.

    Attributes:
        name: what was measured, e.g. `perplexity`.
        value: the number.
        unit: SI where possible; `1` for dimensionless, `B` bytes, `tok/s` tokens a second.
        n: how many independent samples stand behind it.
        ci95: 95 % interval `(low, high)`, or None when n is 1.
        higher_is_better: direction of improvement; None when neither way is better.
        by: what the number belongs to, e.g. `{"policy": "window"}`.
    """

    name: str
    value: float
    unit: str = "1"
    n: int = 1
    ci95: tuple[float, float] | None = None
    higher_is_better: bool | None = None
    by: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain dict for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Section:
    """A part of `report.html`: a title and self-contained HTML (inline SVG, no network)."""

    title: str
    html: str


@dataclass(frozen=True)
class Check:
    """One line of `tian doctor`.

    Attributes:
        name: what was looked at.
        ok: False makes `tian doctor` exit with 1.
        detail: what was found.
        hint: what to do when not ok.
    """

    name: str
    ok: bool
    detail: str
    hint: str = ""


@dataclass(frozen=True)
class DoctorCheck:
    """A named check a plugin adds to `tian doctor`; `run` is called in doctor's own process."""

    name: str
    run: Callable[[], Check]
