"""What a run leaves behind of its designs, enough to prove each of them again: costs, rules, designs, certificates.

Files: `problem.json` (rules), `designs.npz` (`designs`, `rows`: the answer each design belongs to, `costs` of all
answers), `certificates.jsonl` and `summary.json`; levels also as text, `levels/ROW.txt`. No code is named in any of
them: a Pyomo model is kept as the arrays it was compiled to, in `program.npz`.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tian.errors import DataError, InvalidInput
from tian.files import write_atomic
from tian_genco.levels.language import parse_rules
from tian_genco.levels.rules import LevelRules
from tian_genco.levels.tiles import TILES, to_grid, to_lines, to_x
from tian_genco.problem import Milp
from tian_genco.sampling.draw import Drawn
from tian_genco.solving.certificate import LINES, SUMMARY, Certificate, certify, read, verify, write
from tian_genco.solving.diverse import Extended, hamming_row

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from tian.spec import Solver
    from tian_genco.problem import Problem

PROBLEM, DESIGNS, PROGRAM = "problem.json", "designs.npz", "program.npz"


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be: the answer it concerns, None for the whole, and what it is."""

    row: int | None
    what: str


def cells_of(base: LevelRules) -> NDArray[np.int64]:
    """`[cells, tiles]`: the columns of each cell of a level."""
    return np.arange(base.n).reshape(len(TILES), base.cells).T


def save_levels(
    folder: Path, drawn: Drawn, base: LevelRules, *, rules: Sequence[str] = (), min_hamming: int = 0
) -> str:
    """Write the record of levels; `rules` are lines of the tile language. Returns the digest of the certificates."""
    rows = np.flatnonzero(drawn.batch.found)
    grids = to_grid(drawn.batch.x[rows], base.height, base.width)
    (folder / "levels").mkdir(parents=True, exist_ok=True)
    for row, grid in zip(rows, grids, strict=True):
        write_atomic(folder / "levels" / f"{row:04}.txt", "".join(f"{line}\n" for line in to_lines(grid)))
    about = {"height": base.height, "width": base.width, "enemy_share": base.enemy_share, "rules": list(rules)}
    return _save(folder, drawn, grids, {"kind": "level", **about, "min_hamming": min_hamming})


