"""Reports of `genco/custom`."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from tian.plots import new_axes, to_svg
from tian.runs.html import table
from tian.types import Section
from tian_genco.learn.report import measures_table
from tian_genco.sampling.custom import RESULTS
from tian_genco.sampling.record import DESIGNS

if TYPE_CHECKING:
    from tian.runs.rundir import Run

SHOWN = 20  # designs written out
NAMES = 40  # entries named on the axis of the plot


def sections(run: Run) -> list[Section]:
    """Designs as a picture and in words, then the measures."""
    results = run.read_json(RESULTS)
    metrics = run.read_json("metrics.json") or []
    if results is None:
        return []
    names = results["names"]
    with np.load(run.path / DESIGNS) as file:
        designs = file["designs"]
    valid = next((m["value"] for m in metrics if m["name"] == "valid" and m["by"].get("designs") == "ours"), None)
    title = f"{len(designs)} designs of {results['model']}" + (f", {valid:.0%} valid" if valid is not None else "")
    how = f"learned from {results['data']}" if results["data"] else "random: rules alone decide"
    lines = [
        f"<p>Costs: {escape(how)}. Valid means that every constraint of the Pyomo model itself holds.</p>",
        f"<p>Found by: {escape(', '.join(f'{k}: {v}' for k, v in results['routes'].items()))}.</p>",
        f"<p>Each is certified; digest <code>{results['digest']}</code>.</p>",
    ]
    if results["exhausted"]:
        lines.append(
            f"<p><b>No more exist</b>: {len(designs)} of {results['asked']} were found, and it is proven that no further "
            "design obeys the rules and is that far from all of them.</p>"
        )
    figure, axes = new_axes(title="Share of the designs that have an entry", x="", y="share")
    axes.bar(range(len(names)), designs.mean(axis=0))
    if len(names) <= NAMES:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=6)
    plot = to_svg(figure, alt="how often each entry is 1", path=run.path / "plots" / "entries.svg")
    rows = [[str(i), ", ".join(names[j] for j in np.flatnonzero(x))] for i, x in enumerate(designs[:SHOWN])]
    return [
        Section(title, f"{''.join(lines)}<!--plot-->{plot}"),
        Section("Designs", table(["design", "entries that are 1"], rows)),
        Section("Measures", measures_table(metrics)),
    ]
