"""The fakes obey the contracts of their roles."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tian.errors import InvalidInput, NotFitted
from tian.spec import Budget, Instance, Site, TextItem, Trace
from tian.testing.fake_models import FakeTorchModel
from tian.testing.fakes import (
    FakeEvaluator,
    FakeKVPolicy,
    FakeModel,
    FakePlanner,
    FakeRewardModel,
    FakeSolver,
    FakeSparsityPredictor,
)


def test_model_fingerprints_differ_exactly_when_the_models_do():
    assert FakeModel(1.0).fingerprint() == FakeModel(1.0).fingerprint() != FakeModel(2.0).fingerprint()


def test_torch_model_is_an_affine_map_and_its_other_talents_are_simple_rules():
    model = FakeTorchModel(width=2)
    with torch.no_grad():
        model.module().weight.copy_(torch.tensor([2.0, -1.0]))
        model.module().bias.fill_(0.5)
        out = model.forward({"x": torch.tensor([[1.0, 1.0], [0.0, 3.0]]), "y": torch.tensor([1.5, -1.5])})
    assert out["prediction"].tolist() == [1.5, -2.5]
    assert float(out["loss"]) == 0.5
    assert model.complete(["abc"], {}) == ["cba"]
    ids = model.generate(torch.tensor([[3, 14]]), max_new_tokens=3, kv=None, sampling={}, seed=0).ids
    assert ids.tolist() == [[3, 14, 15, 0, 1]]
    codes = model.encode(torch.tensor([[[1.0], [-1.0]]]), torch.tensor([[[-1.0], [1.0]]]))
    assert codes.tolist() == [[2, 1]]


def test_kv_policy_keeps_the_heaviest_and_the_newest_and_ties_keep_the_newer():
    token = torch.arange(5).reshape(1, 1, 5)
    assert FakeKVPolicy(3).select(torch.tensor([[[9.0, 1, 5, 0, 0]]]), token, 3).tolist() == [[[0, 2, 4]]]
    assert FakeKVPolicy(3).select(torch.ones(1, 1, 5), token, 3).tolist() == [[[2, 3, 4]]]
    with pytest.raises(InvalidInput, match="budget must be >= 1, got 0"):
        FakeKVPolicy(0)


def test_reward_model_scores_alone_as_in_a_batch_and_comparisons_sum_to_one():
    model = FakeRewardModel()
    items = [TextItem("p", text) for text in ("", "ab", "abcd")]
    together = model.score(items)
    assert together.shape == (3, len(model.aspects))
    assert torch.equal(together, torch.cat([model.score([i]) for i in items]))
    pairs = [(items[0], items[2]), (items[1], items[1])]
    both = model.compare(pairs) + model.compare([(b, a) for a, b in pairs])
    assert torch.allclose(both, torch.ones(2, 1), atol=1e-6)


def test_planner_is_reproducible_stays_in_budget_and_in_bounds():
    planner, obs = FakePlanner(), torch.zeros(3, 2)
    state = planner.reset(seed=1, batch=3)

    def plan(max_evals):
        return planner.plan(obs, state, objective=FakeRewardModel(), budget=Budget(max_evals, 60.0))

    (one, next_state), (two, _) = plan(100), plan(100)
    assert torch.equal(one.actions, two.actions)
    assert one.status == "ok"
    assert one.actions.abs().max() <= 1
    assert next_state != state
    small, _ = plan(3)
    assert (small.status, small.evals) == ("budget", 3)
    with pytest.raises(InvalidInput, match="NaN"):
        planner.plan(obs * math.nan, state, objective=FakeRewardModel(), budget=Budget(1, 1.0))


def test_planner_falls_back_to_no_action_when_nothing_is_finite():
    class Broken(FakeRewardModel):
        def score(self, items):
            return super().score(items) * math.nan

    planner = FakePlanner()
    plan, _ = planner.plan(
        torch.zeros(2, 2), planner.reset(seed=0, batch=2), objective=Broken(), budget=Budget(9, 60.0)
    )
    assert plan.status == "fallback"
    assert not plan.actions.any()
    assert not plan.score.isnan().any()


def test_sparsity_predictor_finds_constant_large_units_and_pads():
    site, predictor = Site("neuron", 0, 4), FakeSparsityPredictor()
    with pytest.raises(NotFitted):
        predictor.select(site, torch.zeros(2, 3), 2)
    magnitude = torch.tensor([[0.0, 3.0, 1.0, 2.0]]).expand(5, 4)
    report = predictor.fit([Trace(site, torch.zeros(5, 3), magnitude)], seed=0)
    assert report.recall["neuron.0"] == 1.0
    chosen = predictor.select(site, torch.zeros(2, 3), 2)
    assert chosen.tolist() == [[1, 3], [1, 3]]
    assert predictor.select(site, torch.zeros(1, 3), 6).tolist() == [[0, 1, 2, 3, -1, -1]]
    other = FakeSparsityPredictor()
    other.load_state_dict(predictor.state_dict())
    assert torch.equal(other.select(site, torch.zeros(2, 3), 2), chosen)
    with pytest.raises(InvalidInput, match="attn_in"):
        other.load_state_dict({"source": "attn_in"})


def test_solver_finds_the_minimum_and_says_infeasible():
    solver = FakeSolver()
    cost = np.array([3.0, -1.0, 2.0, 0.5])
    found = solver.solve(Instance("choose-k", cost, 2), time_limit_s=10)
    assert found.status == "optimal"
    assert found.x.tolist() == [0, 1, 0, 1]
    assert found.objective == pytest.approx(float(cost @ found.x), abs=1e-12)
    nothing, again = solver.solve_batch([Instance("choose-k", cost, 5), Instance("choose-k", cost, 2)], time_limit_s=10)
    assert (nothing.status, nothing.x) == ("infeasible", None)
    assert again.objective == found.objective
    with pytest.raises(InvalidInput, match="'lp'"):
        solver.solve(Instance("lp", cost, None), time_limit_s=1)


def test_evaluator_orders_by_seed_alone_and_measures_a_share():
    evaluator = FakeEvaluator()
    data = list(range(10))
    samples = list(evaluator.samples(data, limit=6, seed=3))
    assert [s.id for s in samples] == [s.id for s in evaluator.samples(data, limit=6, seed=3)]
    assert len({s.id for s in samples}) == 6
    rows = [evaluator.measure(lambda x: x % 2 == 0, s) for s in evaluator.samples(data, limit=None, seed=0)]
    (share,) = evaluator.aggregate(rows)
    assert (share.value, share.n) == (0.5, 10)
    assert share.ci95[0] < 0.5 < share.ci95[1]
    assert evaluator.aggregate([]) == []


def test_the_run_fixture_gives_a_run_one_can_write_to(run_dir):
    run_dir.log_metrics({"loss": 1.0})
    assert run_dir.metrics_rows() == [{"loss": 1.0}]