def save_model(folder: Path, drawn: Drawn, program: Milp, names: Sequence[str], *, min_hamming: int) -> str:
    """Write the record of designs of a compiled model; `names` are those of its n entries. Returns the digest."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {f.name: getattr(program, f.name) for f in fields(Milp)}
    np.savez_compressed(folder / PROGRAM, **arrays)
    designs = np.rint(drawn.batch.x[drawn.batch.found]).astype(np.uint8)
    return _save(folder, drawn, designs, {"kind": "model", "min_hamming": min_hamming}, names=np.array(names))


def _save(folder: Path, drawn: Drawn, designs: NDArray[np.uint8], about: Mapping[str, Any], **more: Any) -> str:
    rows = np.flatnonzero(drawn.batch.found)
    np.savez_compressed(folder / DESIGNS, designs=designs, rows=rows, costs=drawn.costs, **more)
    write_atomic(folder / PROBLEM, json.dumps(about, indent=1) + "\n")
    certificates: list[Certificate] = []
    for start, end in _groups(drawn.problems):
        part = drawn.take(np.arange(start, end))
        certificates += certify(part.problems[0], part.costs, part.batch)
    return write(folder, certificates)


def check(folder: Path, *, solver: Solver | None, time_limit_s: float, digest: str = "") -> tuple[int, list[Finding]]:
    """Prove a record again.

    Args:
        folder: as written by `save_levels` or `save_model`.
        solver: solves every instance again; None trusts the bounds.
        time_limit_s: of each of these solves.
        digest: what the writer returned, when known from elsewhere.

    Returns:
        How many certificates there are, and what is wrong with them.

    Raises:
        DataError: a file is missing or cannot be read at all.
    """
    certificates = read(folder)
    about, arrays = _json(folder / PROBLEM), _npz(folder / DESIGNS)
    costs = np.asarray(arrays.get("costs", ()), np.float64)
    if costs.ndim != 2 or len(costs) != len(certificates):
        raise DataError(
            f"{DESIGNS} holds costs {list(costs.shape)} for {len(certificates)} certificates", where=str(folder)
        )
    found = _changed_lines(folder, certificates, digest)
    base, cells = _problem(folder, about)
    problems, stop = _with_distances(base, certificates, int(about.get("min_hamming", 0)), cells)
    if stop < len(certificates):
        found.append(Finding(stop, "its distances from others cannot be computed; nothing after it is checked"))
    with tempfile.TemporaryDirectory() as scratch:
        for start, end in _groups(problems):
            write(Path(scratch), certificates[start:end])
            wrong = verify(Path(scratch), problems[start], costs[start:end], solver=solver, time_limit_s=time_limit_s)
            for text in wrong:
                number, _, what = text.removeprefix("certificate ").partition(": ")
                found.append(Finding(start + int(number), what))
    return len(certificates), [*found, *_other_designs(folder, certificates, arrays, about)]


def _groups(problems: Sequence[Problem]) -> list[tuple[int, int]]:
    """Stretches of one and the same problem."""
    starts = [i for i, p in enumerate(problems) if i == 0 or p is not problems[i - 1]]
    return list(zip(starts, [*starts[1:], len(problems)], strict=True)) if starts else []


def _changed_lines(folder: Path, certificates: Sequence[Certificate], digest: str) -> list[Finding]:
    """Whether the files are those that `write` makes of these certificates."""
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        own = write(Path(scratch), certificates)
        told, made = ((f / LINES).read_text().splitlines() for f in (folder, Path(scratch)))
        first = next((i for i, (a, b) in enumerate(zip(told, made, strict=False)) if a != b), None)
        if first is not None:
            found.append(Finding(first, "the chain of digests breaks here"))
        if _json(folder / SUMMARY) != _json(Path(scratch) / SUMMARY):
            found.append(Finding(None, f"{SUMMARY} is not that of these certificates"))
    if digest and digest != own:
        found.append(Finding(None, f"the digest is {own}, {digest} was published"))
    return found


def _problem(folder: Path, about: Mapping[str, Any]) -> tuple[Extended, NDArray[np.int64] | None]:
    """The problem without distances, and the columns of each cell if designs have cells."""
    try:
        if about["kind"] == "level":
            base = LevelRules(about["height"], about["width"], about["enemy_share"])
            return Extended.of(parse_rules(about["rules"], base).level if about["rules"] else base), cells_of(base)
        if about["kind"] == "model":
            arrays = _npz(folder / PROGRAM)
            plain = {
                **arrays,
                "cost_columns": int(arrays["cost_columns"]),
                "row_names": tuple(map(str, arrays["row_names"])),
            }
            return Extended.of(Milp(**plain)), None
        raise ValueError(f"unknown kind {about['kind']!r}")
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{PROBLEM} is damaged: {error}", where=str(folder)) from error


def _with_distances(
    problem: Extended, certificates: Sequence[Certificate], h: int, cells: NDArray[np.int64] | None
) -> tuple[list[Extended], int]:
    """The problem of each certificate, up to the first one that later distances cannot be computed from."""
    problems: list[Extended] = []
    for i, c in enumerate(certificates):
        problems.append(problem)
        if h and c.x is not None:
            try:
                if len(c.x) != problem.n:
                    return problems, i
                problem = problem.and_rows([hamming_row(np.array(c.x), cells, h)])
            except InvalidInput:
                return problems, i
    return problems, len(certificates)


def _other_designs(
    folder: Path, certificates: Sequence[Certificate], arrays: Mapping[str, Any], about: Mapping[str, Any]
) -> list[Finding]:
    """Designs in the files beside that are not the certified ones."""
    found = []
    designs, rows = np.asarray(arrays.get("designs", ())), [i for i, c in enumerate(certificates) if c.x is not None]
    if len(designs) != len(rows):
        return [Finding(None, f"{DESIGNS} holds {len(designs)} designs, {len(rows)} are certified")]
    level = about["kind"] == "level"
    for row, design in zip(rows, designs, strict=True):
        try:
            x = to_x(design) if level else design.reshape(-1)
            same = np.array_equal(x, np.array(certificates[row].x))
        except InvalidInput:
            same = False
        if not same:
            found.append(Finding(row, f"the design in {DESIGNS} is another one"))
        if level:
            file = folder / "levels" / f"{row:04}.txt"
            text = "".join(f"{line}\n" for line in to_lines(design)) if same else ""
            if same and (not file.is_file() or file.read_bytes() != text.encode()):
                found.append(Finding(row, f"levels/{file.name} is not this level"))
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path.name} cannot be read: {error}", where=str(path.parent)) from error


def _npz(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path.name} cannot be read: {error}", where=str(path.parent)) from error
