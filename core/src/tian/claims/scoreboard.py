"""The scoreboard: one page, one card a claim, with the interval of the claim beside that of its control."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from tian.claims.engine import Row, summary
from tian.claims.model import SCALES
from tian.claims.stats import VERDICTS, interval
from tian.plots import COLOURS, to_svg
from tian.runs import html

if TYPE_CHECKING:
    from tian.claims.model import Between, Claim
    from tian.claims.promises import Promise

MARKS = {"holds": "✓", "fails": "✗", "vacuous": "∅", "error": "!", "inconclusive": "?", "skipped": "-"}
TINT = {"holds": "#e3f3ec", "fails": "#fbe5dc", "vacuous": "#fbe5dc", "error": "#fbe5dc", "inconclusive": "#fdf1d6"}
CSS = """<style>
.card{border:1px solid var(--line);border-radius:8px;padding:10px 14px;margin:14px 0;display:grid;gap:4px 18px;
grid-template-columns:minmax(0,1fr)}.card h3{margin:0;font-size:16px}.card p{margin:2px 0}
@media(min-width:900px){.card{grid-template-columns:minmax(0,6fr) minmax(0,5fr)}}
.badge{display:inline-block;border-radius:5px;padding:0 8px;font-size:14px;white-space:nowrap}
</style>"""


def badge(verdict: str) -> str:
    """A coloured word with a mark, so that colour is not needed to read it."""
    colour = TINT.get(verdict, "var(--card)")
    return f'<span class="badge" style="background:{colour}">{MARKS.get(verdict, "·")} {escape(verdict)}</span>'


def plot(row: Row, bar: Between) -> str:
    """The two intervals, their seeds, and the region in which the bar is met; empty without values."""
    if not row.values:
        return ""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 1.35), layout="constrained")
    axes = figure.add_subplot()
    for y, (arm, colour) in enumerate([("control", COLOURS[1]), ("claim", COLOURS[0])]):
        mean, low, high = interval(row.values[arm])
        axes.plot([low, high], [y, y], color=colour, linewidth=2.2, solid_capstyle="butt")
        axes.plot(row.values[arm], [y] * len(row.values[arm]), "|", color=colour, markersize=9)
        axes.plot([mean], [y], "o" if arm == "claim" else "s", color=colour, markersize=6)
    axes.set_yticks([0, 1], ["control", "claim"])
    axes.set_ylim(-0.6, 1.6)
    axes.margins(x=0.12)
    left, right = axes.get_xlim()
    for edge in (bar.low, bar.high):  # the bar belongs into the picture
        if abs(edge) != float("inf"):
            span = max(right - left, abs(edge) * 0.02, 1e-9)
            left, right = min(left, edge - 0.05 * span), max(right, edge + 0.05 * span)
    axes.set_xlim(left, right)
    axes.axvspan(max(bar.low, left), min(bar.high, right), color=COLOURS[2], alpha=0.13, linewidth=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return to_svg(
        figure, alt=f"claim {summary(row.values['claim'])}, control {summary(row.values['control'])}, bar {bar}"
    )


def card(claim: Claim, scale: str, row: Row, others: Mapping[str, tuple[Row, str]]) -> str:
    """One claim: what it says, what came out, and how to see for oneself."""
    check = claim.checks[scale]
    paper = f"arXiv {claim.paper}, {claim.where}" if claim.paper else claim.where
    lines = [
        f"<h3>{badge(row.verdict)} {escape(claim.says)}</h3>",
        f'<p class="note">{escape(claim.id)}{"".join(f" · {escape(p)}" for p in claim.promises)} · {escape(paper)}</p>',
    ]
    if claim.expected != "holds":
        lines.append(f"<p>Recorded as: {escape(claim.expected)}, because {escape(claim.because)}</p>")
    if row.reason:
        lines.append(f"<p><b>{escape(row.reason)}</b></p>")
    if row.values:
        lines.append(
            f"<p>{escape(check.metric)}: <b>{escape(summary(row.values['claim']))}</b>, bar {escape(str(check.holds))}; "
            f"control ({escape(' '.join(check.control))}): {escape(summary(row.values['control']))}</p>"
        )
    if check.stands_in:
        lines.append(f"<p>Stand-in: {escape(check.stands_in)}</p>")
    for other, (kept, stale) in others.items():
        note = f" (stale: {stale})" if stale else ""
        lines.append(
            f'<p class="note">{escape(other)}: {badge(kept.verdict)} '
            f"{escape(summary(kept.values.get('claim', [])))}, {escape(kept.date)}, {escape(kept.hardware)}{escape(note)}</p>"
        )
    command = shlex.join(["tian", "run", check.config, *check.overrides, *(f"seed={s}" for s in row.seeds[:1])])
    lines.append(
        f"<details><summary>{len(row.seeds)} seeds, {row.seconds:.0f} s of CPU time</summary><pre class='cmd'>{escape(command)}\n"
        f"# the control adds: {escape(shlex.join(check.control))}\n# seeds: {', '.join(map(str, row.seeds))}</pre></details>"
    )
    return f'<section class="card"><div>{"".join(lines)}</div><div>{plot(row, check.holds)}</div></section>'


def counts(rows: Sequence[Row]) -> str:
    """`3 hold, 1 fails` in words, the number of vacuous claims always among them.

    Example:
        >>> counts([Row("a/b", "tiny", "holds"), Row("a/c", "tiny", "fails")])
        '1 holds, 1 fails, 0 vacuous'
    """
    found = Counter(r.verdict for r in rows)
    names = [v for v in (*VERDICTS, "not measured") if found[v] or v == "vacuous"]
    return ", ".join(f"{found[v]} {v}" for v in names)


def promise_words(found: Sequence[Promise]) -> str:
    """How many of the papers' promises are answered, and how many are open."""
    still = sum(p.open for p in found)
    untestable = sum(bool(p.not_testable) for p in found)
    answered = len(found) - still - untestable
    return (
        f"{answered} of {len(found)} promises are answered by a claim, {untestable} are not testable, {still} are open"
    )


