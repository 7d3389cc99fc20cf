"""Report of `genco/device`: devices of every way of training, drawn, and their measures side by side."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from tian.types import Section
from tian_genco.devices.device import BASE, RESULTS, TRAINING
from tian_genco.learn.judge import HINT
from tian_genco.learn.report import measures_table

if TYPE_CHECKING:
    from tian.runs.rundir import Run

STAND_IN = (
    "A stand-in for photonics: the simulation is a network of resistors, not electromagnetics, and says nothing about "
    "optical devices. Rules: the material is a union of stamps of the brush, each inside the grid; void is free."
)
ARMS = {
    "data": "Data: wires drawn at random, which know nothing of the targets",
    "postprocess": "postprocess: trained on its own drafts, with the simulated loss; repaired by the solver afterwards",
    "through": "through: trained through the solver on the match with the data alone",
    "through+objective": "through+objective: trained through the solver, with the simulated loss of what it returns",
}


def sections(run: Run) -> list[Section]:
    """The result with the devices drawn, then the measures."""
    results = run.read_json(RESULTS)
    if results is None:
        return []
    metrics = run.read_json("metrics.json") or []
    mean = {m["by"].get("arm"): m["value"] for m in metrics if m["name"] == "simulated loss"}
    said = ", ".join(f"{mean[arm]:.3g} with {arm}" for arm in results["losses"] if arm in mean)
    upper, lower = results["targets"]
    lines = [
        f"<p>{escape(STAND_IN)}</p>",
        f"<p>Wanted: currents of {upper:g} and {lower:g} into the upper and lower output, in units of contact conductance "
        "times input voltage. Simulated loss: squared distance to them as a share of their square. The brighter, the more "
        "current; triangles on the right grow with what arrives.</p>",
        "<!--plot-->",
    ]
    for arm in ("data", *results["losses"]):
        drawing = run.path / "plots" / f"{arm}.svg"
        if drawing.exists():
            lines.append(f"<h3>{escape(ARMS[arm])}</h3>{drawing.read_text(encoding='utf-8')}")
    training = run.read_json(TRAINING) or {}
    cpu = "; ".join(f"{arm} {t['seconds']['second']:.0f} s" for arm, t in training.items())
    note = (
        f"All ways share start and noise. CPU of the second stage, meant to be equal: {cpu}. The ratio to {BASE} is of means "
        f"over designs from the same noise. {HINT}"
    )
    title = f"Simulated loss (resistor network): {said}" if said else "Devices (resistor network)"
    return [
        Section(title, "".join(lines)),
        Section("Against the data", f'{measures_table(metrics, "arm")}<p class="note">{escape(note)}</p>'),
    ]
