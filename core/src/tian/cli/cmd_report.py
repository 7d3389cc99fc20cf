"""`tian report DIR [DIR ...]`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tian.cli.console import columns, out, out_json
from tian.errors import ConfigError

if TYPE_CHECKING:
    import argparse


def main(args: argparse.Namespace) -> int:
    """One run: draw its report.html again. Several: print what differs and write one page that compares them."""
    paths = [Path(d) for d in args.dirs]
    if len(paths) > 1:
        return _compare(paths, Path(args.out or "compare.html"), as_json=args.json)
    if args.out:
        raise ConfigError("--out is for comparisons", where="--out", hint="name two or more run directories")
    from tian.runs.report import render

    path = render(paths[0])
    if args.json:
        out_json({"report": str(path)})
    else:
        out(str(path))
    return 0


def _compare(paths: list[Path], page: Path, *, as_json: bool) -> int:
    from tian.runs.compare import LETTERS, change, comparison, render_comparison

    found = comparison(paths)
    render_comparison(paths, page)
    if as_json:
        out_json({**found, "page": str(page)})
        return 0
    letters = LETTERS[: len(paths)]
    out(columns([[letter, r["name"], r["dir"]] for letter, r in zip(letters, found["runs"], strict=True)]))
    out("\nconfiguration:")
    differs = [[k, *map(str, v)] for k, v in found["config"].items()]
    out(columns([["", *letters], *differs], indent="  ") if differs else "  the same")
    out("\nmeasurements:")
    rows = [["", *letters, *(f"{x}/A" for x in letters[1:])]]
    for m in found["metrics"]:
        cells = [f"{c['value']:.4g}" if c and isinstance(c["value"], int | float) else "-" for c in m["runs"]]
        name = " ".join([m["name"], *map(str, m["by"].values())])
        rows.append([name, *cells, *(change(m["runs"][0], c) for c in m["runs"][1:])])
    out(columns(rows, indent="  "))
    out(f"\ncomparison: {page}")
    return 0
