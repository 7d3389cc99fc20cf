"""Where benchmark results go and what is recorded with them."""

from __future__ import annotations

import json
import os
import platform
import sys
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "tian-framework")


def versions_of(*packages: str) -> dict[str, str]:
    """Versions of those of the packages that are installed."""
    found = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def save(name: str, rows: Any, *, gpu: str | None = None) -> Path:
    """Write `results/<date>-<device>-<name>.json` beside this file; returns its path.

    Args:
        name: of the benchmark.
        rows: what it measured.
        gpu: where it ran, as CUDA names it: the file is then named by its model (`h200`). None: by `cpu<cores>`.
    """
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    device = f"cpu{os.cpu_count()}" if gpu is None else gpu.lower().removeprefix("nvidia ").split()[0]
    path = folder / f"{datetime.now(UTC):%Y-%m-%d}-{device}-{name}.json"
    script = Path(sys.argv[0]).resolve()
    record = {
        "command": f"python {script.relative_to(Path(__file__).resolve().parents[1])}",
        "python": platform.python_version(),
        "machine": ", ".join(filter(None, (platform.machine(), f"{os.cpu_count()} cores", gpu))),
        "versions": versions_of(*PACKAGES, *(("triton", "tian-kernels") if gpu else ())),
        "rows": rows,
    }
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {path}")
    return path
