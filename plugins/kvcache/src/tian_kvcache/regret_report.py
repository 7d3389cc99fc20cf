"""Report of `kvcache/regret`: regret by policy and head, and along the budget."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from tian.plots import COLOURS, new_axes, to_svg
from tian.runs.html import table
from tian.types import Section

if TYPE_CHECKING:
    from tian.runs.rundir import Run

CAVEATS = (
    '<p class="note">Two caveats. Retained attention stands in for loss, and is not loss. The trace is that of the model '
    "with everything kept: what an eviction would change in later states is left out.</p>"
)
ORACLE = "h2o-global"


def sections(run: Run) -> list[Section]:
    """The result with the heat map, the curve, and the table."""
    data = run.read_json("regret.json")
    if data is None:
        return []
    mean = {name: sum(x) / len(x) for name, x in data["by_head"].items()}
    main = next(iter(mean))
    best = min((n for n in mean if n != ORACLE), key=lambda n: mean[n])
    text = (
        f"<p>With {data['budget']} of {data['length']} tokens, {escape(main)} loses {mean[main]:.1%} of the attention the "
        f"offline optimum keeps, mean over {len(data['heads'])} heads; least of all loses {escape(best)}: "
        f"{mean[best]:.1%}.</p>"
        f"<p>The optimum is exact: its certificate leaves a gap of at most {data['gap']:.0e} of its value.</p>"
    )
    if ORACLE in mean:
        text += f"<p>{ORACLE} looks into the future and serves no model; it is shown for comparison only.</p>"
    source = f'<p class="note">{escape(data["model"])}; text: {escape(data["text"])}; {data["streams"]} streams.</p>'
    out = [
        Section(
            f"{main} loses {mean[main]:.1%} of what an optimal eviction keeps",
            f"{text}{CAVEATS}{source}<!--plot-->{heat_map(data, run)}",
        )
    ]
    if any(len(points) > 1 for points in data["curve"].values()):
        out.append(Section("Regret along the budget", f'<div style="max-width:640px">{curve(data, run)}</div>'))
    out.append(Section("Each policy", policies(data, mean)))
    return out


def heat_map(data: dict[str, Any], run: Run) -> str:
    """Policies by heads, darker is worse; lines part the layers."""
    names, heads = list(data["by_head"]), data["heads"]
    figure, axes = new_axes(title=f"Regret at {data['budget']} tokens", x="layer.head", y="")
    axes.grid(visible=False)
    values = [data["by_head"][n] for n in names]
    mesh = axes.pcolormesh(values, cmap="viridis_r", vmin=0, edgecolors="face", linewidth=0.1)
    figure.colorbar(mesh, ax=axes, label="regret")
    axes.set_yticks([i + 0.5 for i in range(len(names))], names, fontsize=8)
    axes.invert_yaxis()
    step = max(1, len(heads) // 16)
    axes.set_xticks([i + 0.5 for i in range(0, len(heads), step)], heads[::step], rotation=90, fontsize=7)
    for i in range(1, len(heads)):
        if heads[i].split(".")[0] != heads[i - 1].split(".")[0]:
            axes.axvline(i, color="white", linewidth=1.2)
    alt = "; ".join(f"{n}: mean {sum(v) / len(v):.3f}, worst head {max(v):.3f}" for n, v in data["by_head"].items())
    return to_svg(figure, alt=f"regret by policy and head. {alt}", path=run.path / "plots" / "regret.svg")


def curve(data: dict[str, Any], run: Run) -> str:
    """Regret against the budget, one line a policy."""
    figure, axes = new_axes(title="Regret by budget", x="kept, share of the stream (log scale)", y="regret")
    for i, (name, points) in enumerate(data["curve"].items()):
        style = {"color": COLOURS[i % len(COLOURS)], "linestyle": "--" if name == ORACLE or i >= len(COLOURS) else "-"}
        axes.plot(*zip(*points, strict=True), marker=".", label=name, linewidth=1.4, **style)
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, frameon=False, ncols=2)
    alt = "; ".join(f"{n}: {', '.join(f'{x:.3g} {y:.3f}' for x, y in p)}" for n, p in data["curve"].items())
    return to_svg(figure, alt=f"regret by share of tokens kept. {alt}", path=run.path / "plots" / "regret-curve.svg")


def policies(data: dict[str, Any], mean: dict[str, float]) -> str:
    """Mean with interval over streams, and the worst head."""
    rows = []
    for name, values in data["by_head"].items():
        ci = data["ci"].get(name)
        rows.append(
            [
                name,
                f"{mean[name]:.4f}{f' [{ci[0]:.4f}, {ci[1]:.4f}]' if ci else ''}",
                f"{max(values):.4f} ({data['heads'][values.index(max(values))]})",
                f"{1 - mean[name]:.4f}",
            ]
        )
    return table(["policy", "regret [95 %]", "worst head (layer.head)", "retained of the optimum"], rows)
