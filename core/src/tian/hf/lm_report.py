"""Report of `lm/train`: the loss curve and the card of what was trained."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from tian.types import Section

if TYPE_CHECKING:
    from tian.runs.rundir import Run


def sections(run: Run) -> list[Section]:
    """First screen (perplexity, loss curve) and the data behind it."""
    from tian.plots import COLOURS, new_axes, to_svg

    rows = [r for r in run.metrics_rows() if "loss" in r]
    card = run.read_json("model/card.json")
    if not rows or not card:
        return []
    figure, axes = new_axes(title="Training loss", x="step", y="loss (nats per token)")
    axes.plot([r["step"] for r in rows], [r["loss"] for r in rows], color=COLOURS[0], linewidth=1.2)
    last = rows[-1]
    svg = to_svg(figure, alt=f"training loss falls to {last['loss']:.2f}", path=run.path / "plots" / "loss.svg")
    # transformers itself would leave the sink out and say nothing.
    loader = "<code>tian.hf.load_model</code>" if "sink" in card["recipe"]["lm"] else "transformers"
    text = (
        f"<p>Trained on {escape(card['text']['label'])}: {card['text']['tokens']:,} tokens of text, "
        f"{last['step']} steps. Held out: {escape(card['held_out']['label'])}.</p>"
        f"<p>The folder <code>model/</code> loads with {loader} or <code>model.path=</code>.</p>"
    )
    title = f"Held-out perplexity {card['held_out_perplexity']:.1f}"
    return [Section(title, f"{text}<!--plot-->{svg}")]
