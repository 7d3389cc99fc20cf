"""Recipe `genco/verify`: prove the designs of a run again, and name every one that was tampered with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tian.config.compose import options_of
from tian.errors import DataError
from tian.types import Measurement
from tian_genco.sampling.options import given
from tian_genco.sampling.record import PROBLEM, check

if TYPE_CHECKING:
    from tian.runs.rundir import Run
    from tian_genco.sampling.options import VerifyOptions

RESULTS = "results.json"
NAMED = 3  # findings in the error; all are in the report


def verify_run(cfg: Any, run: Run) -> list[Measurement]:
    """See `VerifyOptions`. No code that the folder names is executed: rules are read, Pyomo models are arrays.

    Raises:
        DataError: no certificates, files that cannot be read, or something that does not agree, by design; the table is
        in the report (`tian report`).
    """
    options: VerifyOptions = options_of(cfg)
    source = given(options.from_, "a run that left certificates")
    if not source.is_dir():
        raise DataError(f"{source} is not a directory", where="from", hint="give the folder of a run")
    folders = sorted(file.parent for file in source.rglob(PROBLEM))
    if not folders:
        raise DataError(
            f"{source} holds no certificates ({PROBLEM} is in none of its folders)",
            where="from",
            hint="give the folder of a run of genco/sample or genco/custom",
        )
    solver = run.load("solver", options.solver) if options.resolve else None
    rows, total = [], 0
    with run.progress(len(folders), "folders") as bar:
        for folder in folders:
            count, found = check(folder, solver=solver, time_limit_s=options.time_limit_s, digest=options.digest)
            name = str(folder.relative_to(source))
            rows += [{"folder": name, "design": f.row, "what": f.what} for f in found]
            total += count
            bar.advance(1)
    run.write_json(RESULTS, {"source": str(source), "certificates": total, "resolved": options.resolve, "found": rows})
    if rows:
        said = "; ".join(f"{_place(row)}: {row['what']}" for row in rows[:NAMED])
        more = f", and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
        raise DataError(
            f"{len(rows)} things of {total} certificates do not agree: {said}{more}",
            where=str(source),
            hint=f"do not trust these designs; the whole table: tian report {run.path}",
        )
    out = [Measurement("certificates proven", float(total), "1", total, higher_is_better=True)]
    if options.resolve:
        out.append(Measurement("solved again", float(total), "1", total, higher_is_better=True))
    return out


def _place(row: dict[str, Any]) -> str:
    of = "" if row["folder"] == "." else f"{row['folder']}: "
    return f"{of}design {row['design']}" if row["design"] is not None else f"{of}the whole"
