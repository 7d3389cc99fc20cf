"""The hooks a plugin may implement; additions only within a major version of `tian.HOOKSPEC_API`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from tian.plugins.registrar import ClaimRegistrar, ConfigRegistrar, Registrar
    from tian.runs.rundir import Run
    from tian.types import DoctorCheck, Section

PROJECT = "tian"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

ROLES = ("model", "planner", "kv_policy", "sparsity_predictor", "reward_model", "solver", "evaluator")
KINDS = (*ROLES, "recipe")
HOOK_OF = {
    "model": "tian_register_models",
    "planner": "tian_register_planners",
    "kv_policy": "tian_register_kv_policies",
    "sparsity_predictor": "tian_register_sparsity_predictors",
    "reward_model": "tian_register_reward_models",
    "solver": "tian_register_solvers",
    "evaluator": "tian_register_evaluators",
    "recipe": "tian_register_recipes",
}


@hookspec
def tian_register_models(register: Registrar) -> None:
    """Register implementations of `tian.spec.Model`."""


@hookspec
def tian_register_planners(register: Registrar) -> None:
    """Register implementations of `tian.spec.Planner`."""


@hookspec
def tian_register_kv_policies(register: Registrar) -> None:
    """Register implementations of `tian.spec.KVPolicy`."""


@hookspec
def tian_register_sparsity_predictors(register: Registrar) -> None:
    """Register implementations of `tian.spec.SparsityPredictor`."""


@hookspec
def tian_register_reward_models(register: Registrar) -> None:
    """Register implementations of `tian.spec.RewardModel`."""


@hookspec
def tian_register_solvers(register: Registrar) -> None:
    """Register implementations of `tian.spec.Solver`."""


@hookspec
def tian_register_evaluators(register: Registrar) -> None:
    """Register implementations of `tian.spec.Evaluator`."""


@hookspec
def tian_register_recipes(register: Registrar) -> None:
    """Register recipes, `module:function`: what `tian run` executes. Signature `(cfg, run) -> list[Measurement]`."""


@hookspec
def tian_register_configs(register: ConfigRegistrar) -> None:
    """Register the package folder that holds run configurations (YAML): `register("my_package.conf")`."""


@hookspec
def tian_register_claims(register: ClaimRegistrar) -> None:
    """Register the list of claims: `register("my_package.claims:CLAIMS")`."""


@hookspec
def tian_run_started(run: Run) -> None:
    """Called when a run begins, before its recipe."""


@hookspec
def tian_run_finished(run: Run, outcome: str) -> None:
    """Called when a run ends; outcome is `finished`, `failed` or `interrupted`."""


@hookspec
def tian_report_sections(run: Run) -> list[Section]:  # type: ignore[empty-body]
    """Sections of a run's report; the first section of the run's own plugin is the report's first screen."""


@hookspec
def tian_compare_sections(runs: list[Run]) -> list[Section]:  # type: ignore[empty-body]
    """Sections of the comparison of several runs (`tian report A B`)."""


@hookspec
def tian_doctor_checks() -> list[DoctorCheck]:  # type: ignore[empty-body]
    """Checks `tian doctor` should run."""


def known_hooks() -> dict[str, Any]:
    """Name -> spec function."""
    return {name: f for name, f in globals().items() if name.startswith("tian_") and callable(f)}
