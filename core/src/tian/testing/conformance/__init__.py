"""The conformance kit: test classes that hold a component to the contract of its role.

    from tian.testing import conformance

    TestRecency = conformance.kv_policy("recency", options=[{"budget": 8}, {"budget": 1}])

The first argument is a registered name, which is loaded by `tian.load` and whose plugin is checked as well, or a class
or factory that takes the options as keywords. Every check runs for every option set. `bad_options` are option sets
that must be refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tian.errors import MissingDependency

try:
    import hypothesis  # noqa: F401 - only to say what is missing
    import pytest  # noqa: F401
except ImportError as error:
    raise MissingDependency(
        f"the conformance kit needs the package {error.name!r}, which is not installed",
        where="tian.testing.conformance",
        hint="pip install pytest hypothesis",
    ) from error

from tian.testing.conformance.base import NOTHING, CheckInfo, Violation, build, checks_of, run_conformance

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tian.spec import Instance, RewardModel

    Options = Sequence[Mapping[str, Any]]


def kv_policy(target: str | Callable[..., Any], *, options: Options = (), bad_options: Options = ()) -> type:
    """Tests of a KVPolicy. Those on a model need transformers and skip without it."""
    from tian.testing.conformance.role_kv_policy import KVPolicyChecks

    return build(KVPolicyChecks, target, options=options, bad_options=bad_options)


def model(
    target: str | Callable[..., Any],
    *,
    options: Options = (),
    bad_options: Options = (),
    batch: Callable[[int, int], Mapping[str, Any]] | None = None,
    state_dim: int = 3,
    action_dim: int = 2,
    z_dim: int = 4,
    vocab: int = 16,
) -> type:
    """Tests of a Model and of the protocols it satisfies. Different option sets must be different models.

    Args:
        target: registered name, class or factory.
        options: option sets.
        bad_options: option sets that must be refused.
        batch: `(seed, n) -> batch` of n rows with targets, for `TorchModel.forward`.
        state_dim: S of a TrajectoryModel.
        action_dim: A of a TrajectoryModel.
        z_dim: Z of an InstanceGenerator.
        vocab: ids below this are valid prompts of a CausalLM.
    """
    from tian.testing.conformance.role_model import ModelChecks

    context = {"batch": batch, "state_dim": state_dim, "action_dim": action_dim, "z_dim": z_dim, "vocab": vocab}
    return build(ModelChecks, target, options=options, bad_options=bad_options, **context)


def planner(
    target: str | Callable[..., Any],
    *,
    options: Options = (),
    bad_options: Options = (),
    obs_dim: int = 4,
    objective: RewardModel | None = None,
    bounds: tuple[float, float] | None = None,
    sim_state: Callable[[int], Any] | None = None,
) -> type:
    """Tests of a Planner.

    Args:
        target: registered name, class or factory.
        options: option sets.
        bad_options: option sets that must be refused.
        obs_dim: S.
        objective: where the kit needs no objective of its own; default: closeness of the actions to a target.
        bounds: least and largest action; None leaves that check out.
        sim_state: `batch -> [B, P]` float64, for planners that need it.
    """
    from tian.testing.conformance.role_planner import PlannerChecks

    context = {"obs_dim": obs_dim, "objective": objective, "bounds": bounds, "sim_state": sim_state}
    return build(PlannerChecks, target, options=options, bad_options=bad_options, **context)


def sparsity_predictor(
    target: str | Callable[..., Any],
    *,
    options: Options = (),
    bad_options: Options = (),
    d: int = 8,
    units: int = 12,
) -> type:
    """Tests of a SparsityPredictor, on traces with `d` inputs and `units` units whose magnitudes follow the input."""
    from tian.testing.conformance.role_sparsity_predictor import SparsityPredictorChecks

    return build(SparsityPredictorChecks, target, options=options, bad_options=bad_options, d=d, units=units)


def reward_model(
    target: str | Callable[..., Any],
    *,
    options: Options = (),
    bad_options: Options = (),
    items: str | Sequence[Any] = "text",
) -> type:
    """Tests of a RewardModel; `items` is `text`, `trajectory`, or a list of at least two items."""
    from tian.testing.conformance.role_reward_model import RewardModelChecks, items_of

    return build(RewardModelChecks, target, options=options, bad_options=bad_options, items=items_of(items))


def solver(
    target: str | Callable[..., Any],
    *,
    options: Options = (),
    bad_options: Options = (),
    instances: Callable[[int], list[Instance]],
    feasible: Callable[[Instance, Any], bool],
    brute: Callable[[Instance], float | None] | None = None,
    hard: Instance | None = None,
) -> type:
    """Tests of a Solver.

    Args:
        target: registered name, class or factory.
        options: option sets.
        bad_options: option sets that must be refused.
        instances: `seed -> instances`, small ones, with one that has no solution among them if there are such.
        feasible: `(instance, x) -> bool`.
        brute: `instance -> exact minimum`, None for an instance without solution.
        hard: an instance that cannot be finished in a tenth of a microsecond.
    """
    from tian.testing.conformance.role_solver import SolverChecks

    context = {"instances": instances, "feasible": feasible, "brute": brute, "hard": hard}
    return build(SolverChecks, target, options=options, bad_options=bad_options, **context)


def evaluator(
    target: str | Callable[..., Any],
    *,
    options: Options = (),
    bad_options: Options = (),
    data: Any,
    subject: Any,
    bad_data: Any = NOTHING,
) -> type:
    """Tests of an Evaluator on `data` (at least 4 samples) and a `subject`; `bad_data` must raise DataError."""
    from tian.testing.conformance.role_evaluator import EvaluatorChecks

    context = {"data": data, "subject": subject, "bad_data": bad_data}
    return build(EvaluatorChecks, target, options=options, bad_options=bad_options, **context)


__all__ = [
    "CheckInfo",
    "Violation",
    "checks_of",
    "evaluator",
    "kv_policy",
    "model",
    "planner",
    "reward_model",
    "run_conformance",
    "solver",
    "sparsity_predictor",
]
