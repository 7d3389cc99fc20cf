"""Report of `genco/replication`: one row an arm, one column a measure, intervals over repeats."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from tian.plots import COLOURS, new_axes, to_svg
from tian.runs.html import table
from tian.types import Section
from tian_genco.learn.judge import HINT
from tian_genco.learn.report import measures_table
from tian_genco.replication_options import ARMS

if TYPE_CHECKING:
    from tian.runs.rundir import Run

SHOWN = ("energy distance", "pattern JSD")


def sections(run: Run) -> list[Section]:
    """The comparison first, then every measure, then what the arms are."""
    metrics = run.read_json("metrics.json") or []
    if not metrics:
        return []
    config = run.config
    ratio = next(
        m
        for m in metrics
        if m["name"] == "energy distance over the baseline's" and m["by"]["method"] == str(config.method)
    )
    interval = f" [{ratio['ci95'][0]:.2f}, {ratio['ci95'][1]:.2f}]" if ratio["ci95"] else ""
    title = f"Energy distance to the data: {config.method} has {ratio['value']:.2f}{interval} times that of {config.baseline}"
    note = (
        f"<p>{ratio['n']} seed{'s' * (ratio['n'] > 1)}; arms of a seed share data, first weights and noise. All designs are "
        "repaired or made by the solver and checked by a checker of its own. Levels are synthetic.</p>"
    )
    arms = table(["arm", "what it is"], [[name, ARMS[name].says] for name in _arms(metrics) if name in ARMS])
    return [
        Section(title, f"{note}<!--plot-->{plot(metrics, run)}"),
        Section("All measures", f'{measures_table(metrics)}<p class="note">{escape(HINT)}</p>'),
        Section("Arms", arms),
    ]


def _arms(metrics: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(m["by"]["designs"] for m in metrics if "designs" in m["by"]))


def plot(metrics: list[dict[str, Any]], run: Run) -> str:
    """Energy distance and pattern divergence by arm, on a logarithmic axis; bars have intervals over repeats."""
    arms = [a for a in _arms(metrics) if a != "data"]
    figure, axes = new_axes(title="Distance to the data (less is better)", x="", y="")
    for k, name in enumerate(SHOWN):
        found = {m["by"].get("designs"): m for m in metrics if m["name"] == name}
        values = [max(found[a]["value"], 1e-3) for a in arms]
        low = [v - max((found[a]["ci95"] or [v])[0], 1e-3) for a, v in zip(arms, values, strict=True)]
        high = [(found[a]["ci95"] or [v, v])[-1] - v for a, v in zip(arms, values, strict=True)]
        at = [i + (k - 0.5) * 0.38 for i in range(len(arms))]
        axes.bar(at, values, width=0.36, color=COLOURS[k], label=name)
        axes.errorbar(at, values, yerr=[low, high], fmt="none", ecolor="#333333", elinewidth=1)
    axes.set_yscale("log")
    axes.set_xticks(range(len(arms)), arms, rotation=30, ha="right", fontsize=8)
    axes.legend(fontsize=8, frameon=False)
    alt = "energy distance by arm: " + ", ".join(
        f"{m['by']['designs']} {m['value']:.3g}" for m in metrics if m["name"] == "energy distance"
    )
    return to_svg(figure, alt=alt, path=run.path / "plots" / "arms.svg")