def scoreboard(
    claims: Sequence[Claim],
    scale: str,
    rows: Sequence[Row],
    kept: Mapping[str, Mapping[str, tuple[Row, str]]],
    found: Sequence[Promise],
) -> str:
    """The page.

    Args:
        claims: all claims shown.
        scale: the scale of `rows`.
        rows: results at that scale.
        kept: claim id -> other scale -> stored result and why it is stale.
        found: the promises.
    """
    by_id = {c.id: c for c in claims}
    parts = [CSS, f"<h1>Claims at scale {escape(scale)}: {escape(counts(rows))}</h1>"]
    parts.append(
        '<p class="note">A claim holds when its 95 % interval over seeds lies within the bar (shaded) and that of its '
        "control, which differs in one config group, lies outside. If both lie within, the check is vacuous.</p>"
    )
    for plugin in dict.fromkeys(r.claim.partition("/")[0] for r in rows):
        parts.append(f"<h2>{escape(plugin)}</h2>")
        parts.extend(
            card(by_id[r.claim], scale, r, kept.get(r.claim, {})) for r in rows if r.claim.startswith(f"{plugin}/")
        )
    matrix = []
    for claim in claims:
        cells = []
        row = next((r for r in rows if r.claim == claim.id), None)
        for name in SCALES:
            known = row if name == scale else (kept.get(claim.id, {}).get(name) or (None, ""))[0]
            text = known.verdict if known else "not measured" if name in claim.checks else "no check"
            cells.append(f"{text} (stale)" if name != scale and known and kept[claim.id][name][1] else text)
        matrix.append([claim.id, *cells])
    parts.append("<h2>All scales</h2>" + html.table(["claim", *SCALES], matrix))
    parts.append(f"<h2>Promises of the papers</h2><p>{escape(promise_words(found))}.</p>")
    answered = {p.id: ", ".join(c.id for c in claims if p.id in c.promises) for p in found}
    state = [
        [p.id, p.paper, p.says, answered[p.id] or ("open" if p.open else p.not_testable or "not installed")]
        for p in found
    ]
    parts.append(
        f"<details><summary>The list</summary>{html.table(['id', 'paper', 'promise', 'answer'], state)}</details>"
    )
    date, place = (rows[0].date, rows[0].hardware) if rows else ("", "")
    return html.page(title="tian claims", header=f"tian claims · {date} · {place}", body="".join(parts))
