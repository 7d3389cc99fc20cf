"""The run `@@name@@/demo`: plan steps in the plane that add up to the way to a point."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tian.config.compose import options_of
from tian.errors import InvalidInput
from tian.spec import Budget, RewardModel, TrajectoryItem
from tian.types import Measurement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omegaconf import DictConfig
    from torch import Tensor

    from tian.runs.rundir import Run
    from tian.spec.reward_model import Item
    from @@package@@.demo_options import DemoOptions


class Closeness(RewardModel):
    """Minus the distance that is left when the steps have been taken; the first state is the way to go."""

    aspects = ("closeness",)

    def score(self, items: Sequence[Item]) -> Tensor:
        """`[N, 1]` float32."""
        left = []
        for item in items:
            if not isinstance(item, TrajectoryItem):
                raise InvalidInput(f"closeness is of trajectories, got a {type(item).__name__}")
            left.append((item.states[0] - item.actions.sum(dim=0)).norm())
        return -torch.stack(left)[:, None] if left else torch.zeros(0, 1)


def demo(config: DictConfig, run: Run) -> list[Measurement]:
    """Measure which share of the way is left after the planned steps."""
    options: DemoOptions = options_of(config)
    planner = run.load("planner", options.subject)
    generator = torch.Generator().manual_seed(config.seed)
    way = torch.randn(options.problems, 2, generator=generator)
    way = 2 * way / way.norm(dim=1, keepdim=True)  # each is 2 units long, in a random direction
    state = planner.reset(seed=config.seed, batch=len(way))
    budget = Budget(max_evals=options.evals, max_seconds=60.0)
    plan, _ = planner.plan(way, state, objective=Closeness(), budget=budget)
    left = (way - plan.actions.sum(dim=1)).norm(dim=1) / way.norm(dim=1)
    run.write_json("plan.json", {"status": plan.status, "evals": plan.evals, "actions": plan.actions.tolist()})
    return [
        Measurement("way left", float(left.mean()), n=len(way), higher_is_better=False),
        Measurement("evaluations", float(plan.evals)),
    ]
