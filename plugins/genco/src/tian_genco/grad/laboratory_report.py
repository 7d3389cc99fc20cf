"""Report of `genco/estimators`: how near each estimator comes to the exact gradient, and at what noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tian.plots import COLOURS, new_axes, to_svg
from tian.runs.html import table
from tian.types import Section
from tian_genco.grad.laboratory import FIGURES, FILE, figures

if TYPE_CHECKING:
    from tian.runs.rundir import Run

NOTE = (
    '<p class="note">Constructed: objects placed in a small square, random costs, a loss on random features. The exact '
    "gradient is that of the expected loss under normal noise on the costs, by integrating over all placements. Bars "
    "are three standard errors over costs. The score function is unbiased and shows that the ruler is right; it needs "
    "no slope of the loss. Perturbed estimates the gradient of the loss of the mean placement, hence its own column. "
    "SPO+ and Fenchel-Young losses compare with known answers and have no row: a generator has none.</p>"
)


def sections(run: Run) -> list[Section]:
    """The result with one plot, then the table."""
    data = run.read_json(FILE)
    if data is None or not data["rows"]:
        return []
    found = {label: figures(row) for label, row in data["rows"].items()}
    trained = {name: f for name, f in found.items() if "score" not in name and "control" not in name}
    if not trained:
        return []
    best = max(trained, key=lambda name: trained[name]["cosine"][0])
    relaxed = ("qptl", "log-barrier")  # their programs are no solves
    solved = [name for name in trained if not name.startswith(relaxed)] or [best]
    quick = max(solved, key=lambda name: trained[name]["progress per solve"][0])
    lines = [
        f"<p>Nearest in direction among estimators that use the slope of the loss: {best}, cosine "
        f"{_with_bar(trained[best]['cosine'])}.</p>",
        f"<p>Most progress per solve: {quick}, {_with_bar(trained[quick]['progress per solve'])}.</p>",
    ]
    title = f"Gradients through a solver: {quick} makes most of a solve, {best} points best"
    return [
        Section(title, f"{''.join(lines)}{NOTE}<!--plot-->{plot(found, run)}"),
        Section(f"Bias and noise at smoothing {data['sigma']:g} (constructed)", tables(data["rows"], found)),
    ]


def plot(found: dict[str, dict[str, tuple[float, float]]], run: Run) -> str:
    """Cosines with bars, one line an estimator."""
    figure, axes = new_axes(title="Agreement with the exact gradient (constructed)", x="cosine", y="")
    at = list(range(len(found)))[::-1]
    cosines = [f["cosine"] for f in found.values()]
    axes.errorbar(
        [value for value, _ in cosines], at, xerr=[3 * error for _, error in cosines], fmt="o", ms=3, color=COLOURS[0]
    )
    axes.axvline(0.0, color=COLOURS[6], linewidth=0.6)
    axes.set_yticks(at, list(found), fontsize=7)
    alt = "; ".join(f"{name}: cosine {value:.2f}" for name, (value, _) in zip(found, cosines, strict=True))
    return to_svg(figure, alt=f"cosine by estimator. {alt}", path=run.path / "plots" / "estimators.svg")


def tables(rows: dict[str, Any], found: dict[str, dict[str, tuple[float, float]]]) -> str:
    """Every figure of every estimator with its bar."""
    body = [
        [label, f"{rows[label]['solves']:.3g}", *(_with_bar(f[name]) for name in FIGURES)] for label, f in found.items()
    ]
    meaning = (
        '<p class="note">scale: length along the exact gradient, 1 is right. relative bias: distance of the mean '
        "estimate from it. noise: standard deviation of one estimate over the length of the mean. progress per solve: "
        "squared cosine of one estimate, over its solves, which for qptl and log-barrier are continuous programs.</p>"
    )
    return table(["estimator", "solves", *FIGURES], body) + meaning + NOTE


def _with_bar(figure: tuple[float, float]) -> str:
    value, error = figure
    return f"{value:.3f} \N{PLUS-MINUS SIGN} {3 * error:.3f}"
