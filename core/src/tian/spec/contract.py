"""What a component may return: one place for the hosts, which refuse the rest, and for the conformance kit.

Every function returns its argument when it obeys the contract of its role, else raises `ContractError` naming the
component, the plugin and its version. Nothing is repaired: a wrong value never travels on.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from tian.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from tian.spec.evaluator import Evaluator
    from tian.spec.kv_policy import KVPolicy
    from tian.spec.planner import Budget, Plan, Planner
    from tian.spec.reward_model import RewardModel
    from tian.spec.solver import Instance, Solution, Solver
    from tian.spec.sparsity_predictor import SparsityPredictor
    from tian.types import Measurement

STAMP = "_tian_entry"  # attribute the registry sets on what it constructs
PLAN_STATUS = ("ok", "budget", "fallback")
SOLUTION_STATUS = ("optimal", "feasible", "infeasible", "unbounded", "timeout", "error")
_WITH_X = ("optimal", "feasible")
_MAYBE_X = ("timeout",)


def name_of(component: Any) -> str:
    """`kv_policy 'kvcache/streaming' (tian-plugin-kvcache 0.1.0)` for what the registry made, else the class name."""
    entry = getattr(component, STAMP, None)
    if entry is None:
        return type(component).__name__
    return f"{entry.kind} {entry.qualified!r} ({entry.dist} {entry.version})"


def broken(component: Any, method: str, got: str, want: str) -> ContractError:
    """The error for a `method` that returned `got` where the contract wants `want`."""
    cls, entry = type(component), getattr(component, STAMP, None)
    where = f"{cls.__module__}:{cls.__qualname__}.{method}"
    hint = f"fix {method}; tian.testing.conformance has a test for this"
    if entry is not None:
        where = f"plugin {entry.plugin}, {entry.dist} {entry.version}, {where}"
        hint = f"report it to the author of {entry.dist}, or choose another {entry.kind}"
    return ContractError(
        f"{name_of(component)}: {method} returned {got}; the contract wants {want}", where=where, hint=hint
    )


def _tensor(component: Any, method: str, value: Any, *, dtype: torch.dtype, shape: str) -> None:
    if not isinstance(value, torch.Tensor):
        raise broken(component, method, f"a {type(value).__name__}", f"a tensor {shape}")
    if value.dtype != dtype:
        raise broken(component, method, f"dtype {_short(value.dtype)}", f"{shape} {_short(dtype)}")


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# -- kv_policy ---------------------------------------------------------------------------------------------------------


def check_kept(policy: KVPolicy, keep: Tensor, *, rows: Sequence[int], n: int, capacity: int) -> Tensor:
    """What `select` returned for `n` tokens.

    Args:
        policy: whose `select` it was.
        keep: `[B, H_kv, K]` int64, ascending and unique, newest kept, K <= capacity.
        rows: (B, H_kv).
        n: tokens that were at hand.
        capacity: C.

    Raises:
        ContractError: it is anything else.
    """
    want = f"[B, H_kv, K] with (B, H_kv) = {tuple(rows)} and 1 <= K <= {capacity}"
    _tensor(policy, "select", keep, dtype=torch.int64, shape=want)
    if keep.dim() != 3 or tuple(keep.shape[:2]) != tuple(rows) or not 1 <= keep.shape[-1] <= capacity:
        raise broken(policy, "select", f"shape {list(keep.shape)}", want)
    if bool((keep.diff(dim=-1) <= 0).any()):
        raise broken(policy, "select", f"indices like {_row(keep)}", "ascending and unique indices")
    if bool((keep[..., 0] < 0).any()) or bool((keep[..., -1] >= n).any()):
        raise broken(policy, "select", f"indices outside 0..{n - 1}", f"indices within 0..{n - 1}")
    if bool((keep[..., -1] != n - 1).any()):
        raise broken(policy, "select", "indices from which the newest token is missing", f"{n - 1} among them")
    return keep


def _row(index: Tensor) -> list[int]:
    """The first row that is not ascending, cut after 8 entries."""
    rows = index.reshape(-1, index.shape[-1])
    bad = (rows.diff(dim=-1) <= 0).any(dim=-1)
    found: list[int] = rows[int(bad.int().argmax())][:8].tolist()
    return found


def check_slot(policy: KVPolicy, victim: Tensor, rank: Tensor) -> Tensor:
    """What `victim` returned for `rank [B, H_kv, C+1]`, by shape and dtype alone: no value is read from the device.

    Raises:
        ContractError: not `[B, H_kv]` int64.
    """
    given: Any = victim
    if isinstance(given, torch.Tensor) and given.dtype == torch.int64 and given.shape == rank.shape[:2]:
        return victim
    got = f"{_short(given.dtype)} {list(given.shape)}" if isinstance(given, torch.Tensor) else type(given).__name__
    raise broken(policy, "victim", got, f"int64 {list(rank.shape[:2])}, one slot a row and head")


def check_victim(policy: KVPolicy, victim: Tensor, rank: Tensor) -> Tensor:
    """As `check_slot`, and the values too. It reads them back, so a host's step must not call it.

    Raises:
        ContractError: not `[B, H_kv]` int64 within 0..C, or the slot of the newest token.
    """
    check_slot(policy, victim, rank)
    if bool((victim < 0).any()) or bool((victim >= rank.shape[-1]).any()):
        span = f"0..{rank.shape[-1] - 1}"
        raise broken(policy, "victim", f"{victim.flatten()[:8].tolist()}", f"slots within {span}")
    if bool((rank.gather(-1, victim[..., None]) == rank.shape[-1] - 1).any()):
        raise broken(policy, "victim", "the slot of the newest token", "any other slot")
    return victim


# -- reward_model ------------------------------------------------------------------------------------------------------


def check_scores(model: RewardModel, scores: Tensor, *, n: int) -> Tensor:
    """What `score` returned for n items: `[N, A]` float32, finite.

    Raises:
        ContractError: it is anything else.
    """
    return _per_aspect(model, "score", scores, n)


def check_preferences(model: RewardModel, p: Tensor, *, n: int, reverse: Tensor | None = None) -> Tensor:
    """What `compare` returned for n pairs: `[N, A]` float32 within 0..1.

    Args:
        model: whose `compare` it was.
        p: probability that the first wins.
        n: number of pairs.
        reverse: the answer for the swapped pairs, if both orders must sum to 1 (not with `order_sensitive`).

    Raises:
        ContractError: it is anything else, or the two orders do not sum to 1 within 1e-6.
    """
    _per_aspect(model, "compare", p, n)
    if bool((p < 0).any()) or bool((p > 1).any()):
        raise broken(model, "compare", f"values from {float(p.min()):g} to {float(p.max()):g}", "probabilities")
    if reverse is not None and not model.order_sensitive:
        gap = float((p + reverse - 1).abs().max()) if p.numel() else 0.0
        if not gap <= 1e-6:
            raise broken(model, "compare", f"both orders with a sum {gap:.2g} from 1", "1, or order_sensitive = True")
    return p


def _per_aspect(model: RewardModel, method: str, value: Tensor, n: int) -> Tensor:
    want = f"[N, A] = [{n}, {len(model.aspects)}]"
    _tensor(model, method, value, dtype=torch.float32, shape=want)
    if tuple(value.shape) != (n, len(model.aspects)):
        raise broken(model, method, f"shape {list(value.shape)}", want)
    if not bool(torch.isfinite(value).all()):
        raise broken(model, method, "NaN or infinity", "finite values")
    return value


# -- planner -----------------------------------------------------------------------------------------------------------


def check_plan(
    planner: Planner, plan: Plan, *, batch: int, budget: Budget, bounds: tuple[float, float] | None = None
) -> Plan:
    """What `plan` returned.

    Args:
        planner: whose it is.
        plan: actions `[B, T, A]` f32 finite, states None or `[B, T, S]` f32 finite, score `[B]` f32.
        batch: B.
        budget: it was given.
        bounds: least and largest action, where the host has them.

    Raises:
        ContractError: a shape, dtype, status or number of evaluations is wrong, an action is not finite or outside
            the bounds, a score is NaN, or not finite in a plan that is no fallback.
    """
    actions, score = plan.actions, plan.score
    want = f"actions [B, T, A] with B = {batch}"
    _tensor(planner, "plan", actions, dtype=torch.float32, shape=want)
    if actions.dim() != 3 or actions.shape[0] != batch or 0 in actions.shape:
        raise broken(planner, "plan", f"actions of shape {list(actions.shape)}", want)
    if not bool(torch.isfinite(actions).all()):
        raise broken(planner, "plan", "actions with NaN or infinity", "finite actions")
    if bounds is not None and bool(((actions < bounds[0]) | (actions > bounds[1])).any()):
        span = f"{float(actions.min()):g}..{float(actions.max()):g}"
        raise broken(planner, "plan", f"actions within {span}", f"actions within {bounds[0]:g}..{bounds[1]:g}")
    if plan.states is not None:
        want = f"states [B, T, S] with (B, T) = {tuple(actions.shape[:2])}"
        _tensor(planner, "plan", plan.states, dtype=torch.float32, shape=want)
        if plan.states.dim() != 3 or plan.states.shape[:2] != actions.shape[:2]:
            raise broken(planner, "plan", f"states of shape {list(plan.states.shape)}", want)
        if not bool(torch.isfinite(plan.states).all()):
            raise broken(planner, "plan", "states with NaN or infinity", "finite states")
    if plan.status not in PLAN_STATUS:
        raise broken(planner, "plan", f"status {plan.status!r}", f"one of {', '.join(PLAN_STATUS)}")
    _tensor(planner, "plan", score, dtype=torch.float32, shape=f"score [{batch}]")
    if tuple(score.shape) != (batch,):
        raise broken(planner, "plan", f"a score of shape {list(score.shape)}", f"[B] = [{batch}]")
    if bool(score.isnan().any()) or (plan.status != "fallback" and not bool(torch.isfinite(score).all())):
        raise broken(planner, "plan", f"a score that is not finite with status {plan.status!r}", "a finite score")
    if not 0 <= plan.evals <= budget.max_evals:
        raise broken(planner, "plan", f"evals = {plan.evals}", f"at most {budget.max_evals}, the budget")
    return plan


# -- sparsity_predictor ------------------------------------------------------------------------------------------------


def check_units(predictor: SparsityPredictor, units: Tensor, *, n: int, k: int, width: int) -> Tensor:
    """What `select` returned: `[N, k]` int32, ascending, within 0..width-1, -1 padding at the end.

    Raises:
        ContractError: it is anything else.
    """
    want = f"[N, k] = [{n}, {k}]"
    _tensor(predictor, "select", units, dtype=torch.int32, shape=want)
    if tuple(units.shape) != (n, k):
        raise broken(predictor, "select", f"shape {list(units.shape)}", want)
    if bool((units < -1).any()) or bool((units >= width).any()):
        raise broken(predictor, "select", f"units outside 0..{width - 1}", f"units within 0..{width - 1}, or -1")
    filled = units >= 0
    if bool((filled[:, 1:] & ~filled[:, :-1]).any()):
        raise broken(predictor, "select", "padding before a unit", "-1 at the end only")
    if bool(((units.diff(dim=-1) <= 0) & filled[:, 1:]).any()):
        raise broken(predictor, "select", "units that are not ascending and unique", "ascending units")
    return units


# -- solver ------------------------------------------------------------------------------------------------------------


def check_solution(
    solver: Solver, inst: Instance, solution: Solution, *, feasible: Callable[[Instance, Any], bool] | None = None
) -> Solution:
    """What `solve` returned.

    Args:
        solver: whose it is.
        inst: the instance, cost `[n]`.
        solution: to be checked.
        feasible: `(inst, x) -> bool`, the host's own test of the constraints.

    Raises:
        ContractError: an unknown status, x missing or present against the status, x not `[n]` finite or infeasible,
            objective not cost . x (1e-6, relative above 1), a bound above the objective or NaN, negative seconds.
    """
    x, status = solution.x, solution.status
    if status not in SOLUTION_STATUS:
        raise broken(solver, "solve", f"status {status!r}", f"one of {', '.join(SOLUTION_STATUS)}")
    if (x is None and status in _WITH_X) or (x is not None and status not in _WITH_X + _MAYBE_X):
        raise broken(solver, "solve", f"status {status!r} {'without' if x is None else 'with'} x", "x exactly if found")
    if math.isnan(solution.bound):
        raise broken(solver, "solve", "bound NaN", "a lower bound, -inf when none is proven")
    if not (math.isfinite(solution.seconds) and solution.seconds >= 0):
        raise broken(solver, "solve", f"seconds = {solution.seconds}", "the time taken")
    if x is None:
        if not math.isnan(solution.objective):
            raise broken(solver, "solve", f"objective {solution.objective:g} without x", "NaN")
        return solution
    if x.shape != inst.cost.shape or str(x.dtype) != "float64":
        raise broken(solver, "solve", f"x {list(x.shape)} {x.dtype}", f"x {list(inst.cost.shape)} float64")
    value = float(inst.cost @ x)
    tolerance = 1e-6 * max(1.0, abs(value))
    if not math.isfinite(value):
        raise broken(solver, "solve", "x with NaN or infinity", "finite x")
    if not abs(solution.objective - value) <= tolerance:
        raise broken(solver, "solve", f"objective {solution.objective:g}", f"cost . x = {value:g}")
    if solution.bound > value + tolerance:
        raise broken(solver, "solve", f"bound {solution.bound:g} above the objective {value:g}", "a lower bound")
    if feasible is not None and not feasible(inst, x):
        raise broken(solver, "solve", "an x that breaks the constraints", "a feasible x")
    return solution


# -- evaluator ---------------------------------------------------------------------------------------------------------


def check_rows(evaluator: Evaluator, rows: Sequence[Mapping[str, float]]) -> Sequence[Mapping[str, float]]:
    """What `measure` returned, one row a sample: names -> finite numbers.

    Raises:
        ContractError: a row is no mapping, a name no string, a value no finite number.
    """
    for row in rows:
        if not hasattr(row, "items"):
            raise broken(evaluator, "measure", f"a {type(row).__name__}", "a mapping from names to numbers")
        pairs: list[tuple[Any, Any]] = list(row.items())
        for name, value in pairs:
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not isinstance(name, str) or not number:
                raise broken(evaluator, "measure", f"{name!r}: {value!r}", "names and plain numbers")
            if not math.isfinite(value):
                raise broken(evaluator, "measure", f"{name!r}: {value}", "finite numbers")
    return rows


def check_measurements(evaluator: Evaluator, found: Sequence[Measurement]) -> Sequence[Measurement]:
    """What `aggregate` returned: measurements with finite values inside their intervals, n >= 1.

    Raises:
        ContractError: it is anything else.
    """
    for m in found:
        if not math.isfinite(m.value):
            raise broken(evaluator, "aggregate", f"{m.name} = {m.value}", "finite values")
        if m.n < 1:
            raise broken(evaluator, "aggregate", f"{m.name} over n = {m.n}", "n >= 1")
        if m.ci95 is not None and not m.ci95[0] <= m.value <= m.ci95[1]:
            raise broken(evaluator, "aggregate", f"{m.name} = {m.value:g} outside {m.ci95}", "an interval around it")
    return found
