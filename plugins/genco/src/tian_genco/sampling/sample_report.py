"""Reports of `genco/sample`: the designs, what they cost the generator, and the archive."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from tian.plots import new_axes, to_svg
from tian.runs.html import table
from tian.types import Section
from tian_genco.learn.report import measures_table
from tian_genco.levels.draw import gallery_svg
from tian_genco.sampling.record import DESIGNS
from tian_genco.sampling.sample import ARCHIVE, JSD, RESULTS

if TYPE_CHECKING:
    from tian.runs.rundir import Run

SHOWN = 24  # levels in a gallery
MARKS = {"infeasible": "\N{MULTIPLICATION SIGN}", "timeout": "?", "empty": ""}
NOTE = (
    '<p class="note">valid: every rule holds, by a checker in plain Python that shares no code with the solver\'s rows. '
    "pattern JSD over unconstrained: divergence of the 2x2 patterns from those of levels of the same generator without "
    "the rules; the row without the rules is what chance alone gives. objective increase: what the rules cost, in units "
    "of the costs' RMS.</p>"
)


def sections(run: Run) -> list[Section]:
    """Designs first, then the measures and the archive."""
    results = run.read_json(RESULTS)
    metrics = run.read_json("metrics.json") or []
    if results is None:
        return []
    if "held_out" in results:
        return _held_out(results, metrics)
    value = {m["name"]: m for m in metrics if m["by"].get("designs") == "ours"}
    count, asked = results["designs"], results["asked"]
    rules = len(results["rules"])
    title = f"{count} levels under {rules} further rule{'s' * (rules != 1)}"
    if "valid" in value:
        title += f", {value['valid']['value']:.0%} valid"
    lines = [f"<p>Generator: {escape(results['source'])}, not trained again.</p>"]
    lines += [f"<p>Rule: <code>{escape(line)}</code></p>" for line in results["rules"]]
    if results["min_hamming"]:
        lines.append(f"<p>Each differs from each other in at least {results['min_hamming']} cells.</p>")
    if results["exhausted"]:
        lines.append(
            f"<p><b>No more exist</b>: {count} of {asked} were found, and it is proven that no further level obeys the "
            "rules and is that far from all of them.</p>"
        )
    elif count < asked:
        lines.append(f"<p>{asked} were asked for; {results['repeated']} repeated others, the rest ran out of time.</p>")
    lines.append(f"<p>Found by: {escape(', '.join(f'{k}: {v}' for k, v in results['routes'].items()))}.</p>")
    lines.append(
        f'<p>Each is certified; digest <code style="word-break:break-all">{results["digest"]}</code>. Prove it again: '
        f"<code>tian run genco/verify from={escape(str(run.path))}</code></p>"
    )
    with np.load(run.path / DESIGNS) as file:
        grids = file["designs"]
    drawn = gallery_svg(grids[:SHOWN], columns=6, alt=f"{min(count, SHOWN)} of the levels, drawn as tiles")
    out = [
        Section(title, f"{''.join(lines)}<!--plot-->{drawn}"),
        Section("Beside the generator without the rules", measures_table(metrics) + NOTE),
    ]
    return [*out, _archive(run, results["archive"])] if "archive" in results else out


def _held_out(results: dict[str, Any], metrics: list[dict[str, Any]]) -> list[Section]:
    sets = results["held_out"]
    over_sets = {m["name"]: m["value"] for m in metrics if m["by"].get("rules") == "held-out"}
    share = f": {over_sets['valid under held-out rules']:.1%} valid" if over_sets else ""
    lines = [
        f"<p>{len(sets)} sets of rules (version {results['version']}), written down before any of them was run, on the "
        f"generator {escape(results['source'])}, which was not trained again.</p>"
    ]
    if over_sets:
        chance = next(m["value"] for m in metrics if m["by"].get("rules") == "none")
        lines.append(
            f"<p>Divergence of the patterns from those without rules: {over_sets[JSD]:.3f} bit in the mean over the sets, "
            f"{over_sets[f'largest {JSD}']:.3f} at most, and {chance:.3f} for as many designs without any rule.</p>"
        )
    routes = [["; ".join(s["rules"]), ", ".join(f"{k}: {v}" for k, v in s["routes"].items())] for s in sets]
    return [
        Section(f"{len(sets)} held-out sets of rules{share}", "".join(lines)),
        Section("Every set", measures_table(metrics, "rules") + NOTE),
        Section("Routes", table(["rules", "found by"], routes)),
    ]


def _archive(run: Run, archive: dict[str, Any]) -> Section:
    """The grid of cells with their cost, and their levels."""
    cells, (first, second) = archive["cells"], archive["measures"]
    values = np.array([[c["increase"] for c in row] for row in cells], np.float64)
    figure, axes = new_axes(title="Objective increase of the best level of each cell", x=second, y=first)
    axes.grid(visible=False)
    image = axes.imshow(np.ma.masked_invalid(values), origin="lower", aspect="auto", cmap="cividis")
    figure.colorbar(image)
    flat = [(i, j, c) for i, row in enumerate(cells) for j, c in enumerate(row)]
    middle = np.nanmean(values) if np.isfinite(values).any() else 0.0
    for i, j, c in flat:
        here = c["increase"] is not None
        text = f"{c['increase']:.2g}" if here else MARKS[c["state"]]
        colour = "white" if here and c["increase"] <= middle else "black"
        axes.text(j, i, text, ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(cells[0])), [_range(c["ranges"][1]) for c in cells[0]], fontsize=8)
    axes.set_yticks(range(len(cells)), [_range(row[0]["ranges"][0]) for row in cells], fontsize=8)
    states = [c["state"] for _, _, c in flat]
    said = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states))
    plot = to_svg(figure, alt=f"archive of {len(flat)} cells: {said}", path=run.path / "plots" / "archive.svg")
    with np.load(run.path / ARCHIVE) as file:
        grids, places = file["designs"], file["places"]
    captions = [
        f"{_range(cells[i][j]['ranges'][0])} | {_range(cells[i][j]['ranges'][1])}: {cells[i][j]['increase']:.2g}"
        for i, j in places[: 4 * SHOWN].tolist()
    ]
    drawn = gallery_svg(grids[: 4 * SHOWN], columns=6, captions=captions, alt="the best level of each cell")
    note = (
        f'<p class="note">{escape(said)}. \N{MULTIPLICATION SIGN}: proven that no level is there; ?: the time limit was '
        "reached. 0: the generator draws such levels unasked.</p>"
    )
    return Section(f"Archive over {first} and {second}", plot + note + drawn)


def _range(ends: list[int]) -> str:
    return f"{ends[0]}" if ends[0] == ends[1] else f"{ends[0]}-{ends[1]}"
