"""`tian claims [PLUGIN]`: run the checks, print the scoreboard, write the page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tian.cli.console import columns, err, out, out_json
from tian.errors import UnknownName

if TYPE_CHECKING:
    import argparse

    from tian.claims.engine import Row
    from tian.claims.model import Claim

ROOT = Path("runs") / "claims"


def main(args: argparse.Namespace) -> int:
    """Print a line a claim; 1 when one is an error, vacuous, or not what is recorded of it."""
    from tian.claims.engine import as_recorded, claims_of, run_claims
    from tian.claims.model import SCALES
    from tian.claims.promises import promises
    from tian.claims.scoreboard import counts, promise_words, scoreboard
    from tian.claims.store import keep, stored
    from tian.files import write_atomic
    from tian.plugins.options import nearest

    found = claims_of(args.plugin)
    ids = [c.id for c, _ in found]
    for name in args.only:
        if name not in (*ids, *(i.partition("/")[2] for i in ids)):
            raise UnknownName(f"there is no claim {name!r}", where="--only", hint=nearest(name, ids))
    if args.only:
        found = [(c, m) for c, m in found if {c.id, c.id.partition("/")[2]} & set(args.only)]
    rows = run_claims(found, args.scale, root=ROOT, jobs=args.jobs, fresh=args.fresh, measure=not args.list)
    kept = {c.id: {s: k for s in SCALES if s != args.scale and (k := stored(c, s, m))} for c, m in found}
    rows = [_or_stored(r, found) for r in rows] if args.list else rows
    files = keep(found, rows) if args.store else []
    claims = [c for c, _ in found]
    ROOT.mkdir(parents=True, exist_ok=True)
    page = ROOT / f"scoreboard-{args.scale}.html"
    write_atomic(page, scoreboard(claims, args.scale, rows, kept, promises()))
    by_id = {c.id: c for c in claims}
    surprises = [r for r in rows if not as_recorded(by_id[r.claim], r)]
    if args.json:
        out_json(
            {
                "scale": args.scale,
                "page": str(page),
                "claims": [_record(by_id[r.claim], r) for r in rows],
                "stored": {
                    i: {s: {**row.as_dict(), "stale": why} for s, (row, why) in k.items()} for i, k in kept.items()
                },
                "promises": promise_words(promises()),
            }
        )
        return 1 if surprises else 0
    _print(by_id, rows, args.scale)
    for name, scales in kept.items():
        for scale, (row, why) in scales.items():
            out(f"{name}, {scale}: {row.verdict}, {row.date}, {row.hardware}{f' (stale: {why})' if why else ''}")
    out(f"\n{counts(rows)}; {promise_words(promises())}")
    for file in files:
        err(f"kept in {file}")
    out(f"scoreboard: {page}")
    return 1 if surprises else 0


def _or_stored(row: Row, found: list[tuple[Claim, str]]) -> Row:
    """With --list: what is kept of this scale, when nothing finished lies in the runs folder."""
    from tian.claims.store import stored

    if row.verdict != "not measured":
        return row
    claim, module = next((c, m) for c, m in found if c.id == row.claim)
    known = stored(claim, row.scale, module)
    if known is None:
        return row
    known[0].reason = "; ".join(filter(None, [known[0].reason, f"stale: {known[1]}" if known[1] else ""]))
    return known[0]


def _record(claim: Claim, row: Row) -> dict[str, Any]:
    from tian.claims.engine import as_recorded
    from tian.claims.store import definition

    check = claim.checks[row.scale]
    return {
        **row.as_dict(),
        "says": claim.says,
        "paper": claim.paper,
        "where": claim.where,
        "promises": list(claim.promises),
        "expected": claim.expected,
        "because": claim.because,
        "as_recorded": as_recorded(claim, row),
        "stands_in": check.stands_in,
        "check": definition(check),
    }


def _print(by_id: dict[str, Claim], rows: list[Row], scale: str) -> None:
    from tian.claims.engine import as_recorded, summary

    if not rows:
        out(f"no claim has a check at scale {scale}")
        return
    table = [["", "claim", "measured [95 %]", "bar", "control [95 %]", "CPU"]]
    for r in rows:
        check = by_id[r.claim].checks[scale]
        measured, control = (summary(r.values.get(arm, [])) for arm in ("claim", "control"))
        table.append([r.verdict, r.claim, measured, str(check.holds), control, f"{r.seconds:.0f} s"])
    out(columns(table))
    out()
    for r in rows:
        claim, check = by_id[r.claim], by_id[r.claim].checks[scale]
        out(f"{r.claim}: {claim.says}")
        out(f"  {check.metric} of {check.config}; the control sets {' '.join(check.control)}")
        if check.stands_in:
            out(f"  stand-in: {check.stands_in}")
        if claim.expected != "holds":
            out(f"  recorded as: {claim.expected}, because {claim.because}")
        if r.reason:
            out(f"  {r.verdict}: {r.reason}")
        if not as_recorded(claim, r):
            out(f"  recorded is {claim.expected!r}: look into it, or record the new verdict with its reason")
