"""`tian run RUN [key=value ...]`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tian.cli.console import columns, err, out, out_json

if TYPE_CHECKING:
    import argparse

    from tian.types import Measurement


def main(args: argparse.Namespace) -> int:
    """Run, then print the measurements as a table and where the report is."""
    from omegaconf import OmegaConf

    from tian.runs.execute import run

    result = run(args.name, args.overrides, resume=args.resume, folder=args.dir, dry_run=args.dry_run)
    if result.path is None:
        if args.json:
            out_json({"config": OmegaConf.to_container(result.config)})
        else:
            out(OmegaConf.to_yaml(result.config).rstrip())
            err("dry run: the configuration is complete and its parts are installed; nothing was run")
        return 0
    report = result.path / "report.html"
    if args.json:
        out_json(
            {"dir": str(result.path), "report": str(report), "measurements": [m.as_dict() for m in result.measurements]}
        )
        return 0
    out(summary(result.measurements))
    out(f"\nreport: {report}")
    return 0


def summary(measurements: list[Measurement]) -> str:
    """A table with one row for what was measured and one column a measurement."""
    names = list(dict.fromkeys(_title(m) for m in measurements))
    groups: dict[str, dict[str, str]] = {}
    for m in measurements:
        groups.setdefault(", ".join(m.by.values()), {})[_title(m)] = f"{m.value:.4g}"
    rows = [["", *names], *([g, *(cells.get(n, "") for n in names)] for g, cells in groups.items())]
    return columns(rows)


def _title(m: Measurement) -> str:
    return m.name if m.unit == "1" else f"{m.name} ({m.unit})"
