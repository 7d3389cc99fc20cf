"""Checks of role planner. There is no environment: a planner that needs to step one cannot pass."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from hypothesis import strategies as st

from tian.errors import InvalidInput
from tian.spec import Budget, RewardModel, TrajectoryItem
from tian.spec.contract import PLAN_STATUS
from tian.testing.conformance.base import Option, fail, is_tensor, prop, require, skip
from tian.testing.conformance.common import CommonChecks
from tian.testing.conformance.watch import clock, frozen, global_randomness_untouched, same, unchanged

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from tian.spec import Plan, Planner
    from tian.spec.reward_model import Item

SEEDS = st.integers(0, 2**16)
BATCH = st.integers(1, 3)
AMPLE = Budget(max_evals=40, max_seconds=3600.0)


class Closeness(RewardModel):
    """Minus the mean squared distance of the actions to a target: tanh of the mean first state, or a constant."""

    aspects = ("closeness",)

    def __init__(self, target: float | None = None) -> None:
        self.target = target

    def score(self, items: Sequence[Item]) -> Tensor:
        """`[N, 1]` float32."""
        out = []
        for item in items:
            if not isinstance(item, TrajectoryItem):
                raise InvalidInput(f"a planner's objective scores TrajectoryItems, got {type(item).__name__}")
            target = self.target if self.target is not None else float(item.states[0].mean().tanh()) / 2
            out.append(-float((item.actions - target).square().mean()))
        return torch.tensor(out, dtype=torch.float32).reshape(-1, 1)


class Watched(RewardModel):
    """Counts and keeps what an objective is asked; `then` may change the scores it gives."""

    def __init__(self, inner: RewardModel, then: Callable[[Sequence[Any], Tensor], Tensor] | None = None) -> None:
        self.inner, self.then = inner, then
        self.aspects = inner.aspects
        self.calls = 0
        self.items: list[Any] = []

    def score(self, items: Sequence[Item]) -> Tensor:
        """The inner scores, changed by `then`."""
        self.calls += 1
        self.items += items
        scores = self.inner.score(items)
        return scores if self.then is None else self.then(items, scores)


class PlannerChecks(CommonChecks):
    """Contract of `tian.spec.Planner`."""

    role: ClassVar[str] = "planner"
    obs_dim: ClassVar[int] = 4
    objective: ClassVar[Any] = None
    bounds: ClassVar[tuple[float, float] | None] = None
    sim_state: ClassVar[Any] = None

    # -- what a plan looks like ----------------------------------------------------------------------------------------

    def test_pl01_needs_are_known(self, option: Option) -> None:
        """`needs` is a subset of {`sim_state`}; a planner that needs it refuses to plan without (InvalidInput)."""
        planner = self.make(option)
        require(set(planner.needs) <= {"sim_state"}, f"needs is {planner.needs!r}")
        if "sim_state" in planner.needs:
            state = planner.reset(seed=0, batch=1)
            arguments: dict[str, Any] = {"objective": Closeness(), "budget": AMPLE}
            refused("plan without sim_state", lambda: planner.plan(self.obs(1, 0), state, **arguments))

    @prop(seed=SEEDS, batch=BATCH)
    def test_pl02_actions_have_the_right_shape_and_are_finite(self, option: Option, seed: int, batch: int) -> None:
        """`actions` is `[B, T, A]` float32 and finite; `states` is None or `[B, T, S]` float32 and finite."""
        plan = self.plan(option, seed, batch)
        parts = {"actions": plan.actions} | ({} if plan.states is None else {"states": plan.states})
        for name, x in parts.items():
            require(is_tensor(x, torch.float32), f"{name} are no float32 tensor")
            good = x.dim() == 3 and x.shape[0] == batch and x.shape[1] == plan.actions.shape[1] and 0 not in x.shape
            require(good, f"{name} have shape {list(x.shape)} for a batch of {batch}")
            require(torch.isfinite(x).all(), f"{name} hold NaN or infinity")

    @prop(seed=SEEDS, batch=BATCH)
    def test_pl03_actions_lie_within_the_bounds(self, option: Option, seed: int, batch: int) -> None:
        """Every action lies within the action bounds."""
        if self.bounds is None:
            skip("no bounds were given to the kit")
        low, high = self.bounds
        actions = self.plan(option, seed, batch, objective=Closeness(2 * high + 1)).actions
        span = f"{float(actions.min()):g}..{float(actions.max()):g}"
        require(((actions >= low) & (actions <= high)).all(), f"actions within {span}, bounds {low:g}..{high:g}")

    @prop(seed=SEEDS, batch=BATCH)
    def test_pl04_the_score_is_the_objective_of_the_plan(self, option: Option, seed: int, batch: int) -> None:
        """`score` is `[B]` float32: the objective's value of the actions that are returned (1e-5)."""
        objective = Closeness(0.25)  # of the actions alone, so that it can be asked again
        plan = self.plan(option, seed, batch, objective=objective)
        good = is_tensor(plan.score, torch.float32)
        require(good and tuple(plan.score.shape) == (batch,), f"score is no float32 [{batch}] tensor")
        again = objective.score([TrajectoryItem(a[:, :1], a) for a in plan.actions])[:, 0]
        gap = float((plan.score - again).abs().max())
        require(gap <= 1e-5, f"score {plan.score.tolist()}, but the objective gives {again.tolist()}")

    @prop(seed=SEEDS, batch=BATCH, evals=st.integers(1, 40))
    def test_pl05_the_status_is_one_of_three(self, option: Option, seed: int, batch: int, evals: int) -> None:
        """`status` is `ok`, `budget` or `fallback`; with a finite objective it is no fallback."""
        plan = self.plan(option, seed, batch, budget=Budget(evals, 3600.0))
        require(plan.status in PLAN_STATUS, f"status {plan.status!r}")
        require(plan.status != "fallback", "status 'fallback' although every candidate was finite")

    # -- budget --------------------------------------------------------------------------------------------------------

    @prop(seed=SEEDS, batch=BATCH, evals=st.integers(1, 40))
    def test_pl06_the_budget_of_evaluations_is_kept(self, option: Option, seed: int, batch: int, evals: int) -> None:
        """The objective scores at most `max_evals` trajectories a row, and `evals` counts no fewer than it did."""
        objective = Watched(Closeness())
        plan = self.plan(option, seed, batch, objective=objective, budget=Budget(evals, 3600.0))
        used = math.ceil(len(objective.items) / batch)
        require(used <= evals, f"{used} evaluations with a budget of {evals}")
        require(used <= plan.evals <= evals, f"evals = {plan.evals}, {used} were used, the budget was {evals}")

    def test_pl07_the_budget_of_seconds_is_kept(self, option: Option) -> None:
        """Once `max_seconds` have passed the planner returns its best so far, after one more evaluation at most."""
        with clock() as add:

            def slow(_items: Sequence[Any], scores: Tensor) -> Tensor:
                add(100.0)
                return scores

            objective = Watched(Closeness(), slow)
            plan = self.plan(option, 0, 2, objective=objective, budget=Budget(10**6, 10.0))
        require(
            objective.calls <= 2, f"{objective.calls} calls of an objective of which one takes all the time there is"
        )
        require(torch.isfinite(plan.actions).all(), "the best so far is not finite")

    # -- what is not finite --------------------------------------------------------------------------------------------

    @prop(seed=SEEDS, batch=BATCH, where=st.integers(0, 2))
    def test_pl08_a_nan_observation_is_refused(self, option: Option, seed: int, batch: int, where: int) -> None:
        """A NaN in the observation raises InvalidInput."""
        planner, obs = self.make(option), self.obs(batch, seed)
        obs[where % batch, seed % self.obs_dim] = math.nan
        state = planner.reset(seed=seed, batch=batch)
        refused("a NaN observation", lambda: self.call(planner, obs, state))

    @prop(seed=SEEDS, batch=BATCH, value=st.sampled_from([math.nan, math.inf, -math.inf]))
    def test_pl09_no_finite_candidate_means_fallback(self, option: Option, seed: int, batch: int, value: float) -> None:
        """When no candidate has a finite score the status is `fallback` and the actions are finite."""
        broken = Watched(Closeness(), lambda _items, scores: torch.full_like(scores, value))
        plan = self.plan(option, seed, batch, objective=broken)
        require(plan.status == "fallback", f"status {plan.status!r} although every score was {value}")
        require(torch.isfinite(plan.actions).all(), "the fallback holds NaN or infinity")
        require(not plan.score.isnan().any(), "a NaN score left the planner")

    @prop(seed=SEEDS, value=st.sampled_from([math.nan, math.inf]))
    def test_pl10_candidates_that_are_not_finite_are_dropped(self, option: Option, seed: int, value: float) -> None:
        """A candidate whose score is not finite never becomes the plan while another one is finite."""
        asked = [0]

        def every_other(items: Sequence[Any], scores: Tensor) -> Tensor:
            out = scores.clone()
            for i in range(len(items)):
                asked[0] += 1
                if asked[0] % 2 == 0:
                    out[i] = value
            return out

        plan = self.plan(option, seed, 1, objective=Watched(Closeness(), every_other))
        if asked[0] < 2:
            skip("the planner asks for one candidate only")
        require(torch.isfinite(plan.score).all(), f"the plan has the score {plan.score.tolist()}")
        require(torch.isfinite(plan.actions).all(), "the plan holds NaN or infinity")

    # -- state, seeds, batches -----------------------------------------------------------------------------------------

    @prop(seed=SEEDS, batch=BATCH)
    def test_pl11_arguments_and_state_are_not_modified(self, option: Option, seed: int, batch: int) -> None:
        """`plan` changes neither the observation nor the state it is given."""
        planner, obs = self.make(option), self.obs(batch, seed)
        state = planner.reset(seed=seed, batch=batch)
        for _ in range(2):
            with unchanged("plan", obs=obs, state=state):
                _, following = self.call(planner, obs, state)
            state = following

    @prop(seed=SEEDS, batch=BATCH)
    def test_pl12_the_same_seed_gives_the_same_plans(self, option: Option, seed: int, batch: int) -> None:
        """The plans of a whole episode follow from the seed of `reset`: another instance gives them again."""
        obs = [self.obs(batch, seed + i) for i in range(3)]
        require(same(self.episode(option, obs, seed), self.episode(option, obs, seed)), "two episodes differ")

    @prop(seed=SEEDS, batch=BATCH)
    def test_pl13_the_planner_keeps_no_state_of_its_own(self, option: Option, seed: int, batch: int) -> None:
        """All state is passed in and out: an old state plans again as it did, whatever was planned since."""
        planner, obs = self.make(option), self.obs(batch, seed)
        state = planner.reset(seed=seed, batch=batch)
        first, after = self.call(planner, obs, state)
        expected = frozen([first, after])
        self.call(planner, self.obs(batch, seed + 1), after)
        planner.reset(seed=seed + 1, batch=batch + 1)
        require(same([*self.call(planner, obs, state)], expected), "the same state led to another plan later")

    @prop(seed=SEEDS)
    def test_pl14_reset_depends_on_its_arguments_alone(self, option: Option, seed: int) -> None:
        """`reset` gives equal states for equal arguments, whatever was asked before."""
        planner = self.make(option)
        first = frozen(planner.reset(seed=seed, batch=2))
        planner.reset(seed=seed + 1, batch=1)
        require(same(planner.reset(seed=seed, batch=2), first), "reset gave another state for the same seed")
        require(same(self.make(option).reset(seed=seed, batch=2), first), "another instance resets differently")

    @prop(seed=SEEDS, batch=BATCH)
    def test_pl15_no_global_randomness_is_consumed(self, option: Option, seed: int, batch: int) -> None:
        """`reset` and `plan` leave the global random states alone."""
        planner, obs = self.make(option), self.obs(batch, seed)
        with global_randomness_untouched("the planner"):
            self.call(planner, obs, planner.reset(seed=seed, batch=batch))

    @prop(seed=SEEDS, batch=st.integers(2, 3))
    def test_pl16_the_rows_of_a_batch_are_independent(self, option: Option, seed: int, batch: int) -> None:
        """The plan of a row does not depend on the observations of the other rows (1e-5)."""
        planner, obs = self.make(option), self.obs(batch, seed)
        state = planner.reset(seed=seed, batch=batch)
        one, _ = self.call(planner, obs, state)
        changed = obs.clone()
        changed[1:] = 3 * self.obs(batch, seed + 1)[1:] + 1
        two, _ = self.call(planner, changed, state)
        gap = float((one.actions[0] - two.actions[0]).abs().max())
        require(gap <= 1e-5, "row 0 changed with the observations of the other rows")

    @prop(seed=SEEDS)
    def test_pl17_one_planner_does_not_influence_another(self, option: Option, seed: int) -> None:
        """Planning with one instance makes no difference to another instance."""
        obs = self.obs(1, seed)
        one, two = self.make(option), self.make(option)
        start_one, start_two = one.reset(seed=seed, batch=1), two.reset(seed=seed, batch=1)
        first, _ = self.call(one, obs, start_one)
        expected = frozen(first)
        self.call(one, 2 * obs, start_one)
        second, _ = self.call(two, obs, start_two)
        require(same(second, expected), "a second instance plans otherwise after the first one was used")

    @prop(seed=SEEDS, batch=BATCH)
    def test_pl18_the_objective_is_asked_about_trajectories(self, option: Option, seed: int, batch: int) -> None:
        """The objective gets `TrajectoryItem`s: finite float32 states `[T, S]` and actions `[T, A]` of one length."""
        objective = Watched(Closeness(0.25))
        self.plan(option, seed, batch, objective=objective)
        for item in objective.items:
            require(isinstance(item, TrajectoryItem), f"the objective was given a {type(item).__name__}")
            for name, x in (("states", item.states), ("actions", item.actions)):
                require(x.dtype == torch.float32 and x.dim() == 2, f"{name}: {x.dtype} {list(x.shape)}")
                require(torch.isfinite(x).all(), f"{name} hold NaN or infinity")
            require(len(item.states) == len(item.actions), "states and actions differ in length")

    # -- help ----------------------------------------------------------------------------------------------------------

    def obs(self, batch: int, seed: int) -> Tensor:
        """Observations `[B, S]`."""
        return torch.randn(batch, self.obs_dim, generator=torch.Generator().manual_seed(seed))

    def call(self, planner: Planner, obs: Tensor, state: Any, **arguments: Any) -> tuple[Plan, Any]:
        """One `plan`, with the kit's objective and an ample budget by default."""
        arguments = {"objective": self.objective or Closeness(), "budget": AMPLE} | arguments
        if "sim_state" in planner.needs:
            if self.sim_state is None:
                skip("the planner needs sim_state, and no sim_state= was given to the kit")
            arguments["sim_state"] = self.sim_state(obs.shape[0])
        return planner.plan(obs, state, **arguments)

    def plan(self, option: Option, seed: int, batch: int, **arguments: Any) -> Plan:
        """The first plan of a fresh planner."""
        planner = self.make(option)
        return self.call(planner, self.obs(batch, seed), planner.reset(seed=seed, batch=batch), **arguments)[0]

    def episode(self, option: Option, obs: Sequence[Tensor], seed: int) -> list[Any]:
        """The plans of a fresh planner, one an observation."""
        planner = self.make(option)
        state, plans = planner.reset(seed=seed, batch=len(obs[0])), []
        for o in obs:
            plan, state = self.call(planner, o, state)
            plans.append(frozen(plan))
        return plans


def refused(what: str, call: Callable[[], Any]) -> None:
    """Raise Violation unless the call raises InvalidInput."""
    try:
        call()
    except InvalidInput:
        return
    fail(f"{what} was accepted; InvalidInput is due")
