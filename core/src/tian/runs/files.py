"""JSON and JSON lines in a run directory: replaced whole, or appended so that a torn line costs only itself."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from tian.files import write_atomic


def _plain(value: Any) -> Any:
    """NaN and infinity are not JSON: they become strings, so that every reader can read the file."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def to_json(value: Any, *, indent: int | None = 2) -> str:
    """Strict JSON text with a final newline."""
    return json.dumps(_plain(value), indent=indent, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """`write_atomic` of `to_json(value)`."""
    write_atomic(path, to_json(value))


def read_json(path: Path) -> Any:
    """The parsed file."""
    return json.loads(path.read_text(encoding="utf-8"))


def append_jsonl(path: Path, row: dict[str, Any]) -> None:
    """Append one line; a line that a crash tore is closed first, so that it does not take this one along."""
    with path.open("a+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(to_json(row, indent=None).encode())


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """All complete lines; one torn by a crash, even within a character, is dropped."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_bytes().split(b"\n"):
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows
