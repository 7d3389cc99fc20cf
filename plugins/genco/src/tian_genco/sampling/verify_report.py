"""Reports of `genco/verify`."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from tian.runs.html import table
from tian.types import Section
from tian_genco.sampling.verify import RESULTS

if TYPE_CHECKING:
    from tian.runs.rundir import Run


def sections(run: Run) -> list[Section]:
    """Everything that does not agree, or that all does."""
    results = run.read_json(RESULTS)
    if results is None:
        return []
    found, total = results["found"], results["certificates"]
    how = "computed and solved again" if results["resolved"] else "computed again; bounds were trusted (resolve=true)"
    text = f"<p>Source: {escape(results['source'])}. Objectives, rows, rules and digests were {how}.</p>"
    if not found:
        return [Section(f"{total} certificates hold", text)]
    rows = [[r["folder"], "" if r["design"] is None else str(r["design"]), r["what"]] for r in found]
    body = text + table(["folder", "design", "what does not agree"], rows)
    return [Section(f"Tampered with or damaged: {len(found)} findings in {total} certificates", body)]
