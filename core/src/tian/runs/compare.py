"""Several runs side by side: what differed in their configurations, what came out, and the plots of both."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from tian.errors import DataError
from tian.plugins.registry import get_registry
from tian.runs import html
from tian.files import write_atomic
from tian.runs.rundir import open_existing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tian.runs.rundir import Run

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ABSENT = "-"


def leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value of every leaf; a list is one leaf.

    Example:
        >>> leaves({"a": {"b": 1}, "c": [2]})
        {'a.b': 1, 'c': [2]}
    """
    if not isinstance(tree, dict) or (not tree and prefix):
        return {prefix: tree}
    out: dict[str, Any] = {}
    for key, value in tree.items():
        out.update(leaves(value, f"{prefix}.{key}" if prefix else str(key)))
    return out


def config_diff(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Dotted key -> its value in each run (None where absent), for the keys that are not the same in all."""
    flat = [leaves(OmegaConf.to_container(r.config)) for r in runs]
    keys = dict.fromkeys(k for f in flat for k in f)
    rows = {k: [f.get(k) for f in flat] for k in keys}
    return {k: v for k, v in rows.items() if any(x != v[0] for x in v)}


def metric_diff(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One row a measurement (name and what it belongs to): unit, and value and interval in each run or None."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for i, run in enumerate(runs):
        for m in run.read_json("metrics.json") or []:
            key = (m["name"], json.dumps(m["by"], sort_keys=True))
            row = found.setdefault(
                key, {"name": m["name"], "by": m["by"], "unit": m["unit"], "runs": [None] * len(runs)}
            )
            row["runs"][i] = {"value": m["value"], "ci95": m["ci95"], "n": m["n"]}
    return list(found.values())


def _number(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return ABSENT
    interval = f" [{cell['ci95'][0]:.4g}, {cell['ci95'][1]:.4g}]" if cell.get("ci95") else ""
    value = cell["value"]
    return f"{value:.6g}{interval}" if isinstance(value, int | float) else str(value)


def change(first: dict[str, Any] | None, other: dict[str, Any] | None) -> str:
    """How `other` relates to `first`, as a factor; empty where there is none.

    Example:
        >>> change({"value": 2.0}, {"value": 3.0})
        'x1.5'
    """
    if first is None or other is None:
        return ""
    a, b = first["value"], other["value"]
    if not all(isinstance(v, int | float) for v in (a, b)) or a == 0:
        return ""
    return f"x{b / a:.4g}"


def curves(runs: Sequence[Run]) -> str:
    """Plots of what metrics.jsonl holds by step in more than one run, as inline SVG; empty when there is nothing."""
    rows = [run.metrics_rows() for run in runs]
    names = [{k for r in found for k, v in r.items() if k != "step" and isinstance(v, int | float)} for found in rows]
    shared = sorted(set.intersection(*names)) if names and all(names) else []
    if not shared:
        return ""
    from tian.plots import COLOURS, new_axes, to_svg

    parts = []
    for name in shared:
        figure, axes = new_axes(title=name, x="step", y=name)
        for i, found in enumerate(rows):
            points = [(r["step"], r[name]) for r in found if "step" in r and isinstance(r.get(name), int | float)]
            if points:
                axes.plot(*zip(*points, strict=True), color=COLOURS[i % len(COLOURS)], label=LETTERS[i], linewidth=1.3)
        axes.legend(frameon=False)
        parts.append(to_svg(figure, alt=f"{name} by step in each run"))
    return "".join(f'<div style="max-width:640px">{p}</div>' for p in parts)


def comparison(paths: Sequence[Path]) -> dict[str, Any]:
    """What differs between runs, as plain data: `runs`, `config`, `metrics`.

    Raises:
        DataError: fewer than two or too many runs, or one that is none.
    """
    runs = _open(paths)
    return {
        "runs": [{"dir": str(r.path), "name": r.status()["name"], "state": r.status()["state"]} for r in runs],
        "config": config_diff(runs),
        "metrics": metric_diff(runs),
    }


def _open(paths: Sequence[Path]) -> list[Run]:
    if not 2 <= len(paths) <= len(LETTERS):
        raise DataError(
            f"a comparison takes 2 to {len(LETTERS)} runs, got {len(paths)}",
            where="command line",
            hint="name run directories: tian report A B",
        )
    if len({p.resolve() for p in paths}) < len(paths):
        raise DataError("the same run is named twice", where="command line", hint="name different run directories")
    return [open_existing(p) for p in paths]


def render_comparison(paths: Sequence[Path], out: Path) -> Path:
    """Write the comparison of several runs to `out`; returns it.

    Sections that plugins contribute through `tian_compare_sections` stand between the measurements and the
    configuration.

    Raises:
        DataError: see `comparison`; or `out` cannot be written.
    """
    runs = _open(paths)
    letters = LETTERS[: len(runs)]
    named = [
        [letter, r.status()["name"], r.status().get("created", ""), r.status()["state"], str(r.path)]
        for letter, r in zip(letters, runs, strict=True)
    ]
    metrics = metric_diff(runs)
    rows = []
    for m in metrics:
        cells = [_number(c) for c in m["runs"]]
        factors = [change(m["runs"][0], c) for c in m["runs"][1:]]
        unit = m["unit"] if m["unit"] != "1" else ""
        rows.append([m["name"], ", ".join(map(str, m["by"].values())), unit, *cells, *factors])
    head = ["measurement", "of", "unit", *letters, *(f"{x} / A" for x in letters[1:])]
    config = config_diff(runs)
    differs = [[k, *("" if v is None else str(v) for v in values)] for k, values in config.items()]
    parts = [
        f"<h1>{escape(' against '.join(dict.fromkeys(n[1] for n in named)))}: {len(config)} settings differ</h1>",
        html.table(["run", "name", "started", "state", "directory"], named),
        f"<h2>Configuration: what differs</h2>{html.table(['key', *letters], differs)}"
        if differs
        else "<p>The configurations are the same.</p>",
        f"<h2>Measurements</h2>{html.table(head, rows)}",
    ]
    if drawn := curves(runs):
        parts.append(f"<h2>Along the run</h2>{drawn}")
    for _plugin, sections in get_registry().call_each("tian_compare_sections", runs=runs):
        parts.extend(f"<h2>{escape(s.title)}</h2>{s.html}" for s in sections or [])
    try:
        write_atomic(out, html.page(title="comparison", header=f"tian report · {len(runs)} runs", body="".join(parts)))
    except OSError as error:
        raise DataError(f"cannot write {out}: {error.strerror}", where=str(out), hint="choose another --out") from None
    return out
