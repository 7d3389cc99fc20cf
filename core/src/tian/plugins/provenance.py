"""Where a component came from, for the record of a run."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tian.plugins.registrar import Entry


def source_file(entry: Entry) -> Path | None:
    """The file that defines the entry's target, without importing it."""
    if isinstance(entry.target, str):
        spec = importlib.util.find_spec(entry.target.split(":")[0])
        return Path(spec.origin) if spec and spec.origin else None
    name = inspect.getsourcefile(entry.target)  # type: ignore[arg-type]
    return Path(name) if name else None


def provenance(entry: Entry) -> dict[str, Any]:
    """`{kind, name, dist, version, target, sha256}`, the hash being that of the defining source file."""
    file = source_file(entry)
    digest = hashlib.sha256(file.read_bytes()).hexdigest() if file and file.exists() else None
    target = entry.target if isinstance(entry.target, str) else repr(entry.target)
    return {
        "kind": entry.kind,
        "name": entry.qualified,
        "dist": entry.dist,
        "version": entry.version,
        "target": target,
        "sha256": digest,
    }
