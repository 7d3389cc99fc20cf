"""Report of `kvcache/long-stream`: the error and the perplexity at every doubling of the length."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from tian.plots import COLOURS, new_axes, to_svg
from tian.runs.html import table
from tian.types import Section

if TYPE_CHECKING:
    from tian.runs.rundir import Run


def sections(run: Run) -> list[Section]:
    """The result with both curves, and the table."""
    data = run.read_json("long-stream.json")
    if data is None or not data["at"]["checks"]:
        return []
    checks = data["at"]["checks"]
    last, worst = checks[-1], max(c["error"] for c in checks)
    sizes = {c["cache_bytes"] for c in checks}
    again = "" if data["text_tokens"] >= last["tokens"] else " The text is shorter and was read several times."
    text = (
        f"<p>{escape(data['label'])} read {last['tokens']:,} tokens in {last['seconds'] / 60:.1f} minutes. Whatever the "
        f"length, the hidden state differs from the float64 reference by at most {worst:.1e}, and the cache holds "
        f"{' or '.join(f'{s:,}' for s in sorted(sizes))} bytes.</p>"
        "<p>The reference reads, from an empty cache and token by token, only what the state may depend on: the sinks and "
        f"the last {data['layers']} x {data['capacity'] + 1} tokens.</p>"
        f'<p class="note">{escape(data["model"] or "the small LM that ships with tian")}; text: {escape(data["text"])}.'
        f"{again}</p>"
    )
    rows = [
        [
            f"{c['tokens']:,}",
            f"{c['error']:.1e}",
            f"{c['perplexity']:.2f}",
            f"{c['cache_bytes']:,}",
            f"{1000 * c['seconds'] / c['tokens']:.3f}",
        ]
        for c in checks
    ]
    columns = ["tokens", "hidden error", "perplexity since the row above", "cache, B", "ms a token"]
    title = f"{last['tokens']:,} tokens, hidden error at most {worst:.1e}"
    return [
        Section(title, f"{text}<!--plot-->{_curve(checks, run)}"),
        Section("At every doubling", table(columns, rows)),
    ]


def _curve(checks: list[dict[str, Any]], run: Run) -> str:
    figure, axes = new_axes(
        title="Error and perplexity along the stream", x="tokens read", y="hidden error against float64"
    )
    x = [c["tokens"] for c in checks]
    axes.loglog(x, [max(c["error"], 1e-12) for c in checks], marker="o", color=COLOURS[0], label="hidden error")
    axes.axhline(1e-4, color="#777", linestyle="--", linewidth=1, label="1e-4")
    axes.set_ylim(1e-8, max(1e-3, 3 * max(c["error"] for c in checks)))
    other = axes.twinx()
    other.plot(x, [c["perplexity"] for c in checks], marker=".", color=COLOURS[1], label="perplexity")
    other.set_ylim(bottom=0)
    other.set_ylabel("perplexity since the point before")
    lines = [*axes.get_lines(), *other.get_lines()]
    axes.legend(lines, [line.get_label() for line in lines], fontsize=8, frameon=False)
    alt = "; ".join(f"{c['tokens']} tokens: error {c['error']:.1e}, perplexity {c['perplexity']:.1f}" for c in checks)
    return to_svg(figure, alt=alt, path=run.path / "plots" / "long-stream.svg")
