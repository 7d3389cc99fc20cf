"""Report of `genco/warcraft`: maps with their paths, every measure beside that of the data, and the trade by weight."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from tian.plots import COLOURS, new_axes, to_svg
from tian.runs.html import table
from tian.types import Section
from tian_genco.learn.judge import HINT
from tian_genco.learn.report import interval_of
from tian_genco.maps.recipe import DATA, OURS, WITHOUT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tian.runs.rundir import Run

STEERED = {
    "path": "towards cheap shortest paths",
    "tile-mean": "towards cheap cells",
    "none": "towards nothing",
}


def sections(run: Run) -> list[Section]:
    """Gallery first, then the measures, then cost against likeness where there are arms to compare."""
    results = run.read_json("results.json")
    metrics = run.read_json("metrics.json") or []
    if results is None or not metrics:
        return []
    value = {(m["by"].get("maps"), m["name"]): m["value"] for m in metrics}
    gallery = run.path / "plots" / "maps.svg"
    drawn = gallery.read_text(encoding="utf-8") if gallery.exists() else ""
    lines = [f"<p>Data: {escape(results['label'])}. {told(results)}</p>"]
    found = [
        Section(headline(value, results), f"{''.join(lines)}<!--plot-->{drawn}"),
        Section("Against the data", f'{by_measure(metrics)}<p class="note">{escape(note(results))}</p>'),
    ]
    points = [(m["by"]["maps"], m["value"]) for m in metrics if m["name"] == "pattern JSD"]
    if len(points) > 2:
        found.append(Section("Cost of paths against likeness", trade(results, value, run)))
    return found


def headline(value: dict[tuple[str | None, str], float], results: dict[str, Any]) -> str:
    """What came out, with what it is compared to."""
    ours, without, data = (value.get((name, "path cost")) for name in (OURS, WITHOUT, DATA))
    title = f"Shortest paths of sampled maps cost {ours:.1f}"
    beside = [f"{without:.1f} without the objective"] if without is not None and steered(results) else []
    return f"{title}; {', '.join([*beside, f'{data:.1f} in the data'])}"


def steered(results: dict[str, Any]) -> bool:
    """Whether ours has an objective."""
    return bool(results["arms"][0]["kind"] != "none")


def told(results: dict[str, Any]) -> str:
    """How ours was trained, in a sentence."""
    ours = results["arms"][0]
    how = STEERED[ours["kind"]]
    weight = f", weight {ours['weight']:g}" if steered(results) else ""
    what = "a VAE of terrain classes" if results["model"] == "vae" else "a prior over the codes of a VQ-VAE of images"
    text = f"Samples of {what} are steered {how}{weight}."
    if results["model"] == "vqvae":
        text += " Costs of samples are read off their images by a network the steering never sees."
    if len(results["arms"]) > 1:
        text += " Below each other, maps of the same noise."
    return text


def by_measure(metrics: Sequence[dict[str, Any]]) -> str:
    """One row a measure, one column a set of maps; what was not measured stays empty."""
    sets = list(dict.fromkeys(m["by"]["maps"] for m in metrics))
    names = list(dict.fromkeys(m["name"] for m in metrics))
    found = {(m["by"]["maps"], m["name"]): interval_of(m) for m in metrics}
    return table(["", *sets], [[name, *(found.get((s, name), "") for s in sets)] for name in names])


def note(results: dict[str, Any]) -> str:
    """How to read the table."""
    rec = (
        "Reconstruction: nats of a map given its encoding."
        if results["model"] == "vae"
        else "Reconstruction: share of a channel's variance, the same for all arms by construction, since the prior alone "
        "is steered; code nats: of the codes of unseen maps under the prior."
    )
    return (
        f"{rec} Data: training maps against reference maps. tile mean as an objective is {results['cells']:.1f} times the "
        f"mean cost of a cell, that being the number of cells on a path. {HINT}"
    )


def trade(results: dict[str, Any], value: dict[tuple[str | None, str], float], run: Run) -> str:
    """Path cost against pattern JSD, one point an arm; arms of one kind joined by weight."""
    figure, axes = new_axes(
        title="How much likeness cheaper paths take", x="mean path cost of samples", y="pattern JSD to the data, bit"
    )
    spots = {a["name"]: (value[a["name"], "path cost"], value[a["name"], "pattern JSD"]) for a in results["arms"]}
    plain = [(0.0, spots[a["name"]]) for a in results["arms"] if a["kind"] == "none"][:1]
    axes.plot(*(value[DATA, k] for k in ("path cost", "pattern JSD")), "*", color=COLOURS[2], ms=12, label="data")
    for colour, kind in zip(COLOURS, ("path", "tile-mean"), strict=False):
        line = sorted([*plain, *((a["weight"], spots[a["name"]]) for a in results["arms"] if a["kind"] == kind)])
        if len(line) > len(plain):
            label = {"path": "path cost", "tile-mean": "tile mean, no solver"}[kind]
            axes.plot(*zip(*(p for _, p in line), strict=True), "o-", color=colour, ms=6, label=label)
            for weight, spot in line:
                axes.annotate(f"{weight:g}", spot, textcoords="offset points", xytext=(6, 5), fontsize=8, color="#555")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8, title="objective, by its weight", title_fontsize=8)
    alt = "; ".join(f"{name}: path cost {x:.1f}, JSD {y:.3f}" for name, (x, y) in spots.items())
    return to_svg(figure, alt=f"path cost against pattern JSD. {alt}", path=run.path / "plots" / "trade.svg")
