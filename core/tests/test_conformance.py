"""The fakes pass the kit, and the kit itself: what it collects, how it fails, what it refuses."""

import pytest
import torch

from tian.errors import InvalidInput
from tian.testing import conformance
from tian.testing.conformance import Violation, checks_of, run_conformance
from tian.testing.fakes import FakeKVPolicy, FakeModel, FakePlanner, FakeRewardModel, FakeSparsityPredictor
from tian.testing.mutants import conformance_of, roles

TestModel = conformance_of("model")
TestPlainModel = conformance.model(FakeModel, options=[{"value": 1.0}, {"value": 2.0}])
TestPlanner = conformance_of("planner")
TestPlannerWithoutCandidates = conformance.planner(lambda: FakePlanner(candidates=0), obs_dim=1)
TestKVPolicy = conformance.kv_policy(
    FakeKVPolicy, options=[{"budget": 1}, {"budget": 8}], bad_options=[{"budget": 0}, {"budget": -3}]
)
TestSparsityPredictor = conformance_of("sparsity_predictor")
TestSparsityPredictorOnHeads = conformance.sparsity_predictor(
    FakeSparsityPredictor, options=[{"source": "prev_attn_in"}], d=3, units=4
)
TestReward = conformance_of("reward_model")
TestRewardOfTrajectories = conformance.reward_model(FakeRewardModel, items="trajectory")
TestSolver = conformance_of("solver")
TestEvaluator = conformance_of("evaluator")


class DropsTheNewest(FakeKVPolicy):
    def select(self, score, token, capacity):
        return score.topk(capacity, dim=-1).indices.sort(dim=-1).values


@pytest.mark.parametrize("role", roles())
def test_every_check_has_an_id_of_its_own_and_a_sentence(role):
    checks = checks_of(conformance_of(role))
    assert len({c.id for c in checks}) == len(checks)
    assert 20 <= len(checks) <= 30
    for c in checks:
        assert c.sentence.endswith("."), c
        assert len(c.method) > len(c.id) + 12, c


def test_a_failure_names_the_sentence_and_shows_the_smallest_example():
    broken = conformance.kv_policy(DropsTheNewest, options=[{"budget": 2}])
    with pytest.raises(Violation, match=r"of 6 tokens the newest was dropped at capacity 2") as caught:
        broken().test_kv07_the_newest_token_is_kept({"budget": 2})
    assert "seed=0" in "".join(caught.value.__notes__)


def test_the_kit_runs_without_pytest_and_lists_what_fails():
    broken = conformance.kv_policy(DropsTheNewest, options=[{"budget": 2}])
    assert run_conformance(broken, only=["kv04", "kv06", "kv07"]) == ["kv07"]
    assert run_conformance(conformance.kv_policy(FakeKVPolicy), only=["kv04", "kv06", "kv07"]) == []


def test_every_option_set_is_run():
    class Fussy(FakeKVPolicy):
        needs = frozenset({"colsum"})

        def __init__(self, budget=4):
            super().__init__(budget)
            self.positions = "elsewhere" if budget == 5 else "original"

    assert run_conformance(conformance.kv_policy(Fussy, options=[{"budget": 4}]), only=["kv04"]) == []
    both = conformance.kv_policy(Fussy, options=[{"budget": 4}, {"budget": 5}])
    assert run_conformance(both, only=["kv04"]) == ["kv04"]


def test_the_result_is_the_same_each_time():
    noisy = conformance_of("kv_policy", DropsTheNewest)
    assert run_conformance(noisy) == run_conformance(noisy)


def test_the_checks_leave_the_global_random_states_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    run_conformance(conformance_of("kv_policy"), only=["kv11", "kv16", "kv19"])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_check_that_does_not_apply_skips_with_the_reason():
    with pytest.raises(pytest.skip.Exception, match="derived victim"):
        conformance.kv_policy(FakeKVPolicy)().test_kv15_victim_reads_nothing_back_from_the_device({})


def test_a_mistake_in_the_call_of_the_kit_is_told():
    with pytest.raises(InvalidInput, match="list of option sets"):
        conformance.kv_policy(FakeKVPolicy, options={"budget": 8})
    with pytest.raises(InvalidInput, match="neither a registered name nor a class"):
        conformance.kv_policy(FakeKVPolicy(3))
    with pytest.raises(InvalidInput, match="items is 'texts'"):
        conformance.reward_model(FakeRewardModel, items="texts")


# -- packaging ---------------------------------------------------------------------------------------------------------

HOOK = """
from tian import hookimpl

@hookimpl
def tian_register_kv_policies(register):
    register("few", "few_policy:Few", summary="keep few", options="few_policy:Options")
"""
CONFIGS = """
@hookimpl
def tian_register_configs(register):
    register("few_conf")
"""
POLICY = """
from dataclasses import dataclass
from tian.errors import InvalidInput
from tian.testing.fakes import FakeKVPolicy

@dataclass
class Options:
    budget: int = 4{comment}

class Few(FakeKVPolicy):
    def __init__(self, options):
        super().__init__(options.budget)
"""
GOOD = {
    "few_plugin.py": HOOK + CONFIGS,
    "few_policy.py": POLICY.format(comment="  # tokens kept"),
    "few_conf/run.yaml": "# a run\nrecipe: few/run\n",
}
PACKAGING = ["all04", "pk01", "pk02", "pk03", "pk04", "pk05"]


@pytest.mark.parametrize(
    ("changes", "requires", "failed"),
    [
        ({}, "tian-framework>=0.1,<1", []),
        ({"few_plugin.py": "import numpy\n" + HOOK + CONFIGS}, "tian-framework>=0.1,<1", ["pk01", "pk02"]),
        ({"few_plugin.py": HOOK + CONFIGS.replace("configs", "confgis")}, "tian-framework>=0.1,<1", ["pk02"]),
        ({"few_policy.py": POLICY.format(comment="")}, "tian-framework>=0.1,<1", ["pk03"]),
        ({}, "tian-framework>=0.1", ["pk04"]),
        ({}, "pluggy", ["pk04"]),
        ({"few_conf/run.yaml": None, "few_conf/notes.txt": "none"}, "tian-framework>=0.1,<1", ["pk05"]),
    ],
    ids=["good", "heavy", "hook without spec", "bare option", "no upper bound", "no requirement", "no yaml"],
)
def test_the_plugin_of_a_registered_name_is_checked_too(install_plugin, changes, requires, failed):
    modules = {k: v for k, v in (GOOD | changes).items() if v is not None}
    install_plugin("tian-plugin-few", modules=modules, entry_points={"few": "few_plugin"}, requires=(requires,))
    kit = conformance.kv_policy("few", options=[{"budget": 2}], bad_options=[{"budget": 0}])
    assert run_conformance(kit, only=PACKAGING) == failed


def test_a_registered_component_that_takes_any_option_is_noticed(install_plugin):
    source = POLICY.format(comment="  # tokens kept").replace("super().__init__(options.budget)", "super().__init__(4)")
    install_plugin("tian-plugin-few", modules=GOOD | {"few_policy.py": source}, entry_points={"few": "few_plugin"})
    kit = conformance.kv_policy("few", options=[{"budget": 2}], bad_options=[{"budget": 0}])
    assert run_conformance(kit, only=["all04"]) == ["all04"]
