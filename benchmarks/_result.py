"""Where benchmark results go and what is recorded with them."""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any


def save(name: str, rows: Any) -> Path:
    """Write `results/<date>-cpu<cores>-<name>.json` beside this file; returns its path."""
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    path = folder / f"{datetime.now(UTC):%Y-%m-%d}-cpu{os.cpu_count()}-{name}.json"
    script = Path(sys.argv[0]).resolve()
    record = {
        "command": f"python {script.relative_to(Path(__file__).resolve().parents[1])}",
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {n: version(n) for n in ("torch", "transformers", "tian-framework")},
        "rows": rows,
    }
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {path}")
    return path
