"""Report of `kvcache/answers`: F1 and exact match by policy, and a few answers beside the references."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from tian.plots import COLOURS, new_axes, to_svg
from tian.runs.html import table
from tian.types import Section
from tian_kvcache.accuracy_report import kept

if TYPE_CHECKING:
    from tian.runs.rundir import Run

SHOWN = 6  # questions in the table of answers
CELL = 120  # characters of a cell
STAND_IN = (
    "The model that ships has 1 M parameters and was not trained to answer: it gets hardly anything right with any cache, "
    "so differences between policies here say little. The run shows that the pipeline works; bring a model that can answer."
)


def sections(run: Run) -> list[Section]:
    """First screen (sentence, plot), then policies and answers."""
    data = run.read_json("answers.json")
    if data is None:
        return []
    text = "".join(f"<p>{escape(x)}</p>" for x in words(data))
    return [
        Section(headline(data), f"{text}<!--plot-->{plot(data, run)}"),
        Section("F1 and exact match", policies(data)),
        Section("Some answers", examples(data)),
    ]


def headline(data: dict[str, Any]) -> str:
    """The configured policy, beside full attention if that was asked."""
    f1 = {r["policy"]: r["F1"][0] for r in data["rows"]}
    if data["main"] == "full":
        return f"full attention: F1 {f1['full']:.3f}"
    beside = f", full attention {f1['full']:.3f}" if "full" in f1 else ""
    return f"{data['main']} with {kept(data)}: F1 {f1[data['main']]:.3f}{beside}"


def words(data: dict[str, Any]) -> list[str]:
    """What was asked and how, and how far the numbers carry."""
    cut = "none is cut" if data["cut"] is None else f"those longer than {data['cut']} lose their middle"
    out = [
        f"{data['items']} questions: {data['source']}. Model: {data['model']}.",
        f"Prompts have {data['tokens']} tokens (median); {cut}. They are read in pieces of {data['chunk']} tokens, the "
        "policy evicting after each; the last token and the answer are read one at a time.",
    ]
    if data["constructed"]:
        out.append("The questions are constructed: what they measure is copying from a short text, not understanding.")
    return [*out, STAND_IN] if data["shipped"] else out


def plot(data: dict[str, Any], run: Run) -> str:
    """F1 of each policy with its interval."""
    figure, axes = new_axes(title=f"F1 with {kept(data)}", x="", y="F1")
    rows = data["rows"]
    for i, row in enumerate(rows):
        value, low, high = row["F1"]
        colour = COLOURS[0] if row["policy"] == data["main"] else COLOURS[-1]
        axes.errorbar([i], [value], yerr=[[value - low], [high - value]], fmt="o", capsize=3, color=colour)
    axes.set_xticks(range(len(rows)), [r["policy"] for r in rows], rotation=30, ha="right", fontsize=8)
    axes.set_ylim(bottom=0)
    alt = "; ".join(f"{r['policy']} {r['F1'][0]:.3f}" for r in rows)
    return to_svg(figure, alt=f"F1 by policy: {alt}", path=run.path / "plots" / "answers.svg")


def policies(data: dict[str, Any]) -> str:
    """One row a policy."""
    names = ["F1", "exact match", "F1 against full"]
    rows = [
        [r["policy"], *(_interval(r[k], signed="against" in k) if k in r else "" for k in names)] for r in data["rows"]
    ]
    note = (
        '<p class="note">Brackets: 95 % intervals over questions (normal for means, Wilson for exact match). F1 is over '
        "words, lower-cased, without punctuation and articles, best over the references; against full is paired by "
        "question.</p>"
    )
    return table(["policy", *names], rows) + note


def _interval(x: list[float], *, signed: bool) -> str:
    sign = "+" if signed else ""
    return f"{x[0]:{sign}.3f} [{x[1]:{sign}.3f}, {x[2]:{sign}.3f}]"


def examples(data: dict[str, Any]) -> str:
    """The first questions: references, and what was said with the configured policy and with everything kept."""
    shown = list(dict.fromkeys([data["main"], *(["full"] if "full" in data["questions"][0]["said"] else [])]))
    rows = [
        [_short(q["input"] or q["where"]), _short(" | ".join(q["references"])), *(_short(q["said"][k]) for k in shown)]
        for q in data["questions"][:SHOWN]
    ]
    note = f'<p class="note">All of them: answers.json. Cells end after {CELL} characters.</p>'
    return table(["question", "references", *shown], rows) + note


def _short(text: str) -> str:
    line = " ".join(text.split()) or "(nothing)"
    return line if len(line) <= CELL else line[: CELL - 1] + "…"
