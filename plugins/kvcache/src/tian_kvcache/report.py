"""Report of `kvcache/stream`: the result in words, perplexity by position, and what each policy costs."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from tian.plots import COLOURS, new_axes, to_svg
from tian.runs.compare import LETTERS
from tian.runs.html import table
from tian.types import Section
from tian_kvcache.checks import SINK

if TYPE_CHECKING:
    from tian.runs.rundir import Run

STYLES = {
    "full": (COLOURS[6], "-"),
    "window": (COLOURS[1], "-"),
    "streaming": (COLOURS[0], "-"),
    "recompute": (COLOURS[2], "--"),
}


def sections(run: Run) -> list[Section]:
    """First screen, the table of arms, and the checks of the first token."""
    data = run.read_json("stream.json")
    if data is None:
        return []
    out = [
        Section(headline(data), f"{words(data)}<!--plot-->{plot(data, run)}"),
        Section("Each policy", arms_table(data)),
    ]
    if data["verdict"]:
        out.append(Section(f"The first token: {data['verdict']['words']}", checks_html(data["verdict"])))
    return out


def compare_sections(runs: list[Run]) -> list[Section]:
    """Perplexity by position of the configured policy of each run, in one plot."""
    found = [(letter, run.read_json("stream.json")) for letter, run in zip(LETTERS, runs, strict=False)]
    if any(data is None for _, data in found):
        return []
    figure, axes = new_axes(title="Perplexity by position", x="position (tokens)", y="perplexity (log scale)")
    for i, (letter, data) in enumerate(found):
        main = data["arms"][0]
        axes.plot(
            *zip(*main["curve"], strict=True), color=COLOURS[i % len(COLOURS)], label=f"{letter}: {main['label']}"
        )
    _log_scale(axes)
    axes.legend(fontsize=9, frameon=False)
    alt = "; ".join(f"{letter}: {headline(data)}" for letter, data in found)
    return [Section("Perplexity along the stream", f'<div style="max-width:640px">{to_svg(figure, alt=alt)}</div>')]


def _log_scale(axes: Any) -> None:
    """A logarithmic y axis labelled with plain numbers."""
    from matplotlib.ticker import LogFormatter, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(LogFormatter())
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.8)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _find(data: dict[str, Any], kind: str, capacity: int | None = None) -> dict[str, Any] | None:
    for row in data["arms"]:
        if row["kind"] == kind and not row["check"] and (capacity is None or row["capacity"] == capacity):
            return dict(row)
    return None


def headline(data: dict[str, Any]) -> str:
    """One sentence: how the configured policy fares."""
    main = data["arms"][0]
    text = f"{main['label']} reads {data['tokens']:,} tokens at perplexity {main['ppl']:.1f}"
    if main["capacity"] is not None:
        text += f" with {main['capacity']} cached tokens"
    return text


def words(data: dict[str, Any]) -> str:
    """The comparison as short sentences; each states what was measured, whichever way it went."""
    main = data["arms"][0]
    size = main["capacity"]
    lines = []
    if size is not None and (window := _find(data, "window", size)) and window["label"] != main["label"]:
        change = window["ppl"] / main["ppl"]
        lines.append(
            f"A window of the same size, which drops the first token, has {window['ppl']:.1f}: {change:.2f} times as much."
        )
    full = _find(data, "full")
    if full and full["label"] != main["label"]:
        relation = "worse" if full["ratio"] > 1.02 else "better" if full["ratio"] < 0.98 else "equal"
        beyond = full["from"] >= data["train_length"] > 0
        place = f"past the training length of {data['train_length']} tokens" if beyond else "on the same tokens"
        lines.append(
            f"Keeping everything has {full['ppl']:.1f} ({relation}) {place}, "
            f"and its cache grew to {full['cache_bytes'] / 2**20:.1f} MiB, against {main['cache_bytes'] / 2**20:.2f} MiB."
        )
    if size is not None and (again := _find(data, "recompute", size)):
        speed = again["ms_per_token"] / main["ms_per_token"]
        gap = 100 * (main["ppl"] / again["ppl"] - 1)
        lines.append(
            f"Running the kept tokens again for every token has {again['ppl']:.1f} ({gap:+.1f} % for {main['label']}) "
            f"at {speed:.1f} times the time per token."
        )
    if data["verdict"] and data["verdict"]["words"] != SINK:
        lines.append(f"What is seen here is {data['verdict']['words']}; the checks are below.")
    source = (
        f"{data['model']}; text: {data['text']['label']}; {data['streams']} streams, "
        f"compared from token {data['late_start']:,} on."
    )
    return "".join(f"<p>{escape(x)}</p>" for x in lines) + f'<p class="note">{escape(source)}</p>'


def plot(data: dict[str, Any], run: Run) -> str:
    """Perplexity by position, one line an arm of the main size (the others are in the table)."""
    figure, axes = new_axes(
        title="Perplexity by position in the stream", x="position (tokens)", y="perplexity (log scale)"
    )
    size = data["arms"][0]["capacity"]
    for row in data["arms"]:
        if row["check"] or row["capacity"] not in (size, None):
            continue
        colour, dash = STYLES.get(row["kind"], (COLOURS[3], "-"))
        axes.plot(*zip(*row["curve"], strict=True), color=colour, linestyle=dash, label=row["label"], linewidth=1.6)
    _log_scale(axes)
    low, high = axes.get_ylim()
    axes.set_ylim(low / 1.15, high * (high / low) ** 0.3)  # room for the legend above and the marks below
    marks = [(size, "cache full"), (data["train_length"], "training length")]
    for i, (at, name) in enumerate(m for m in marks if m[0] and m[0] < data["tokens"]):
        axes.axvline(at, color="#888", linewidth=0.8, linestyle=":")
        height = 0.015 + 0.05 * i
        axes.text(at, height, f" {name}", transform=axes.get_xaxis_transform(), fontsize=8, color="#555", va="bottom")
    axes.legend(fontsize=9, frameon=False, ncols=2, loc="upper left")
    return to_svg(figure, alt=headline(data), path=run.path / "plots" / "perplexity.svg")


def _interval(ci: list[float] | None, digits: int) -> str:
    return f" [{ci[0]:.{digits}f}, {ci[1]:.{digits}f}]" if ci else ""


def arms_table(data: dict[str, Any]) -> str:
    """Perplexity, ratio, cache and speed of every arm."""
    rows = []
    streams = data["streams"]
    for r in data["arms"]:
        cache = "none kept" if r["kind"] == "recompute" else f"{r['cache_bytes'] / 1024:,.0f} KiB"
        if r["cache_growth"]:
            cache += " (growing)"
        rows.append(
            [
                r["label"],
                f"{r['ppl']:.2f}{_interval(r['ppl_ci'], 1)}",
                f"{r['ratio']:.3f}{_interval(r['ratio_ci'], 3)}",
                cache,
                f"{r['ms_per_token']:.2f}",
                f"{1000 * streams / r['ms_per_token']:,.0f}",
            ]
        )
    head = [
        "policy",
        "perplexity [95 %]",
        "ratio to the first row",
        f"cache, {streams} streams",
        "ms per step",
        "tokens/s",
    ]
    note = (
        f'<p class="note">Perplexity from token {data["late_start"]:,} on; intervals over {streams} streams, ratios paired by '
        "stream. A step reads one token of every stream. Times on a shared machine: compare rows, not runs.</p>"
    )
    return table(head, rows) + note


def checks_html(verdict: dict[str, Any]) -> str:
    """The checks that separate an attention sink from dependence on the first token."""
    rows = [[name, target, value, "yes" if holds else "no"] for name, target, value, holds in verdict["rows"]]
    layers = [
        [str(i), f"{m:.3f}", f"{v:.2f}"]
        for i, (m, v) in enumerate(zip(verdict["mass"], verdict["value_norm"], strict=True))
    ]
    return (
        table(["an attention sink needs", "target", "measured", "holds"], rows)
        + '<p class="note">All four must hold to speak of an attention sink. Per layer:</p>'
        + table(["layer", "attention on the first token", "norm of its value / others"], layers)
    )
