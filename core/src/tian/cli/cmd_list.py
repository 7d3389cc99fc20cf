"""`tian list [role]`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tian.cli.console import columns, err, out, out_json
from tian.plugins.registry import get_registry

if TYPE_CHECKING:
    import argparse


def main(args: argparse.Namespace) -> int:
    """Print what is registered, by role."""
    registry = get_registry()
    entries = [] if args.role == "run" else registry.entries(args.role)
    runs = []
    if args.role in (None, "run"):
        from tian.config.index import available_runs

        runs = available_runs()
    if args.json:
        out_json(
            [
                {"kind": e.kind, "name": e.qualified, "summary": e.summary, "dist": e.dist, "version": e.version}
                for e in entries
            ]
            + [{"kind": "run", "name": r.name, "summary": r.summary} for r in runs]
        )
        return 0
    groups: dict[str, list[list[str]]] = {}
    for e in entries:
        groups.setdefault(e.kind, []).append([e.qualified, e.summary])
    for r in runs:
        groups.setdefault("run", []).append([r.name, r.summary])
    width = max((len(row[0]) for rows in groups.values() for row in rows), default=0)
    for kind, rows in groups.items():
        out(f"{kind}:")
        out(columns([[name.ljust(width), text] for name, text in rows], indent="  "))
    if not groups:
        out(f"no installed plugin provides a {args.role}")
    bad = [p.name for p in registry.plugins if any(q.severity == "error" for q in p.problems)]
    if bad:
        err(f"not loaded in full: {', '.join(bad)} (see `tian plugins`)")
    return 0
