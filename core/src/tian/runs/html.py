"""The look of every page tian writes: one self-contained file, readable on a phone, nothing loaded from a network."""

from __future__ import annotations

from html import escape

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


def page(*, title: str, header: str, body: str) -> str:
    """A whole page; `title` and `header` are text, `body` is HTML."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head><body><main>"
        f"<header>{escape(header)}</header>{body}</main></body></html>\n"
    )
