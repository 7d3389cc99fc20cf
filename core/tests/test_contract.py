"""What a component must not return is refused with its name, plugin and version; a run ends with exit code 3."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

import tian
from tian.cli.main import main
from tian.errors import ContractError
from tian.spec import Budget, Instance, KVPolicy, Plan, Solution
from tian.spec import contract as c
from tian.testing.fakes import (
    FakeEvaluator,
    FakeKVPolicy,
    FakePlanner,
    FakeRewardModel,
    FakeSolver,
    FakeSparsityPredictor,
)
from tian.types import Measurement

PLUGIN = """
from tian import hookimpl

@hookimpl
def tian_register_{role}s(register):
    register("bad", "bad_policy:Bad", summary="breaks its contract")
"""
POLICY = """
import torch
from tian.spec import KVPolicy

class Bad(KVPolicy):
    def capacity(self, layer, n_layers, prompt_len):
        return 6

    def select(self, score, token, capacity):
        n = token.shape[-1]
        good = torch.arange(n - capacity, n).expand(*token.shape[:2], capacity)
        return {select}
"""


@pytest.fixture
def plugin(install_plugin):
    """Install the plugin `bad` 3.1 with `bad/bad` of a role, given the source of its module."""

    def install(source, role="kv_policie"):
        modules = {"bad_plugin.py": PLUGIN.format(role=role), "bad_policy.py": source}
        install_plugin("tian-plugin-bad", version="3.1", modules=modules, entry_points={"bad": "bad_plugin"})

    return install


@pytest.mark.parametrize(
    ("select", "words"),
    [
        ("good[..., 1:, None]", "shape [1, 1, 5, 1]"),
        ("good.float() * float('nan')", "float32"),
        ("good.flip(-1)", "ascending and unique"),
        ("good - 1", "newest token is missing"),
    ],
)
def test_a_run_with_a_policy_that_breaks_its_contract_ends_with_code_3(capsys, tmp_path, plugin, select, words):
    plugin(POLICY.format(select=select))
    text = tmp_path / "text.txt"
    text.write_text("The quick brown fox jumps over the lazy dog. " * 9, encoding="utf-8")
    small = ["tokens=16", "streams=1", "compare=[]", "checks=false", "threads=1"]
    argv = ["run", "kvcache/stream", "kv=bad/bad", f"text.path={text}", *small, "--dir", str(tmp_path / "run")]
    assert main(argv) == 3
    lines = capsys.readouterr().err.splitlines()
    what, where, do = lines[-3:]
    assert "kv_policy 'bad/bad' (tian-plugin-bad 3.1)" in what
    assert words in what
    assert where.startswith("  where: plugin bad, tian-plugin-bad 3.1, ")
    assert do.startswith("  do:    report it to the author of tian-plugin-bad")
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "failed"


def test_a_bad_victim_is_refused_before_the_first_step(plugin, models):
    from tian.hf import attach

    plugin(
        POLICY.format(select="good")
        + "\n    def victim(self, score, rank, capacity):\n        return rank.argmax(-1)\n"
    )
    with attach(models("llama"), kv=tian.load("kv_policy", "bad")) as cache, torch.no_grad():
        with pytest.raises(ContractError, match="victim returned the slot of the newest token"):
            models("llama")(input_ids=torch.ones(1, 1, dtype=torch.int64), past_key_values=cache)


def test_a_victim_that_goes_wrong_later_is_caught_by_its_dtype(models):
    from tian.hf import attach

    class Later(FakeKVPolicy):
        asked = 0

        def victim(self, score, rank, capacity):
            self.asked += 1
            return (
                super().victim(score, rank, capacity).int() if self.asked > 2 else super().victim(score, rank, capacity)
            )

    model = models("llama", layers=1)
    with attach(model, kv=Later(3)) as cache, torch.no_grad():
        model(input_ids=torch.ones(1, 4, dtype=torch.int64), past_key_values=cache)
        model(input_ids=torch.ones(1, 1, dtype=torch.int64), past_key_values=cache)
        with pytest.raises(ContractError, match=r"Later: victim returned int32 \[1, 2\]"):
            model(input_ids=torch.ones(1, 1, dtype=torch.int64), past_key_values=cache)


def test_a_step_reads_nothing_back_from_the_device(models):
    from tian.hf import attach
    from tian.testing.conformance.watch import host_reads

    model, one = models("llama"), torch.ones(1, 1, dtype=torch.int64)
    with attach(model, kv=FakeKVPolicy(3)) as cache, torch.no_grad():
        for _ in range(5):
            model(input_ids=one, past_key_values=cache)
        with host_reads() as seen:
            model(input_ids=one, past_key_values=cache)
    assert cache.kept().shape[-1] == 3
    assert seen == []


def test_what_the_registry_made_is_named_by_plugin_and_version_and_else_by_class():
    name = c.name_of(tian.load("kv_policy", "kvcache/streaming"))
    assert name.startswith("kv_policy 'kvcache/streaming' (tian-plugin-kvcache ")
    assert c.name_of(FakeSolver()) == "FakeSolver"


def test_a_class_with_slots_is_loaded_all_the_same(plugin):
    plugin(POLICY.replace("class Bad(KVPolicy):", "class Bad(KVPolicy):\n    __slots__ = ()").format(select="good"))
    assert isinstance(tian.load("kv_policy", "bad/bad"), KVPolicy)


def test_other_roles_are_named_too(plugin):
    plugin("from tian.testing.fakes import FakeRewardModel as Bad\n", role="reward_model")
    model = tian.load("reward_model", "bad/bad")
    with pytest.raises(ContractError) as caught:
        c.check_scores(model, torch.tensor([[math.nan]]), n=1)
    assert "reward_model 'bad/bad' (tian-plugin-bad 3.1): score returned NaN" in caught.value.message
    assert caught.value.exit_code == 3


# -- each check passes what is good and refuses what is not ------------------------------------------------------------

ROWS = torch.zeros(2, 2, 5, dtype=torch.int64)
KEEP = torch.tensor([0, 2, 4]).expand(2, 2, 3)
RANK = torch.arange(4).int().expand(2, 2, 4)


def kept(keep, **more):
    return c.check_kept(FakeKVPolicy(3), keep, **({"rows": (2, 2), "n": 5, "capacity": 3} | more))


def units(rows, **more):
    return c.check_units(
        FakeSparsityPredictor(), torch.tensor(rows, dtype=torch.int32), **({"n": 1, "k": 3, "width": 4} | more)
    )


PLAN = Plan(torch.zeros(2, 3, 1), None, torch.zeros(2), "ok", 4)


def plan(**changes):
    return c.check_plan(
        FakePlanner(), dataclasses.replace(PLAN, **changes), batch=2, budget=Budget(5, 1.0), bounds=(-1.0, 1.0)
    )


INST = Instance("choose-k", np.array([1.0, 2.0]), 1)
SOLUTION = Solution(np.array([1.0, 0.0]), 1.0, 1.0, "optimal", 0.1)


def solution(**changes):
    return c.check_solution(
        FakeSolver(), INST, dataclasses.replace(SOLUTION, **changes), feasible=lambda i, x: x.sum() == i.payload
    )


def scores(x, n=2):
    return c.check_scores(FakeRewardModel(), x, n=n)


def preferences(p, reverse=None):
    return c.check_preferences(FakeRewardModel(), p, n=1, reverse=reverse)


def rows(*found):
    return c.check_rows(FakeEvaluator(), found)


def measured(**changes):
    m = Measurement("accepted", 0.5, n=4, ci95=(0.1, 0.9))
    return c.check_measurements(FakeEvaluator(), [dataclasses.replace(m, **changes)])


@pytest.mark.parametrize(
    "call",
    [
        lambda: kept(KEEP),
        lambda: c.check_victim(FakeKVPolicy(3), RANK.long().argmin(-1), RANK),
        lambda: scores(torch.zeros(2, 1)),
        lambda: scores(torch.zeros(0, 1), n=0),
        lambda: preferences(torch.tensor([[0.25]]), torch.tensor([[0.75]])),
        plan,
        lambda: plan(status="fallback", score=torch.tensor([-math.inf, 0.0])),
        lambda: plan(states=torch.zeros(2, 3, 4)),
        lambda: units([[0, 3, -1]]),
        lambda: units([[-1, -1, -1]]),
        solution,
        lambda: solution(x=None, objective=math.nan, bound=math.inf, status="infeasible"),
        lambda: solution(status="timeout", bound=-math.inf),
        lambda: rows({"a": 1}, {"a": 0.5}),
        measured,
        lambda: measured(ci95=None),
    ],
)
def test_what_obeys_the_contract_passes(call):
    assert call() is not None


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: kept(KEEP[0]), "shape"),
        (lambda: kept(KEEP, rows=(1, 1)), "shape"),
        (lambda: kept(KEEP, capacity=2), "shape"),
        (lambda: kept(KEEP[..., :0]), "shape"),
        (lambda: kept(KEEP.int()), "int32"),
        (lambda: kept(KEEP.flip(-1)), r"\[4, 2, 0\]"),
        (lambda: kept(KEEP, n=6), "newest"),
        (lambda: kept(KEEP - 1), "outside"),
        (lambda: c.check_victim(FakeKVPolicy(3), RANK.argmax(-1), RANK), "newest"),
        (lambda: c.check_victim(FakeKVPolicy(3), RANK.argmax(-1) + 1, RANK), "slots within 0..3"),
        (lambda: c.check_victim(FakeKVPolicy(3), RANK.argmin(-1).int(), RANK), "int32"),
        (lambda: c.check_victim(FakeKVPolicy(3), RANK.argmin(-1, keepdim=True), RANK), r"\[2, 2, 1\]"),
        (lambda: scores(torch.zeros(2)), "shape"),
        (lambda: scores(torch.zeros(2, 2)), "shape"),
        (lambda: scores(torch.zeros(2, 1).double()), "float64"),
        (lambda: scores(torch.tensor([[0.0], [math.inf]])), "infinity"),
        (lambda: scores([[0.0], [1.0]]), "a list"),
        (lambda: preferences(torch.tensor([[1.25]])), "probabilities"),
        (lambda: preferences(torch.tensor([[0.5]]), torch.tensor([[0.6]])), "order_sensitive"),
        (lambda: plan(actions=torch.zeros(1, 3, 1)), "shape"),
        (lambda: plan(actions=torch.full((2, 3, 1), math.nan)), "NaN"),
        (lambda: plan(actions=torch.full((2, 3, 1), 1.5)), "1.5"),
        (lambda: plan(actions=torch.zeros(2, 3, 1).double()), "float64"),
        (lambda: plan(states=torch.zeros(2, 4, 1)), "states"),
        (lambda: plan(states=torch.full((2, 3, 1), math.nan)), "states"),
        (lambda: plan(score=torch.zeros(2, 1)), "score"),
        (lambda: plan(score=torch.tensor([0.0, math.nan])), "score"),
        (lambda: plan(score=torch.tensor([0.0, -math.inf])), "score"),
        (lambda: plan(status="done"), "done"),
        (lambda: plan(evals=6), "budget"),
        (lambda: units([[0, 3]]), "shape"),
        (lambda: units([[0, 4, -1]]), "outside"),
        (lambda: units([[0, -1, 3]]), "padding"),
        (lambda: units([[1, 0, -1]]), "ascending"),
        (lambda: units([[1, 1, -1]]), "ascending"),
        (lambda: solution(status="solved"), "solved"),
        (lambda: solution(x=None), "without x"),
        (lambda: solution(status="infeasible"), "with x"),
        (lambda: solution(objective=1.5), "1.5"),
        (lambda: solution(objective=math.nan), "nan"),
        (lambda: solution(bound=math.nan), "NaN"),
        (lambda: solution(bound=1.5), "above"),
        (lambda: solution(x=np.array([1.0, 1.0]), objective=3.0), "constraints"),
        (lambda: solution(x=np.array([1.0])), r"\[1\]"),
        (lambda: solution(x=np.array([math.nan, 0.0])), "NaN"),
        (lambda: solution(x=None, objective=0.0, status="infeasible"), "without x"),
        (lambda: solution(seconds=-1.0), "seconds"),
        (lambda: rows([1.0]), "list"),
        (lambda: rows({"a": math.nan}), "nan"),
        (lambda: rows({"a": True}), "True"),
        (lambda: rows({1: 0.5}), "names"),
        (lambda: measured(value=math.inf), "inf"),
        (lambda: measured(n=0), "n = 0"),
        (lambda: measured(value=0.95), "outside"),
    ],
)
def test_what_breaks_the_contract_is_refused_with_what_was_returned(call, words):
    with pytest.raises(ContractError, match=words) as caught:
        call()
    assert caught.value.where
    assert caught.value.hint
