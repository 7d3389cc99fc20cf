"""report.html: one self-contained page; the first screen holds the result, one plot and the command behind it."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from tian.plugins.registry import get_registry
from tian.runs import html
from tian.files import write_atomic
from tian.runs.html import table
from tian.runs.rundir import open_existing

if TYPE_CHECKING:
    from pathlib import Path

    from tian.runs.rundir import Run
    from tian.types import Section


def measurement_rows(metrics: list[dict[str, Any]]) -> list[list[str]]:
    """One row a measurement: name, what it belongs to, value with interval, unit, n."""
    rows = []
    for m in metrics:
        interval = f" [{m['ci95'][0]:.4g}, {m['ci95'][1]:.4g}]" if m.get("ci95") else ""
        value = m["value"]
        number = f"{value:.6g}" if isinstance(value, int | float) else str(value)
        by = ", ".join(f"{v}" for v in m["by"].values())
        rows.append([m["name"], by, f"{number}{interval}", m["unit"] if m["unit"] != "1" else "", str(m["n"])])
    return rows


def render(path: Path) -> Path:
    """Write `report.html` into the run directory `path` from what the run left there; returns the file.

    Raises:
        DataError: not a run directory.
    """
    run = open_existing(path)
    own = str(run.config.recipe).split("/")[0]
    found: list[tuple[str, Section]] = []
    for plugin, sections in get_registry().call_each("tian_report_sections", run=run):
        found.extend((plugin, s) for s in sections or [])
    found.sort(key=lambda pair: pair[0] != own)  # stable: the run's own plugin first
    write_atomic(path / "report.html", page(run, [s for _, s in found]))
    return path / "report.html"


def page(run: Run, sections: list[Section]) -> str:
    """The page as text."""
    status = run.status()
    name = str(status.get("name", "run"))
    metrics = run.read_json("metrics.json") or []
    command = f'<pre class="cmd">{escape(str(status.get("command", "")))}</pre>'
    unfinished = ""
    if status.get("state") != "finished":
        unfinished = (
            f"<p><b>This run is {escape(str(status.get('state')))}.</b> {escape(str(status.get('error') or ''))}</p>"
        )
    head = sections[0] if sections else None
    text, _, plot = head.html.partition("<!--plot-->") if head else ("", "", "")
    rest = "".join(f"<h2>{escape(s.title)}</h2>{s.html}" for s in sections[1:])
    numbers = table(["measurement", "of", "value [95 % interval]", "unit", "n"], measurement_rows(metrics))
    config = f"<details><summary>Configuration</summary><pre>{escape(OmegaConf.to_yaml(run.config))}</pre></details>"
    import json

    origin = json.dumps(run.read_json("provenance.json") or {}, indent=2)
    body = (
        f"<h1>{escape(head.title if head else name)}</h1>{unfinished}"
        f'<section class="first"><div>{text}<p class="note">Reproduce it:</p>{command}</div><div>{plot}</div></section>'
        f"{rest}<h2>All measurements</h2>{numbers}{config}"
        f"<details><summary>Provenance</summary><pre>{escape(origin)}</pre></details>"
    )
    header = f"{name} · {status.get('created', '')} · {status.get('state', '')}"
    return html.page(title=name, header=header, body=body)
