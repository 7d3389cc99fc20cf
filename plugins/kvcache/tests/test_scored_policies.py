"""Policies that choose by score: against lists, step rule against chunk rule, sizes, and in a running cache."""

import importlib.util
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

import tian
from tian.errors import InvalidInput
from tian.hf import attach
from tian.spec import KVPolicy
from tian_kvcache.budget import budget_tokens, layer_tokens
from tian_kvcache.policy_options import RandomOptions, SnapKVOptions
from tian_kvcache.random_policy import Random
from tian_kvcache.snapkv import SnapKV
from tian_kvcache.traces import simulate

spec = importlib.util.spec_from_file_location("kv_reference", Path(__file__).with_name("kv_reference.py"))
ref = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ref)


def load(name, **options):
    return tian.load("kv_policy", f"kvcache/{name}", **options)


def random_trace(T, *, seed, levels=None):
    """Causal weights whose values are few dyadic numbers when `levels` is given: sums are exact and ties common."""
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(T, T, generator=g) if levels is None else torch.randint(1, levels + 1, (T, T), generator=g) / 8
    return x.float().tril()


def sets_of(visible):
    return [set(torch.nonzero(row).flatten().tolist()) for row in visible]


CASES = {  # name -> options, list rule, its extras; capacity 9
    "window": ({"recent": 9}, ref.at_rank(0), {}),
    "streaming": ({"sinks": 2, "recent": 7}, ref.at_rank(2), {}),
    "h2o": ({"heavy": 5, "recent": 4}, ref.by_score(0, 4), {}),
    "h2o-decay": ({"heavy": 5, "recent": 4, "decay": 0.5}, ref.by_score(0, 4), {"decay": 0.5}),
    "sink-h2o": ({"sinks": 2, "heavy": 3, "recent": 4}, ref.by_score(2, 4), {}),
    "tova": ({"budget": 9}, ref.by_score(0, 1), {"last_row": True}),
    "snapkv": ({"heavy": 5, "recent": 4}, ref.at_rank(5), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_two_hundred_steps_equal_the_list_of_each_policy(name):
    options, rule, extras = CASES[name]
    trace = random_trace(200, seed=1)
    got = sets_of(simulate(trace[None], load(name, **options), 9)[0])
    assert got == ref.simulate(trace.double().tolist(), rule, 9, **extras)


@pytest.mark.parametrize("name", ["h2o", "sink-h2o", "tova"])
def test_of_equal_scores_the_oldest_goes(name):
    """All keys alike: every row is uniform over what is visible, so scores tie all the time in the last-row score."""
    options, rule, extras = CASES[name]
    trace = torch.ones(60, 60).tril()
    got = sets_of(simulate(trace[None], load(name, **options), 9)[0])
    assert got == ref.simulate(trace.tolist(), rule, 9, **extras)
    score = torch.full((1, 1, 10), 0.25)
    rank = torch.randperm(10, generator=torch.Generator().manual_seed(0)).int()[None, None]
    first = options.get("sinks", 0)
    assert rank[0, 0, load(name, **options).victim(score, rank, 9).item()] == first


SCORED = [
    ("h2o", {"heavy": 3, "recent": 4}),
    ("h2o", {"heavy": 0, "recent": 4}),
    ("h2o", {"heavy": 6, "recent": 1}),
    ("h2o", {"budget": 5}),
    ("h2o-decay", {"heavy": 3, "recent": 2}),
    ("sink-h2o", {"sinks": 2, "heavy": 3, "recent": 2}),
    ("tova", {"budget": 6}),
    ("snapkv", {"heavy": 3, "recent": 3, "kernel": 3}),
    ("random", {"budget": 7, "sinks": 2}),
]


@pytest.mark.parametrize(("name", "options"), SCORED)
@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), kind=st.sampled_from(["spread", "ties", "nan"]))
def test_the_step_rule_agrees_with_the_chunk_rule(name, options, seed, kind):
    policy = load(name, **options)
    capacity = policy.capacity(0, 1, None)
    g = torch.Generator().manual_seed(seed)
    n = capacity + 1
    rank = torch.stack([torch.randperm(n, generator=g) for _ in range(6)]).view(2, 3, n).int()
    score = torch.rand(2, 3, n, generator=g)
    if kind != "spread":
        score = (score * 3).round() / 4
    if kind == "nan":
        score[score > 0.6] = torch.nan
    victim = policy.victim(score, rank, capacity)
    assert torch.equal(victim, KVPolicy.victim(policy, score, rank, capacity))
    gone = rank.gather(-1, victim[..., None]).squeeze(-1)
    assert (gone < capacity).all()  # the newest stays
    assert (gone >= options.get("sinks", 0)).all()


