"""Certificates: what was proven of each sample, kept so that a change of any of it shows."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tian.errors import DataError, InvalidInput
from tian.files import write_atomic
from tian.spec import Solution, SolutionBatch, Solver
from tian_genco.problem import TOLERANCE, Floats, Problem
from tian_genco.solving.engine import complete

LINES, SUMMARY = "certificates.jsonl", "summary.json"
_EXACT = 1e-9  # relative; how far a sum recomputed on another machine may be off
PROVEN = 1e-6  # relative; a certificate says optimal only when its bound is this close, else feasible


@dataclass(frozen=True)
class Certificate:
    """What is known of one sample.

    Attributes:
        problem: `fingerprint` of the problem.
        cost: sha256 of the cost, `[n]` little-endian float64.
        x: n numbers, or None.
        objective: cost . x, NaN without x.
        bound: proven lower bound.
        gap: (objective - bound) / max(1, |objective|), NaN without x.
        status: of the solver role.
        route: how it was found.
        residual: worst violation of a row, bound or integrality by x with the best further columns; inf when there are
            no such columns, NaN without x.
        verdict: what the independent checker says, empty for a valid x.
    """

    problem: str
    cost: str
    x: tuple[float, ...] | None
    objective: float
    bound: float
    gap: float
    status: str
    route: str
    residual: float
    verdict: str


def fingerprint(problem: Problem) -> str:
    """Sha256 over kind and compiled arrays."""
    milp = problem.milp()
    digest = hashlib.sha256(f"{problem.kind} {problem.n} {milp.row_names}".encode())
    for whole in (milp.indptr, milp.indices, milp.integer.astype(np.int64)):
        digest.update(whole.astype("<i8").tobytes() + b"|")
    for array in (milp.values, milp.row_lower, milp.row_upper, milp.col_lower, milp.col_upper):
        digest.update(_bytes(array) + b"|")
    return digest.hexdigest()


def certify(problem: Problem, costs: Floats, batch: SolutionBatch) -> list[Certificate]:
    """Certificates of a batch, residuals and verdicts computed here.

    Args:
        problem: what was solved.
        costs: `[B, n]`.
        batch: the B answers.

    Raises:
        InvalidInput: costs and batch do not fit together.
    """
    if costs.shape != batch.x.shape:
        raise InvalidInput(f"costs {list(costs.shape)} do not belong to answers {list(batch.x.shape)}")
    of = fingerprint(problem)
    return [_certificate(problem, of, c, batch.solution(i), batch.route[i]) for i, c in enumerate(costs)]


def write(folder: Path, certificates: Sequence[Certificate]) -> str:
    """Write `certificates.jsonl`, each line chained to those before by sha256, and `summary.json`.

    Returns:
        The digest of everything. Published elsewhere it proves the files; whoever can change the files can also
        compute new digests.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chain, lines = "", []
    for c in certificates:
        body = _dumps(_plain(c))
        chain = _sha(chain + body)
        lines.append(f'{{"chain":"{chain}","certificate":{body}}}\n')
    summary = _summary(certificates, chain)
    write_atomic(folder / LINES, "".join(lines))
    write_atomic(folder / SUMMARY, json.dumps(summary, indent=1, sort_keys=True) + "\n")
    return str(summary["digest"])


def read(folder: Path) -> list[Certificate]:
    """The certificates of a folder, unchecked. Raises DataError for a file that is missing or damaged."""
    return [c for _, c in _lines(folder)]


def verify(
    folder: Path,
    problem: Problem,
    costs: Floats,
    *,
    digest: str = "",
    solver: Solver | None = None,
    time_limit_s: float = 60.0,
) -> list[str]:
    """Compute everything again and name what does not agree; empty when all is proven.

    Args:
        folder: as written by `write`.
        problem: what the samples must obey.
        costs: `[B, n]` that they were solved under.
        digest: what `write` returned, when known from elsewhere; with it no change at all goes unseen.
        solver: solve every instance again with it, to prove bounds and statuses too.
        time_limit_s: of each of these solves.
    """
    try:
        lines, summary = _lines(folder), _json(folder / SUMMARY, (folder / SUMMARY).read_text())
    except DataError as error:
        return [error.message]
    except OSError as error:
        return [f"{SUMMARY}: {error.strerror}"]
    certificates = [c for _, c in lines]
    found, before, chain = [], "", ""
    for i, (told, c) in enumerate(lines):
        body = _dumps(_plain(c))
        if told != _sha(before + body):
            found.append(f"certificate {i}: the chain of digests breaks here")
        before, chain = told, _sha(chain + body)
    expected = _summary(certificates, chain)
    found += [
        f"{SUMMARY}: {key} is {summary.get(key)}, not {v}" for key, v in expected.items() if summary.get(key) != v
    ]
    if digest and digest != expected["digest"]:
        found.append(f"{SUMMARY}: the digest is {expected['digest']}, {digest} was published")
    if len(certificates) != len(costs):
        return [*found, f"{len(certificates)} certificates for {len(costs)} costs"]
    of = fingerprint(problem)
    for i, (c, cost) in enumerate(zip(certificates, np.asarray(costs, np.float64), strict=True)):
        found += [f"certificate {i}: {what}" for what in _wrong(c, problem, of, cost)]
        if solver is not None:
            again = solver.solve(problem.instance(cost), time_limit_s=time_limit_s)
            found += [f"certificate {i}: {what}" for what in _unproven(c, again)]
    return found


