"""Report of `kvcache/accuracy`: accuracy by policy with its interval, and the metrics that see smaller differences."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from tian.plots import COLOURS, new_axes, to_svg
from tian.runs.html import table
from tian.types import Section

if TYPE_CHECKING:
    from tian.runs.rundir import Run

READING = {
    "whole": "the prompt is attended in full and then cut once; what follows reads what is left",
    "stream": "the policy evicts after every token of the prompt",
}
STAND_IN = (
    "The model that ships is small and knows little beyond its last tokens, and cloze items of source code are no exam: "
    "what a cache forgets shows in log-probabilities and agreement long before it shows in accuracy. A policy that keeps "
    "the first token already has most of what this model needs."
)


def sections(run: Run) -> list[Section]:
    """First screen (sentence, plot), then the table."""
    data = run.read_json("accuracy.json")
    if data is None:
        return []
    text = "".join(f"<p>{escape(x)}</p>" for x in words(data))
    return [
        Section(headline(data), f"{text}<!--plot-->{plot(data, run)}"),
        Section("Accuracy, agreement and log-probabilities", cells(data)),
    ]


def _row(data: dict[str, Any], name: str) -> dict[str, Any]:
    return next(r for r in data["rows"] if r["policy"] == name)


def kept(data: dict[str, Any]) -> str:
    """`20 % of the prompt` or `64 tokens`."""
    budget = data["budget"]
    return f"{budget:.0%} of the prompt".replace("%", " %") if isinstance(budget, float) else f"{budget} tokens"


def headline(data: dict[str, Any]) -> str:
    """The configured policy beside full attention."""
    main, full = _row(data, data["main"]), _row(data, "full")
    return f"{data['main']} with {kept(data)}: accuracy {main['accuracy'][0]:.3f}, full attention {full['accuracy'][0]:.3f}"


def words(data: dict[str, Any]) -> list[str]:
    """What was asked and how, and how far the numbers carry."""
    main = _row(data, data["main"])
    out = [
        f"{data['items']} questions: {data['source']}. Model: {data['model']}. Guessing gives {data['chance']:.2f}.",
        f"Reading: {READING[data['reading']]}.",
        f"{data['main']} chooses as full attention does in {main['agreement'][0]:.0%} of the questions; its "
        f"log-probabilities differ by {main['log-prob change'][0]:.3f} nats a token.",
    ]
    lost = main["lost"]
    if lost[1] <= 0 <= lost[2]:
        out.append(
            f"The accuracy lost, {lost[0]:+.3f} [{lost[1]:+.3f}, {lost[2]:+.3f}], cannot be told from none with so many "
            "questions."
        )
    return [*out, STAND_IN] if data["shipped"] and data["cloze"] else out


def plot(data: dict[str, Any], run: Run) -> str:
    """Accuracy of each policy with its interval, full attention and guessing as lines."""
    figure, axes = new_axes(title=f"Accuracy with {kept(data)}", x="", y="accuracy")
    rows = data["rows"]
    for i, row in enumerate(rows):
        value, low, high = row["accuracy"]
        colour = COLOURS[0] if row["policy"] == data["main"] else COLOURS[-1]
        axes.errorbar([i], [value], yerr=[[value - low], [high - value]], fmt="o", capsize=3, color=colour)
    axes.axhline(_row(data, "full")["accuracy"][0], color=COLOURS[2], linewidth=1, label="full attention")
    axes.axhline(data["chance"], color=COLOURS[1], linewidth=1, linestyle="--", label="guessing")
    axes.set_xticks(range(len(rows)), [r["policy"] for r in rows], rotation=30, ha="right", fontsize=8)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, frameon=False)
    alt = "; ".join(f"{r['policy']} {r['accuracy'][0]:.3f}" for r in rows)
    return to_svg(figure, alt=f"accuracy by policy: {alt}", path=run.path / "plots" / "accuracy.svg")


def cells(data: dict[str, Any]) -> str:
    """One row a policy."""
    head = [
        "policy",
        "accuracy",
        "per byte",
        "lost against full",
        "p (McNemar)",
        "agreement",
        "log-prob change, nat/token",
    ]
    rows = []
    for r in data["rows"]:
        full = r["policy"] == "full"
        three = [f"{r[k][0]:.3f} [{r[k][1]:.3f}, {r[k][2]:.3f}]" for k in ("accuracy", "accuracy per byte")]
        rest = (
            ["", "", "", ""]
            if full
            else [
                f"{r['lost'][0]:+.3f} [{r['lost'][1]:+.3f}, {r['lost'][2]:+.3f}]",
                f"{r['mcnemar']:.2g}",
                f"{r['agreement'][0]:.3f} [{r['agreement'][1]:.3f}, {r['agreement'][2]:.3f}]",
                f"{r['log-prob change'][0]:.3f} [{r['log-prob change'][1]:.3f}, {r['log-prob change'][2]:.3f}]",
            ]
        )
        rows.append([r["policy"], *three, *rest])
    note = (
        '<p class="note">Brackets: 95 % intervals (Wilson for shares, normal for paired means). "lost" and p compare with '
        "full attention question by question. Agreement counts equal choices, right or wrong.</p>"
    )
    return table(head, rows) + note