def test_h2o_without_heavies_is_the_window_and_with_sinks_only_is_streaming():
    trace = random_trace(80, seed=3)[None]
    window = simulate(trace, load("window", recent=6), 6)
    assert torch.equal(simulate(trace, load("h2o", heavy=0, recent=6), 6), window)
    streaming = simulate(trace, load("streaming", sinks=2, recent=6), 8)
    assert torch.equal(simulate(trace, load("sink-h2o", sinks=2, heavy=0, recent=6), 8), streaming)


def test_without_forgetting_decay_changes_nothing():
    trace = random_trace(80, seed=4)[None]
    plain = simulate(trace, load("h2o", heavy=4, recent=4), 8)
    assert torch.equal(simulate(trace, load("h2o-decay", heavy=4, recent=4, decay=1.0), 8), plain)
    assert not torch.equal(simulate(trace, load("h2o-decay", heavy=4, recent=4, decay=0.5), 8), plain)


def test_random_spreads_over_all_but_sinks_and_newest_and_repeats_with_its_seed():
    trace = random_trace(400, seed=5)[None]
    one, two, other = (simulate(trace, Random(RandomOptions(budget=10, sinks=2, seed=s)), 10)[0] for s in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert one[:, :2].tril().sum() == torch.ones(400, 2).tril().sum()  # sinks are always seen
    age = (torch.arange(400)[:, None] - torch.arange(400))[one]
    alive = torch.stack([(age == a).sum() for a in (2, 5, 10, 20)]).double()
    # Each step one of eight goes, so a token lives on with chance 7/8: (7/8)^3 after three more steps, and so on.
    assert torch.allclose(alive[1:] / alive[:-1], torch.tensor([0.875**3, 0.875**5, 0.875**10]).double(), atol=0.12)


def test_snapkv_lets_the_last_queries_of_the_prompt_elect():
    policy = SnapKV(SnapKVOptions(heavy=2, recent=2, window=2, kernel=1))
    T = 12
    trace = torch.full((1, T, T), 0.01).tril()
    trace[0, 8:10, 3] = trace[0, 9, 6] = 1.0  # what the last two of ten prompt tokens look at
    trace[0, 5, 4] = 9.0  # an earlier query has no vote
    visible = sets_of(simulate(trace, policy, 4, prompt=10)[0])
    assert visible[9] == set(range(10))  # the prompt is attended in full
    assert visible[10] == {3, 6, 8, 9, 10}
    assert visible[11] == {3, 6, 9, 10, 11}  # the elected stay, the recent part rolls


def test_snapkv_spreads_votes_to_neighbours():
    score = torch.zeros(1, 1, 12)
    score[0, 0, 5] = 1.0
    token = torch.arange(12)[None, None]
    kept = SnapKV(SnapKVOptions(heavy=3, recent=2, kernel=3)).select(score, token, 5)
    assert kept.tolist() == [[[4, 5, 6, 10, 11]]]


def test_snapkv_keeps_the_elected_when_another_chunk_comes():
    token = torch.tensor([[[3, 6, 8, 9, 10, 11, 12]]])
    kept = SnapKV(SnapKVOptions(heavy=2, recent=2)).select(torch.zeros(1, 1, 7), token, 4)
    assert token.gather(-1, kept).tolist() == [[[3, 6, 11, 12]]]


# -- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("h2o", {"recent": 0}, "recent must be >= 1"),
        ("h2o", {"heavy": -1}, "heavy must be >= 0"),
        ("sink-h2o", {"sinks": -1}, "sinks must be >= 0"),
        ("h2o-decay", {"decay": 0.0}, "decay"),
        ("h2o-decay", {"decay": 1.5}, "decay"),
        ("h2o", {"budget": 1}, "budget must be >= 2"),
        ("h2o", {"budget": 32.0}, "share of the prompt"),
        ("tova", {"budget": -0.1}, "share of the prompt"),
        ("snapkv", {"kernel": 4}, "kernel must be odd"),
        ("snapkv", {"window": 0}, "window"),
        ("random", {"sinks": -2}, "sinks"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_with_what_to_do(name, options, text):
    with pytest.raises(InvalidInput, match=text) as caught:
        load(name, **options)
    assert "kv." in caught.value.hint


def test_a_share_of_the_prompt_is_said_in_tokens_and_never_rounded_to_nothing():
    assert load("h2o", budget=0.2).capacity(0, 4, 100) == 20
    with pytest.raises(InvalidInput, match=r"0.2 of a prompt of 9 tokens is 1 tokens"):
        load("h2o", budget=0.2).capacity(0, 4, 9)
    with pytest.raises(InvalidInput, match="no prompt"):
        load("tova", budget=0.2).capacity(0, 4, None)


@given(tokens=st.integers(4, 300), n=st.integers(1, 40))
def test_a_pyramid_falls_and_spends_exactly_the_same_tokens(tokens, n):
    got = [layer_tokens(tokens, layer=i, n_layers=n, shape="pyramid") for i in range(n)]
    assert sum(got) == tokens * n
    assert all(a >= b - 1 for a, b in pairwise(got))
    assert budget_tokens(tokens, None) == tokens


def test_a_budget_is_split_in_the_proportions_of_the_sizes():
    policy = load("sink-h2o", budget=22, sinks=2, heavy=1, recent=3)
    assert policy.capacity(0, 1, None) == 22
    assert policy.recent_of(22) == 15
    assert load("h2o", heavy=16, recent=16).recent_of(32) == 16


def test_sinks_that_leave_no_room_are_refused():
    with pytest.raises(InvalidInput, match="this policy needs 5"):
        load("sink-h2o", budget=4, sinks=4).capacity(0, 1, None)


def test_the_oracle_refuses_to_serve_and_says_where_it_works():
    with pytest.raises(InvalidInput, match="still to come") as caught:
        load("h2o-global").capacity(0, 1, None)
    assert "kvcache/regret" in caught.value.hint


def test_a_missing_score_is_named():
    policy = load("h2o", heavy=2, recent=2)
    with pytest.raises(InvalidInput, match="colsum"):
        policy.victim(None, torch.arange(5).view(1, 1, 5).int(), 4)


# -- in a running cache ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=256, bos_token_id=0, eos_token_id=None,
    )  # fmt: skip
    made = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for p in made.parameters():
            if p.dim() > 1:
                p.mul_(6)  # sharper attention than at initialisation, so that scores differ
    return made


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("h2o", {"heavy": 4, "recent": 4}),
        ("h2o-decay", {"heavy": 4, "recent": 4, "decay": 0.8}),
        ("tova", {"budget": 8}),
        ("snapkv", {"heavy": 4, "recent": 4, "window": 5, "kernel": 3}),
    ],
)
def test_a_layer_of_the_cache_keeps_what_the_simulation_of_its_own_attention_keeps(model, name, options):
    """Lowest layer: its queries and keys do not depend on what was evicted; positions are those of the trace."""
    from tian_kvcache.traces import attention_trace

    policy = load(name, **options)
    policy.positions = "original"
    ids = torch.randint(0, 50, (40,), generator=torch.Generator().manual_seed(2))
    trace = attention_trace(model, ids)[0]
    visible = simulate(trace, policy, 8, prompt=12, layer=torch.zeros(4, dtype=torch.int64))
    with attach(model, kv=policy) as cache, torch.no_grad():
        model(input_ids=ids[None, :12], past_key_values=cache, use_cache=True)
        for t in range(12, 40):
            model(input_ids=ids[None, t : t + 1], past_key_values=cache, use_cache=True)
            if t + 1 < 40:
                expected = [sorted(s - {t + 1}) for s in (sets_of(visible[h])[t + 1] for h in range(4))]
                assert cache.kept(0)[0].tolist() == expected, t


def test_a_pyramid_gives_each_layer_its_own_capacity(model):
    ids = torch.randint(0, 50, (1, 40), generator=torch.Generator().manual_seed(0))
    with attach(model, kv=load("h2o", budget=8, layers="pyramid")) as cache, torch.no_grad():
        model(input_ids=ids, past_key_values=cache, use_cache=True)
        assert [cache.kept(i).shape[-1] for i in range(2)] == [12, 4]


def test_a_share_of_the_prompt_fits_the_cache_to_it(model):
    ids = torch.randint(0, 50, (1, 40), generator=torch.Generator().manual_seed(0))
    with attach(model, kv=load("h2o", budget=0.25)) as cache, torch.no_grad():
        model(input_ids=ids, past_key_values=cache, use_cache=True)
        assert cache.kept().shape[-1] == 10
