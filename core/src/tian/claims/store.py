"""Results kept in a plugin: one file a scale, with hardware and date; stale when code or a world has changed since."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tian.claims.engine import Row
from tian.claims.fingerprint import code_hash, package_folder, worlds_of
from tian.errors import RunError
from tian.runs.files import read_json, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from tian.claims.model import Check, Claim

KEPT = ("holds", "fails", "inconclusive", "vacuous")  # the others say nothing that lasts


def results_folder(module: str) -> Path:
    """`results/` in the package that holds the claims module."""
    place = package_folder(module)
    return (place if place.is_dir() else place.parent) / "results"


def definition(check: Check) -> dict[str, Any]:
    """What a check asks, as plain data: a stored result counts only for the same question."""
    return {
        "config": check.config,
        "overrides": list(check.overrides),
        "control": list(check.control),
        "metric": check.metric,
        "by": dict(check.by),
        "bar": str(check.holds),
        "seeds": check.seeds,
        **({"seeds of": check.seeds_of} if check.seeds_of else {}),
        "worlds": {w.name: w.version for w in check.worlds},
    }


def stored(claim: Claim, scale: str, module: str) -> tuple[Row, str] | None:
    """A kept result and why it is stale (empty when it is not), or None."""
    file = results_folder(module) / f"{scale}.json"
    try:
        kept = read_json(file).get(claim.id)
        row = Row(**kept["row"]) if kept else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    if row is None or scale not in claim.checks:
        return None
    check = claim.checks[scale]
    if kept["check"] != definition(check):
        return row, "the check has changed since"
    if row.worlds != worlds_of(check.worlds):
        return row, "a world has changed since"
    return row, "" if row.code == code_hash(module) else "the code has changed since"


def keep(claims: list[tuple[Claim, str]], rows: list[Row]) -> list[Path]:
    """Write the rows that have a lasting verdict into their plugins; returns the files.

    Raises:
        RunError: the plugin's folder cannot be written.
    """
    by_id = {claim.id: (claim, module) for claim, module in claims}
    files: dict[Path, dict[str, Any]] = {}
    for row in rows:
        if row.verdict not in KEPT:
            continue
        claim, module = by_id[row.claim]
        file = results_folder(module) / f"{row.scale}.json"
        if file not in files:
            try:
                files[file] = dict(read_json(file))
            except (OSError, ValueError):
                files[file] = {}
        files[file][row.claim] = {"check": definition(claim.checks[row.scale]), "row": row.as_dict()}
    for file, content in files.items():
        try:
            file.parent.mkdir(exist_ok=True)
            write_json(file, dict(sorted(content.items())))
        except OSError as error:
            raise RunError(
                f"cannot keep the results in {file}: {error.strerror}",
                where=str(file),
                hint="install the plugin from a folder you can write (pip install -e), or leave --store out",
            ) from None
    return sorted(files)
