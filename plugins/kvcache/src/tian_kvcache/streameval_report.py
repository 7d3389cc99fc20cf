"""Report of `kvcache/streameval`: exact answers over distance, one line a policy."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from tian.plots import COLOURS, new_axes, to_svg
from tian.runs.html import table
from tian.types import Section

if TYPE_CHECKING:
    from tian.runs.rundir import Run

NOTE = {
    "constructed": "Constructed reader: one head in closed form that answers exactly what it still sees. It shows where the "
    "edge of a cache lies, and nothing about a trained model.",
    "model": "Exact match under greedy decoding; the true answer is read on. A model that cannot do the task at any "
    "distance says nothing about the cache.",
}


def sections(run: Run) -> list[Section]:
    """The result with its plot, then the table."""
    data = run.read_json("streameval.json")
    if data is None:
        return []
    note = f'<p class="note">{escape(NOTE[data["reader"]])}</p>'
    kind = "Constructed" if data["reader"] == "constructed" else "Model"
    rows = [r for r in data["rows"] if r["policy"] == data["main"]]
    far = max((r["distance"] for r in rows if r["right"]), default=0)
    title = (
        f"{kind}: {data['main']} answers up to {far} tokens back" if far else f"{kind}: {data['main']} answers nothing"
    )
    body = [
        [r["policy"], str(r["capacity"] or "all"), str(r["back"]), str(r["distance"]), f"{r['right']}/{r['asked']}"]
        for r in data["rows"]
    ]
    head = ["policy", "tokens kept", "lines back", "tokens back", "exact answers"]
    return [Section(title, f"{note}<!--plot-->{plot(data, run)}"), Section("By distance", table(head, body))]


def plot(data: dict[str, Any], run: Run) -> str:
    """Share of exact answers over the distance in tokens."""
    figure, axes = new_axes(title=f"Exact answers ({data['reader']} reader)", x="tokens back", y="share")
    names = list(dict.fromkeys(r["policy"] for r in data["rows"]))
    for i, name in enumerate(names):
        own = sorted((r["distance"], r["right"] / r["asked"]) for r in data["rows"] if r["policy"] == name)
        axes.plot(*zip(*own, strict=True), marker="o", color=COLOURS[i % len(COLOURS)], label=name)
    axes.set_ylim(-0.03, 1.05)
    axes.legend(fontsize=8, frameon=False)
    return to_svg(figure, alt="exact answers by distance", path=run.path / "plots" / "streameval.svg")
