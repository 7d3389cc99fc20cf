"""Printing: results on stdout (text or JSON), everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any


def out(text: str = "") -> None:
    """A line of result."""
    print(text)


def out_json(value: Any) -> None:
    """A JSON result."""
    print(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def err(text: str) -> None:
    """A line for the person, not the pipe."""
    print(text, file=sys.stderr)


def columns(rows: Sequence[Sequence[str]], *, indent: str = "") -> str:
    """Rows with aligned columns; the last column is not padded."""
    if not rows:
        return ""
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]) - 1)]
    return "\n".join(
        indent + "  ".join([*(c.ljust(w) for c, w in zip(r[:-1], widths, strict=True)), r[-1]]).rstrip() for r in rows
    )
