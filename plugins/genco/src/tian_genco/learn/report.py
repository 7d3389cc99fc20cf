"""Reports of runs that train a generator: its designs drawn, and every measure beside that of the data."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from tian.runs.html import table
from tian.types import Section
from tian_genco.learn.judge import HINT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tian.runs.rundir import Run


def interval_of(m: dict[str, Any]) -> str:
    """`0.93 [0.91, 0.95]`."""
    value = f"{m['value']:.3g}"
    return f"{value} [{m['ci95'][0]:.3g}, {m['ci95'][1]:.3g}]" if m.get("ci95") else value


def measures_table(metrics: Sequence[dict[str, Any]], key: str = "designs") -> str:
    """One row a set of designs, one column a measure; what was not measured stays empty."""
    rows = list(dict.fromkeys(m["by"][key] for m in metrics if key in m["by"]))
    names = list(dict.fromkeys(m["name"] for m in metrics if key in m["by"]))
    found = {(m["by"][key], m["name"]): interval_of(m) for m in metrics if key in m["by"]}
    body = [[row, *(found.get((row, name), "") for name in names)] for row in rows]
    return table(["designs", *names], body)


def sections(run: Run) -> list[Section]:
    """Gallery first, then the measures."""
    results = run.read_json("results.json")
    metrics = run.read_json("metrics.json") or []
    if results is None:
        return []
    value = {(m["by"].get("designs"), m["name"]): m for m in metrics}
    valid, unique = value.get(("ours", "valid")), value.get(("ours", "unique"))
    raw = value.get(("ours", "valid without the solver"))
    title = results["title"]
    if valid and unique:
        title = f"{valid['n']} {title}: {valid['value']:.0%} obey the rules, {unique['value']:.0%} are unique"
    lines = [f"<p>Data: {escape(results['label'])}.</p>"]
    if raw:
        lines.append(
            f"<p>Of the most likely tiles, which is what a generator without a solver draws, {raw['value']:.1%} obey them. "
            "An independent checker says so, which shares no code with the solver's model.</p>"
        )
    lines.append(f"<p>Found by: {escape(', '.join(f'{k}: {v}' for k, v in results['routes'].items()))}.</p>")
    gallery = run.path / "plots" / "designs.svg"
    drawn = gallery.read_text(encoding="utf-8") if gallery.exists() else ""
    return [
        Section(title, f"{''.join(lines)}<!--plot-->{drawn}"),
        Section(
            "Against the data",
            f'{measures_table(metrics)}<p class="note">Density and coverage with k = {run.config.eval.k}. {escape(HINT)}</p>',
        ),
    ]
