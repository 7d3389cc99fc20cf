"""The engine: every check's runs, several at a time, then one verdict a check."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tian.claims.fingerprint import hardware
from tian.claims.meter import Meter, Meters
from tian.claims.model import Claim
from tian.claims.plan import ARMS, CheckPlan, plan
from tian.claims.processes import Process, new_process
from tian.claims.runner import Outcome, execute, finished
from tian.claims.stats import interval, verdict
from tian.errors import ContractError, PluginError, TianError, UnknownName
from tian.plugins.guard import describe, guard
from tian.plugins.options import nearest
from tian.plugins.registry import get_registry
from tian.runs.progress import Progress
from tian.runs.rundir import now

if TYPE_CHECKING:
    from pathlib import Path

    from tian.claims.model import Check
    from tian.claims.plan import Task

SINGLE_THREAD = ("tiny", "cpu")  # one thread a run: the numbers then do not depend on how many run at once


@dataclass
class Row:
    """The result of one check, as it is shown and stored.

    Attributes:
        claim: id.
        scale: scale.
        verdict: holds | fails | inconclusive | skipped | error | vacuous, or `not measured`.
        reason: why it does not hold, empty when it does.
        values: `claim` and `control` -> one number a seed.
        seeds: the seeds.
        seconds: CPU time of all runs together, those shared with other checks included.
        group: config group in which the control differs.
        code: hash of the code that ran.
        worlds: name -> version and hash.
        date: UTC.
        hardware: in words.
    """

    claim: str
    scale: str
    verdict: str
    reason: str = ""
    values: dict[str, list[float]] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=list)
    seconds: float = 0.0
    group: str = ""
    code: str = ""
    worlds: dict[str, Any] = field(default_factory=dict)
    date: str = ""
    hardware: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def _import(module: str, attribute: str) -> Any:
    return getattr(import_module(module), attribute)


def claims_of(plugin: str | None = None) -> list[tuple[Claim, str]]:
    """The claims of one plugin or of all, with the module of each, in the order in which plugins list them.

    Raises:
        UnknownName: no such plugin, or it has no claims.
        PluginError: its list cannot be imported. ContractError: it is not a list of claims, or an id is not its own.
    """
    lists = get_registry().claim_lists()
    if plugin is not None and plugin not in lists:
        raise UnknownName(f"no plugin called {plugin!r} has claims", hint=nearest(plugin, sorted(lists)))
    out: list[tuple[Claim, str]] = []
    for name, target in sorted(lists.items()):
        if plugin not in (None, name):
            continue
        module, _, attribute = target.partition(":")
        result = guard(partial(_import, module, attribute))
        if isinstance(result.error, TianError):
            result.error.where = result.error.where or f"{result.where}, claims of plugin {name}"
            raise result.error
        if result.error is not None:
            raise PluginError(
                f"the claims of plugin {name} cannot be imported from {target}: {describe(result.error)}",
                where=result.where,
                hint=f"correct {module}, or set TIAN_DISABLE_PLUGINS={name}",
            ) from result.error
        found = list(result.value)
        for claim in found:
            if not isinstance(claim, Claim) or claim.id.partition("/")[0] != name:
                raise ContractError(
                    f"{target} holds {getattr(claim, 'id', claim)!r}, which is not a claim of plugin {name}",
                    where=module,
                    hint=f"list tian.claims.Claim objects with ids {name}/...",
                )
        ids = [c.id for c in found]
        if len(set(ids)) < len(ids):
            raise ContractError(f"{target} uses an id twice: {ids}", where=module, hint="rename one")
        _check_seeds(found, module)
        out.extend((c, module) for c in found)
    return out


def _check_seeds(found: Sequence[Claim], module: str) -> None:
    """Seeds may be those of another claim, never of words somebody chose."""
    by_id = {c.id: c for c in found}
    for claim in found:
        for scale, check in claim.checks.items():
            other = by_id.get(check.seeds_of)
            if check.seeds_of and (other is None or scale not in other.checks or other.checks[scale].seeds_of):
                raise ContractError(
                    f"{claim.id} ({scale}) takes the seeds of {check.seeds_of!r}, which is no claim with seeds of its own",
                    where=module,
                    hint="name a claim of the same plugin that has a check at this scale and no seeds_of",
                )


def take(check: Check, measurements: Iterable[dict[str, Any]]) -> float:
    """The judged number of a run: the first measurement of the check's name and labels.

    Raises:
        UnknownName: the run measured no such thing.
    """
    rows = list(measurements)
    for m in rows:
        if m["name"] == check.metric and all(m["by"].get(k) == v for k, v in check.by.items()):
            return float(m["value"])  # JSON has no NaN: it was written as text
    names = sorted({f"{m['name']} {m['by'] or ''}".strip() for m in rows})
    raise UnknownName(
        f"{check.config} measured no {check.metric!r} {dict(check.by) or ''}".rstrip(),
        where="metric and by of the check",
        hint=nearest(check.metric, names),
    )


def run_claims(
    claims: Sequence[tuple[Claim, str]],
    scale: str,
    *,
    root: Path,
    jobs: int | None = None,
    fresh: bool = False,
    measure: bool = True,
) -> list[Row]:
    """Check every claim that has a check at `scale`.

    Runs live in `root/<run>/<scale>/`, named by seed, config, code and worlds. One that several checks ask for is run
    once; a finished one is not run again, an unfinished one is continued. Ctrl-C stops the runs under way and leaves
    them resumable.

    Args:
        claims: from `claims_of`.
        scale: tiny, cpu, gpu or paper.
        root: folder for the runs.
        jobs: runs at once; None: the number of cores.
        fresh: run everything again.
        measure: False only looks at what is finished.

    Raises:
        KeyboardInterrupt: Ctrl-C.
    """
    rows: dict[str, Row] = {}
    plans: list[CheckPlan] = []
    for claim, module in claims:
        if scale not in claim.checks:
            continue
        rows[claim.id] = Row(claim.id, scale, "not measured")
        try:
            plans.append(plan(claim, scale, module=module, root=root))
        except TianError as error:
            rows[claim.id] = Row(claim.id, scale, "error", f"{error.message} ({error.where})".replace(" ()", ""))
    outcomes = _run_all(plans, scale, jobs, fresh=fresh) if measure else {}
    for p in plans:
        known = outcomes.get(p.claim.id) or [finished(t) or Outcome("missing") for t in p.tasks]
        rows[p.claim.id] = conclude(p, known)
    return list(rows.values())


def _run_all(plans: list[CheckPlan], scale: str, jobs: int | None, *, fresh: bool) -> dict[str, list[Outcome]]:
    """Run each directory once, whoever asks for it; the outcome of every task of every check."""
    places: dict[Path, list[tuple[CheckPlan, int]]] = {}  # in the order of the claims
    for p in plans:
        for i, task in enumerate(p.tasks):
            places.setdefault(task.path, []).append((p, i))
    meters = {p.claim.id: Meter(p.check.budget_s) for p in plans}
    out: dict[str, list[Outcome]] = {p.claim.id: [Outcome("missing") for _ in p.tasks] for p in plans}
    cancel = threading.Event()
    local, processes = threading.local(), list[Process]()

    def enter() -> None:  # a thread of the pool keeps its process, which keeps what it has imported
        local.process = new_process(1 if scale in SINGLE_THREAD else None)
        processes.append(local.process)

    def go(task: Task, meter: Meters) -> Outcome:
        return execute(task, meter, process=local.process, cancel=cancel, fresh=fresh)

    with (
        Progress(len(places), "claims") as bar,
        ThreadPoolExecutor(jobs or os.cpu_count() or 1, initializer=enter) as pool,
    ):
        try:
            futures: dict[Future[Outcome], list[tuple[CheckPlan, int]]] = {}
            for users in places.values():
                first, i = users[0]
                shared = Meters([meters[name] for name in dict.fromkeys(p.claim.id for p, _ in users)])
                futures[pool.submit(go, first.tasks[i], shared)] = users
            for future in as_completed(futures):
                for p, i in futures[future]:
                    out[p.claim.id][i] = future.result()
                bar.advance(1, f"claims: {futures[future][0][0].claim.id}")
        except BaseException:
            cancel.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
        finally:
            pool.shutdown(wait=True)
            for process in processes:
                process.close()
    return out


def conclude(p: CheckPlan, outcomes: Sequence[Outcome]) -> Row:
    """The row of one check from how its tasks ended."""
    row = Row(
        p.claim.id,
        p.scale,
        "not measured",
        seeds=list(dict.fromkeys(t.seed for t in p.tasks)),
        seconds=round(sum(o.seconds for o in outcomes), 1),
        group=p.group,
        code=p.code,
        worlds=p.worlds,
        date=now(),
        hardware=hardware(),
    )
    for state, result in (("error", "error"), ("over", "error"), ("skipped", "skipped"), ("stopped", "not measured")):
        bad = [(t, o) for t, o in zip(p.tasks, outcomes, strict=True) if o.state == state]
        if bad:
            task, outcome = bad[0]
            done = sum(o.state == "done" for o in outcomes)
            count = f"; {done} of {len(outcomes)} runs were done" if state == "over" else ""
            row.verdict, row.reason = result, f"{task.arm}, seed {task.seed}: {outcome.reason}{count}"
            return row
    if any(o.state != "done" for o in outcomes):
        return row
    try:
        for arm in ARMS:
            pairs = zip(p.tasks, outcomes, strict=True)
            row.values[arm] = [take(p.check, o.measurements) for t, o in pairs if t.arm == arm]
    except TianError as error:
        row.verdict, row.reason = "error", f"{error.message}; {error.hint}"
        return row
    row.verdict, row.reason = verdict(p.check.holds, row.values["claim"], row.values["control"])
    return row


def as_recorded(claim: Claim, row: Row) -> bool:
    """Whether the row needs nobody's attention: the recorded verdict, skipped, or not measured."""
    return row.verdict in (claim.expected, "skipped", "not measured")


def summary(values: Sequence[float]) -> str:
    """`mean [low, high]`, empty for no values.

    Example:
        >>> summary([1.0, 1.0])
        '1 [1, 1]'
    """
    if not values:
        return ""
    mean, low, high = interval(values)
    return f"{mean:.4g}" if len(values) == 1 else f"{mean:.4g} [{low:.4g}, {high:.4g}]"
