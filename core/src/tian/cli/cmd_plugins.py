"""`tian plugins`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from tian.cli.console import columns, out, out_json
from tian.plugins.registry import get_registry

if TYPE_CHECKING:
    import argparse


def main(args: argparse.Namespace) -> int:
    """Print one line a plugin, and its problems; always 0: the answer is the list."""
    infos = get_registry(fast=args.fast).plugins
    if args.json:
        out_json(
            [
                {
                    "name": p.name,
                    "dist": p.dist,
                    "version": p.version,
                    "module": p.module,
                    "state": p.state,
                    "seconds": round(p.seconds, 6),
                    "provides": [f"{e.kind}:{e.qualified}" for e in p.entries],
                    "problems": [asdict(q) for q in p.problems],
                }
                for p in infos
            ]
        )
        return 0
    rows = []
    for p in infos:
        time = [f"{1000 * p.seconds:.1f} ms"] if args.timing else []
        count = f"{len(p.entries)} component{'s' if len(p.entries) != 1 else ''}" if p.state == "loaded" else ""
        rows.append([p.name, p.state, f"{p.dist} {p.version}", *time, count])
    out(columns(rows))
    for p in infos:
        for q in p.problems:
            out(f"{p.name}: {q.severity}: {q.message}")
            out(f"  where: {q.where}")
            if q.hint:
                out(f"  do:    {q.hint}")
    return 0
