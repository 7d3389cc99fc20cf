"""The seven roles: what a plugin may be. Each name loads on first use, so importing this package is free."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tian.spec.evaluator import Evaluator, Sample
    from tian.spec.kv_policy import KVPolicy
    from tian.spec.model import (
        CausalLM,
        Generation,
        InstanceGenerator,
        Model,
        Site,
        TextGenerator,
        TorchModel,
        TrajectoryModel,
    )
    from tian.spec.planner import Budget, Plan, Planner
    from tian.spec.reward_model import RewardModel, TextItem, TrajectoryItem
    from tian.spec.solver import Instance, Solution, SolutionBatch, Solver
    from tian.spec.sparsity_predictor import Cost, FitReport, SparsityPredictor, Trace

_HOMES = {
    "evaluator": ("Evaluator", "Sample"),
    "kv_policy": ("KVPolicy",),
    "model": (
        "CausalLM",
        "Generation",
        "InstanceGenerator",
        "Model",
        "Site",
        "TextGenerator",
        "TorchModel",
        "TrajectoryModel",
    ),
    "planner": ("Budget", "Plan", "Planner"),
    "reward_model": ("RewardModel", "TextItem", "TrajectoryItem"),
    "solver": ("Instance", "Solution", "SolutionBatch", "Solver"),
    "sparsity_predictor": ("Cost", "FitReport", "SparsityPredictor", "Trace"),
}

__all__ = [
    "Budget",
    "CausalLM",
    "Cost",
    "Evaluator",
    "FitReport",
    "Generation",
    "Instance",
    "InstanceGenerator",
    "KVPolicy",
    "Model",
    "Plan",
    "Planner",
    "RewardModel",
    "Sample",
    "Site",
    "Solution",
    "SolutionBatch",
    "Solver",
    "SparsityPredictor",
    "TextGenerator",
    "TextItem",
    "TorchModel",
    "Trace",
    "TrajectoryItem",
    "TrajectoryModel",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"tian.spec.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
