"""Report of `kvcache/recall`: recall by policy and kind of stream; everything here is *constructed*."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tian.plots import COLOURS, new_axes, to_svg
from tian.runs.html import table
from tian.types import Section

if TYPE_CHECKING:
    from tian.runs.rundir import Run

NOTE = (
    '<p class="note">Constructed stream: planted pairs and questions about them, attention in closed form. It separates '
    "what policies can and cannot hold; it says nothing about a trained model.</p>"
)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def sections(run: Run) -> list[Section]:
    """The result with one plot, then the table."""
    data = run.read_json("recall.json")
    if data is None or not data["rows"]:
        return []
    rows, main = data["rows"], data["main"]
    kinds = list(rows[main])
    said = ", ".join(f"{_mean(rows[main][kind][0]):.2f} on {kind}" for kind in kinds)
    lines = [f"<p>Share of late questions {main} answers with {data['capacity']} kept tokens: {said}.</p>"]
    silent = [name for name in rows if _mean(rows[name][kinds[0]][1]) < 0.5]
    if silent:
        lines.append(f"<p>Not fluent, for lack of the first token: {', '.join(silent)}.</p>")
    if "one-shot" in kinds:
        lines.append("<p>one-shot: nobody asks before the end, so no rule that looks at the past can know.</p>")
    title = f"Constructed recall: {main} answers {_mean(rows[main][kinds[0]][0]):.0%} on {kinds[0]}"
    return [
        Section(title, f"{''.join(lines)}{NOTE}<!--plot-->{plot(rows, kinds, run)}"),
        Section("Recall and fluency (constructed)", tables(rows, kinds)),
    ]


def plot(rows: dict[str, Any], kinds: list[str], run: Run) -> str:
    """Grouped bars, one group a policy."""
    figure, axes = new_axes(title="Late questions answered (constructed stream)", x="", y="share")
    width = 0.8 / len(kinds)
    for i, kind in enumerate(kinds):
        at = [p + (i - (len(kinds) - 1) / 2) * width for p in range(len(rows))]
        axes.bar(at, [_mean(found[kind][0]) for found in rows.values()], width=width, color=COLOURS[i], label=kind)
    axes.set_xticks(range(len(rows)), list(rows), rotation=35, ha="right", fontsize=8)
    axes.set_ylim(0, 1.18)
    axes.legend(fontsize=8, frameon=False, ncols=len(kinds), loc="upper right")
    alt = "; ".join(f"{name}: {', '.join(f'{k} {_mean(f[k][0]):.2f}' for k in kinds)}" for name, f in rows.items())
    return to_svg(figure, alt=f"constructed recall by policy. {alt}", path=run.path / "plots" / "recall.svg")


def tables(rows: dict[str, Any], kinds: list[str]) -> str:
    """Recall and fluency of every policy."""
    body = [
        [
            name,
            *(f"{_mean(found[k][0]):.2f} ({min(found[k][0]):.2f} to {max(found[k][0]):.2f})" for k in kinds),
            *(f"{_mean(found[k][1]):.2f}" for k in kinds),
        ]
        for name, found in rows.items()
    ]
    head = ["policy", *(f"recall, {k} (range)" for k in kinds), *(f"fluency, {k}" for k in kinds)]
    return table(head, body) + NOTE
