"""Report of `genco/predict`: regret by method, on synthetic examples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tian.plots import COLOURS, new_axes, to_svg
from tian.runs.html import table
from tian.types import Section
from tian_genco.grad.predict import FILE, FLOOR

if TYPE_CHECKING:
    from tian.runs.rundir import Run

NOTE = (
    '<p class="note">Synthetic: polynomial costs of random features on a grid. Every method has the same predictor, '
    "start, order of examples, steps and learning rate; none was tuned. "
    "It is linear; what it puts below 0 is solved as 0. two-stage predicts costs and ignores the path; "
    "spo-plus and two-stage are shown true costs, fenchel-young true paths, blackbox and imle the cost of their own path. "
    "Regret: what the chosen paths cost beyond the best ones, as a share of those; "
    "its floor is that of who knows the expected costs.</p>"
)


def sections(run: Run) -> list[Section]:
    """The result with one plot, then the table."""
    data = run.read_json(FILE)
    rows: dict[str, list[float]] = {k: v for k, v in (data or {}).get("rows", {}).items() if v}
    if not rows:
        return []
    first, *others = (method for method in rows if method != FLOOR)
    best = min(others, key=lambda method: _mean(rows[method]), default=first)
    title = f"Paths chosen by predicted costs: regret {_mean(rows[first]):.1%} with {first}"
    title += f", {_mean(rows[best]):.1%} with {best}" if best != first else ""
    body = [[m, f"{_mean(v):.2%}", f"{min(v):.2%} to {max(v):.2%}", str(len(v))] for m, v in rows.items()]
    return [
        Section(title, f"{NOTE}<!--plot-->{plot(rows, run)}"),
        Section("Normalised regret (synthetic)", table(["method", "mean", "range", "seeds"], body) + NOTE),
    ]


def plot(rows: dict[str, list[float]], run: Run) -> str:
    """One dot a seed, a bar for the mean."""
    figure, axes = new_axes(title="Regret on unseen examples (synthetic)", x="", y="share of the best cost")
    for i, values in enumerate(rows.values()):
        axes.bar(i, _mean(values), width=0.6, color=COLOURS[0], alpha=0.4)
        axes.plot([i] * len(values), values, "o", ms=3, color=COLOURS[1])
    axes.set_xticks(range(len(rows)), list(rows), fontsize=8)
    alt = "; ".join(f"{method} {_mean(values):.3f}" for method, values in rows.items())
    return to_svg(figure, alt=f"normalised regret by method. {alt}", path=run.path / "plots" / "predict.svg")


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
