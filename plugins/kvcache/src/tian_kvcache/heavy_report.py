"""Report of `kvcache/heavy-hitters`: how uneven attention is, what goes with it, what masking the heavy tokens costs."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from tian.plots import COLOURS, new_axes, to_svg
from tian.runs.html import table
from tian.types import Section

if TYPE_CHECKING:
    from tian.runs.rundir import Run

WHAT = {
    "attention": "Heavy tokens are those that received most attention.",
    "uniform": "Control: the oldest tokens are taken for heavy, as uniform attention would have it.",
    "random": "Control: random tokens are taken for heavy.",
}


def sections(run: Run) -> list[Section]:
    """The result with the curve, shares by layer, and the correlation."""
    data = run.read_json("heavy.json")
    if data is None:
        return []
    found = {(m["name"], m["by"].get("attention", "")): m["value"] for m in data["measured"]}
    share, carried = data["share"], found["share of attention on the heavy tokens", ""]
    masked, chance = (found[f"perplexity with {x} tokens masked / intact", ""] for x in ("heavy", "random"))
    each = data["correlations"]["per occurrence, over uniform"]
    beyond = not each["chance"][0] <= each["value"] <= each["chance"][1]
    text = (
        f"<p>{WHAT[data['rank_by']]} {share:.0%} of the tokens carry {carried:.0%} of the attention; the fit of a power law "
        f"has exponent {found['power law exponent', '']:.2f} and R² {found['power law R2', '']:.2f}.</p>"
        f"<p>Masked for everybody (the first token stays), perplexity is {masked:.2f} times as high; with as many random "
        f"tokens masked it is {chance:.2f} times.</p>"
        f"<p>Rank correlation of attention per occurrence, relative to uniform attention, with co-occurrence: "
        f"{each['value']:.2f}; random pairings give {each['chance'][0]:.2f} to {each['chance'][1]:.2f}, so it is "
        f"{'not explained by chance' if beyond else 'within chance'}.</p>"
    )
    source = f'<p class="note">{escape(data["model"])}; text: {escape(data["text"])}; {data["streams"]} streams of {data["tokens"]} tokens.</p>'
    return [
        Section(
            f"{share:.0%} of the tokens carry {carried:.0%} of the attention",
            f"{text}{source}<!--plot-->{decay(data, run)}",
        ),
        Section("Share of attention by layer", shares(data)),
        Section("Co-occurrence", f'<div style="max-width:640px">{scatter(data, run)}</div>{_words(data)}'),
    ]


def decay(data: dict[str, Any], run: Run) -> str:
    """Accumulated attention by rank, beside that of uniform attention."""
    figure, axes = new_axes(
        title="Accumulated attention by rank", x="rank of the token (log scale)", y="attention received (log scale)"
    )
    ranks = range(1, data["tokens"] + 1)
    axes.plot(ranks, data["curve"], color=COLOURS[0], label="model, mean over heads and streams")
    axes.plot(ranks, data["uniform"], color=COLOURS[6], linestyle="--", label="uniform attention")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.legend(fontsize=9, frameon=False)
    half = data["tokens"] // 2
    alt = f"accumulated attention by rank: {data['curve'][0]:.1f} for the heaviest token, {data['curve'][half]:.2f} for the middle one"
    return to_svg(figure, alt=alt, path=run.path / "plots" / "heavy.svg")


def shares(data: dict[str, Any]) -> str:
    """Share of attention on the top tokens, one row a layer."""
    columns = list(data["shares"])
    layers = range(len(data["shares"][columns[0]]))
    rows = [[str(i), *(f"{data['shares'][c][i]:.3f}" for c in columns)] for i in layers]
    return table(["layer", *(f"top {float(c):.0%} of tokens" for c in columns)], rows)


def scatter(data: dict[str, Any], run: Run) -> str:
    """Each kind of token: co-occurrence against attention per occurrence."""
    figure, axes = new_axes(
        title="Attention and co-occurrence",
        x="co-occurrence count (log scale)",
        y="attention / uniform, per occurrence",
    )
    x, y = data["points"]
    axes.scatter([v + 0.5 for v in x], y, s=9, alpha=0.6, color=COLOURS[0])
    axes.set_xscale("log")
    alt = (
        f"{len(x)} kinds of token; rank correlation {data['correlations']['per occurrence, over uniform']['value']:.2f}"
    )
    return to_svg(figure, alt=alt, path=run.path / "plots" / "cooccurrence.svg")


def _words(data: dict[str, Any]) -> str:
    rows = [
        [name, f"{c['value']:.3f}", f"{c['chance'][0]:.3f} to {c['chance'][1]:.3f}", str(c["kinds"])]
        for name, c in data["correlations"].items()
    ]
    note = (
        '<p class="note">The total grows with how often a token occurs, and so does co-occurrence: that correlation says '
        "little. Per occurrence, age and number are taken out.</p>"
    )
    return table(["attention", "rank correlation", "random pairings, 95 %", "kinds of token"], rows) + note
