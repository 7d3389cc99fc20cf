"""`tian report DIR`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tian.cli.console import out, out_json

if TYPE_CHECKING:
    import argparse


def main(args: argparse.Namespace) -> int:
    """Render report.html again and print its path."""
    from tian.runs.report import render

    path = render(Path(args.dirs[0]))
    if args.json:
        out_json({"report": str(path)})
    else:
        out(str(path))
    return 0