def _certificate(problem: Problem, of: str, cost: Floats, s: Solution, route: str) -> Certificate:
    objective = gap = residual = math.nan
    verdict = ""
    if s.x is not None:
        objective = float(np.asarray(cost, np.float64) @ s.x)
        gap = (objective - s.bound) / max(1.0, abs(objective))
        y = complete(problem, s.x)
        residual = math.inf if y is None else problem.milp().residual(y)
        verdict = problem.broken(s.x)
    x = None if s.x is None else tuple(s.x.tolist())
    status = "feasible" if s.status == "optimal" and gap > PROVEN else s.status
    return Certificate(of, _sha(_bytes(cost)), x, objective, s.bound, gap, status, route, residual, verdict)


def _wrong(c: Certificate, problem: Problem, of: str, cost: Floats) -> Iterator[str]:
    """What of a certificate does not hold, by arithmetic and by the checker."""
    x = None if c.x is None else np.array(c.x)
    if (x is None) == (c.status in ("optimal", "feasible")):
        yield f"status {c.status!r} {'without' if x is None else 'with'} x"
    if x is not None and (x.shape != (problem.n,) or not np.isfinite(x).all()):
        yield f"x is not {problem.n} finite numbers"
        return
    solution = Solution(x, c.objective, c.bound, c.status, 0.0)  # type: ignore[arg-type]
    true = _certificate(problem, of, cost, solution, c.route)
    for name in ("problem", "cost", "verdict"):
        if getattr(c, name) != getattr(true, name):
            yield f"{name} is {getattr(c, name)!r}, computed {getattr(true, name)!r}"
    for name in ("objective", "gap", "residual"):
        told, computed = getattr(c, name), getattr(true, name)
        if not _close(told, computed):
            yield f"{name} is {told}, computed {computed}"
    if x is None:
        return
    if true.verdict or true.residual > TOLERANCE:
        yield f"x is not valid: {true.verdict or f'rows are off by {true.residual:g}'}"
    if true.gap < -_EXACT or (c.status == "optimal" and true.gap > PROVEN):
        yield f"bound {c.bound} does not prove {c.status!r} for the objective {true.objective}"


def _unproven(c: Certificate, again: Solution) -> Iterator[str]:
    """What of a certificate a second solve contradicts, or fails to confirm."""
    if again.status not in ("optimal", "infeasible"):
        yield f"the second solve ended with {again.status!r}, nothing is confirmed"
    elif again.status == "infeasible":
        if c.x is not None:
            yield "there is an x, but the second solve finds none"
    elif c.status == "infeasible" or c.bound > again.objective + TOLERANCE * max(1.0, abs(again.objective)):
        yield f"bound {c.bound} (status {c.status!r}) is above the optimum {again.objective}"
    elif c.status == "optimal" and c.objective > again.objective + PROVEN * max(1.0, abs(again.objective)):
        yield f"objective {c.objective} is not optimal, {again.objective} is"


def _close(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b)) or abs(a - b) <= _EXACT * max(1.0, abs(a), abs(b))


def _summary(certificates: Sequence[Certificate], chain: str) -> dict[str, Any]:
    found = [c for c in certificates if c.x is not None]
    body: dict[str, Any] = {
        "certificates": len(certificates),
        "problems": sorted({c.problem for c in certificates}),
        "statuses": dict(sorted(Counter(c.status for c in certificates).items())),
        "routes": dict(sorted(Counter(c.route for c in certificates).items())),
        "valid": sum(not c.verdict for c in found),
        "largest_gap": _number(max((c.gap for c in found), default=0.0)),
        "largest_residual": _number(max((c.residual for c in found), default=0.0)),
        "chain": chain,
    }
    return {**body, "digest": _sha(_dumps(body))}


def _lines(folder: Path) -> list[tuple[str, Certificate]]:
    """Chain digest and certificate of each line."""
    try:
        text = (folder / LINES).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{LINES} cannot be read: {error}", where=str(folder), hint="name a folder of write()"
        ) from error
    out = []
    for i, line in enumerate(text.splitlines()):
        try:
            record = json.loads(line)
            fields = dict(record["certificate"])
            for name in ("objective", "bound", "gap", "residual"):
                fields[name] = float(fields[name])
            fields["x"] = None if fields["x"] is None else tuple(float(v) for v in fields["x"])
            out.append((str(record["chain"]), Certificate(**fields)))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{LINES}: line {i + 1} is damaged: {error}", where=str(folder)) from error
    return out


def _json(path: Path, text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise DataError(f"{path.name} is damaged: {error}", where=str(path.parent)) from error


def _plain(c: Certificate) -> dict[str, Any]:
    fields = asdict(c)
    for name in ("objective", "bound", "gap", "residual"):
        fields[name] = _number(fields[name])
    if c.x is not None:
        fields["x"] = [int(v) if v.is_integer() else v for v in c.x]
    return fields


def _number(value: float) -> float | str:
    """JSON knows neither NaN nor infinity."""
    return value if math.isfinite(value) else repr(value)


def _dumps(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _bytes(array: Floats) -> bytes:
    return np.asarray(array, "<f8").tobytes()


def _sha(data: str | bytes) -> str:
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()
