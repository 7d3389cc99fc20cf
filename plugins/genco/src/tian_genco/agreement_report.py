"""Report of `genco/agreement`: differences of objectives, and how often one solver is how much quicker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tian.plots import COLOURS, new_axes, to_svg
from tian.runs.files import read_jsonl
from tian.runs.html import table
from tian.types import Section
from tian_genco.agreement import FILE, STATISTICS, WORSE, groups, ratios

if TYPE_CHECKING:
    from tian.runs.rundir import Run

NOTE = (
    '<p class="note">Random costs on levels. Both solvers get each instance, in an order that is drawn; CPU time of this '
    "process, compilation apart. Objectives are computed from the answers, not taken from the solvers; costs are "
    "multiplied by 1024 for both, so that HiGHS's absolute gap of 1e-6 is one of 1e-9 here, which on jittered costs takes "
    "it longer than at its ordinary gap. Worse: above the other "
    f"objective by more than {WORSE:g} of it. Route mip: too many enemies, or too many placements, so the solver under "
    "test asked HiGHS itself; only answers of other routes test it.</p>"
)


def sections(run: Run) -> list[Section]:
    """The result with one plot, then the table."""
    rows = read_jsonl(run.path / FILE)
    if not rows:
        return []
    names = str(run.config.solver["use"]), str(run.config.against["use"])
    largest = max(abs(row["difference"]) for row in rows)
    broken = sum(row["broken"][0] != "" for row in rows)
    own = [row for row in rows if row["route"] != "mip"]
    lines = [f"<p>{len(rows)} instances, of which {names[0]} solved {len(own)} by itself; {broken} broken levels.</p>"]
    lines += [f"<p>{what}</p>" for row in rows for what in row["broken"][:1] if what][:5]
    title = f"{names[0]} and {names[1]}: objectives differ by {largest:.1e} at most"
    if own:
        title += f", CPU time by a factor of {float(np.median(ratios(own))):.3g} in the median"
    return [
        Section(title, f"{''.join(lines)}{NOTE}<!--plot-->{plot(rows, run)}"),
        Section("Differences and ratios of CPU time", tables(rows) + NOTE),
    ]


def plot(rows: list[dict[str, Any]], run: Run) -> str:
    """Distribution function of the ratios, one line for each kind of costs and route."""
    figure, axes = new_axes(title="CPU time: against over solver", x="ratio", y="share of instances below")
    shown = {key: group for key, group in groups(rows).items() if "all" not in key and "any" not in key}
    said = []
    for i, ((kind, route), group) in enumerate(shown.items()):
        x = np.sort(ratios(group))
        at = np.arange(1, len(x) + 1) / len(x)
        axes.step(x, at, where="post", color=COLOURS[i % len(COLOURS)], label=f"{kind}, {route} ({len(x)})")
        said.append(f"{kind}, {route}: median {np.median(x):.3g}")
    axes.axvline(1.0, color=COLOURS[6], linewidth=0.6)
    axes.set_xscale("log")
    axes.set_ylim(0, 1)
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    return to_svg(figure, alt=f"ratios of CPU time. {'; '.join(said)}", path=run.path / "plots" / "agreement.svg")


def tables(rows: list[dict[str, Any]]) -> str:
    """One row a group."""
    body = []
    for (kind, route), group in groups(rows).items():
        difference, x = np.array([row["difference"] for row in group]), ratios(group)
        ms = 1e3 * np.median([row["seconds"] for row in group], axis=0)
        body.append(
            [
                kind,
                route,
                str(len(group)),
                f"{np.abs(difference).max():.1e}",
                str(int((difference > WORSE).sum())),
                str(int((difference < -WORSE).sum())),
                str(sum(row["broken"][0] != "" for row in group)),
                *(f"{np.quantile(x, at):.3g}" for at in STATISTICS.values()),
                *(f"{t:.3g}" for t in ms),
            ]
        )
    head = ["costs", "route", "instances", "largest difference", "worse", "better", "broken"]
    return table([*head, *STATISTICS, "median, ms", "against, ms"], body)
