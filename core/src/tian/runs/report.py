"""report.html: one self-contained page; the first screen holds the result, one plot and the command behind it."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from tian.plugins.registry import get_registry
from tian.runs.files import write_atomic
from tian.runs.rundir import open_existing

if TYPE_CHECKING:
    from pathlib import Path

    from tian.runs.rundir import Run
    from tian.types import Section

CSS = """
:root{--ink:#1a1a1a;--soft:#5a5a5a;--line:#d8d8d8;--back:#fff;--card:#f6f6f4}
*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:1180px;margin:0 auto;padding:14px 16px 40px}
header{color:var(--soft);font-size:13px}h1{font-size:21px;line-height:1.3;margin:4px 0 8px}h2{font-size:17px;margin:28px 0 8px}
.first{display:grid;grid-template-columns:minmax(0,1fr);gap:12px}.first svg{width:100%;height:auto;max-height:62vh}
@media(min-width:900px){.first{grid-template-columns:minmax(0,5fr) minmax(0,6fr);align-items:start}h1{font-size:26px}}
p{margin:6px 0}pre{background:var(--card);padding:10px;border-radius:6px;overflow-x:auto;font-size:13px;margin:8px 0}
pre.cmd{white-space:pre-wrap;word-break:break-word}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums}
th,td{padding:5px 12px 5px 0;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left}td.text,th.text{text-align:left;white-space:normal}
.note{color:var(--soft);font-size:14px}details summary{cursor:pointer;color:var(--soft);margin-top:18px}
svg{max-width:100%;height:auto}
"""


def table(head: list[str], rows: list[list[str]]) -> str:
    """An HTML table that scrolls inside itself on a narrow screen; cells are escaped."""
    top = "".join(f"<th>{escape(h)}</th>" for h in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


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
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(name)}</title><style>{CSS}</style></head><body><main>"
        f"<header>{escape(name)} · {escape(str(status.get('created', '')))} · {escape(str(status.get('state', '')))}</header>"
        f"<h1>{escape(head.title if head else name)}</h1>{unfinished}"
        f'<section class="first"><div>{text}<p class="note">Reproduce it:</p>{command}</div><div>{plot}</div></section>'
        f"{rest}<h2>All measurements</h2>{numbers}{config}"
        f"<details><summary>Provenance</summary><pre>{escape(origin)}</pre></details></main></body></html>\n"
    )
