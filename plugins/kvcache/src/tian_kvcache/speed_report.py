"""Report of `kvcache/speed`: what was saved, beside what could be saved at most."""

from __future__ import annotations

import statistics
from html import escape
from typing import TYPE_CHECKING, Any

from tian.plots import COLOURS, new_axes, to_svg
from tian.runs.html import table
from tian.types import Section
from tian_kvcache.speed import ratios_of
from tian_kvcache.speed_timing import quartiles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tian.runs.rundir import Run

NOTE = (
    "The bound of a way is what reading its bytes and doing its operations takes at the speed this machine reaches with a "
    "plain product. The bound of a ratio is the ratio of bounds; for a decoding step that reads only, it is "
    "(W + B n kappa) / (W + B C kappa). Quartiles are over rounds; all ways of a row are measured in turns."
)


def sections(run: Run) -> list[Section]:
    """Headline with the first plot, the other plot, the table of ratios, the table of times."""
    data = run.read_json("speed.json")
    if data is None or not data["rows"]:
        return []
    rows = data["rows"]
    curve = {row["size"]: row for row in rows.values() if row["study"] == "recompute"}
    steps = {key: row for key, row in rows.items() if row["study"] != "recompute"}
    plots = [curve_plot(curve, run)] if curve else []
    plots += [step_plot(steps, run)] if steps else []
    source = (
        f"{data['model']}, {data['parameters'] / 1e6:.1f} M parameters; W = {data['weights'] / 2**20:.1f} MiB read a step, "
        f"kappa = {data['kappa'] / 1024:.1f} KiB a token; {data['clock']}; plain products here read "
        f"{data['bandwidth'] / 1e9:.1f} GB/s and do {data['flops'] / 1e9:.0f} GFLOP/s."
    )
    text = "".join(f"<p>{escape(line)}</p>" for line in sentences(rows))
    first = Section(headline(rows), f'{text}<p class="note">{escape(source)}</p><!--plot-->{plots[0]}')
    more = [Section("Decoding with a full cache beside", f'<div style="max-width:640px">{p}</div>') for p in plots[1:]]
    return [
        first,
        *more,
        Section("Ratios", f'{ratio_table(rows)}<p class="note">{NOTE}</p>'),
        Section("Time of each way", way_table(rows)),
    ]


def each_ratio(rows: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, str, list[float], float]]:
    """Row, name of the ratio, what is beaten, values by round, bound."""
    for row in rows.values():
        for found in ratios_of(row):
            yield row, *found


def headline(rows: dict[str, Any]) -> str:
    """The largest ratio of all."""
    row, name, other, values, _ = max(each_ratio(rows), key=lambda found: statistics.median(found[3]))
    what = "the throughput" if name.startswith("throughput") else "the speed"
    return f"{row['ways'][0]['label']} has {statistics.median(values):.1f} times {what} of {other}"


def sentences(rows: dict[str, Any]) -> list[str]:
    """One a ratio, whichever way it went."""
    out = []
    for row, name, other, values, best in each_ratio(rows):
        ours = row["ways"][0]
        out.append(
            f"{ours['label']}, {name.partition(',')[0]}: {statistics.median(values):.2f} times {other}"
            f" ({ours['batch']} rows; bound {best:.1f})."
        )
    return out


def ratio_table(rows: dict[str, Any]) -> str:
    """Every ratio with quartiles and bound."""
    body = []
    for row, name, other, values, best in each_ratio(rows):
        low, high = quartiles(values)
        body.append(
            [
                name,
                row["ways"][0]["label"],
                other,
                str(row["size"]),
                f"{statistics.median(values):.2f} ({low:.2f} to {high:.2f})",
                f"{best:.2f}",
                str(len(values)),
            ]
        )
    return table(["ratio", "of", "over", "tokens", "median (quartiles)", "bound", "rounds"], body)


def way_table(rows: dict[str, Any]) -> str:
    """Every way: time, tokens a second, bytes, and its own bound."""
    body = []
    for key, row in rows.items():
        for way in row["ways"]:
            median = statistics.median(way["seconds"])
            low, high = quartiles(way["seconds"])
            body.append(
                [
                    key,
                    way["label"],
                    str(way["batch"]),
                    f"{1000 * median:.2f} ({1000 * low:.2f} to {1000 * high:.2f})",
                    f"{way['batch'] / median:.1f}",
                    f"{way['cache_bytes'] / 2**20:.1f}",
                    f"{1000 * way['least']:.2f}",
                    f"{way['least'] / median:.0%}",
                ]
            )
    head = ["row", "way", "batch", "ms a step (quartiles)", "tokens/s", "cache, MiB", "bound, ms", "of bound"]
    return table(head, body)


def _log_scale(axes: Any) -> None:
    """A logarithmic y axis labelled with plain numbers."""
    from matplotlib.ticker import LogFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(LogFormatter())
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.8)))


def curve_plot(curve: dict[int, Any], run: Run) -> str:
    """Time per token by cache size, streaming and recomputation, bounds dotted."""
    figure, axes = new_axes(title="Time per token by cache size", x="cache (tokens)", y="ms a token (log scale)")
    sizes = sorted(curve)
    for i, name in enumerate(("streaming", "recompute")):
        ways = [curve[size]["ways"][i] for size in sizes]
        ms = [1000 * statistics.median(way["seconds"]) for way in ways]
        spread = list(zip(*(quartiles(way["seconds"]) for way in ways), strict=True))
        errors = [[abs(1000 * x - m) for m, x in zip(ms, side, strict=True)] for side in spread]
        axes.errorbar(sizes, ms, yerr=errors, color=COLOURS[i], marker="o", capsize=3, label=name)
        axes.plot(sizes, [1000 * way["least"] for way in ways], color=COLOURS[i], linestyle=":", label=f"{name}, bound")
    axes.set_xscale("log", base=2)
    _log_scale(axes)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.legend(fontsize=8, frameon=False)
    found = {size: statistics.median(ratios_of(curve[size])[0][2]) for size in sizes}
    alt = "; ".join(f"cache {size}: recomputation takes {value:.1f} times as long" for size, value in found.items())
    return to_svg(figure, alt=alt, path=run.path / "plots" / "recompute.svg")


def step_plot(rows: dict[str, Any], run: Run) -> str:
    """Tokens a second of each way, equal batch and equal memory, bounds as marks."""
    figure, axes = new_axes(title="Tokens a second (marks: bound)", x="", y="tokens/s (log scale)")
    _log_scale(axes)
    names: list[str] = []
    at = 0.0
    ticks = []
    for i, (key, row) in enumerate(rows.items()):
        for way in row["ways"]:
            rate = way["batch"] / statistics.median(way["seconds"])
            axes.bar(at, rate, color=COLOURS[i], width=0.8)
            axes.text(at, rate, f"{rate:.0f}", ha="center", va="bottom", fontsize=8)
            axes.plot([at - 0.4, at + 0.4], [way["batch"] / way["least"]] * 2, color=COLOURS[6], linewidth=1.2)
            names.append(f"{way['label']}\n{way['batch']} rows, {key}")
            ticks.append(at)
            at += 1
        at += 0.5
    axes.set_xticks(ticks, names, rotation=35, ha="right", fontsize=7)
    alt = "; ".join(
        f"{key}, {way['label']}: {way['batch'] / statistics.median(way['seconds']):.0f} tokens a second"
        for key, row in rows.items()
        for way in row["ways"]
    )
    return to_svg(figure, alt=alt, path=run.path / "plots" / "throughput.svg")
