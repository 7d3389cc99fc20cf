"""The studies: constructed recall, regret, heavy hitters; numbers, resuming, reports."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tian
from tian.errors import TianError
from tian_kvcache import heavy_hitters, regret
from tian_kvcache import statistics as stats
from tian_kvcache.recall_stream import RecallStreams, make_streams
from tian_kvcache.traces import attention_by_head, simulate


def load(name, **options):
    return tian.load("kv_policy", f"kvcache/{name}", **options)


# -- constructed recall ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["zipf", "drift", "one-shot"])
def test_a_stream_depends_on_seed_and_index_and_asks_only_about_planted_pairs(kind):
    one, again, more = (make_streams(kind, tokens=384, streams=n, seed=4) for n in (2, 2, 3))
    assert torch.equal(one.asks, again.asks)
    assert torch.equal(one.asks, more.asks[:2])
    assert not torch.equal(one.asks, make_streams(kind, tokens=384, streams=2, seed=5).asks)
    for asks, pairs in zip(one.asks, one.pairs, strict=True):
        asked = torch.nonzero(asks >= 0).flatten()
        assert pairs.sum() == (64 if kind == "drift" else 32)
        assert pairs[asks[asked]].all()
        assert (asks[asked] < asked).all()
        assert not pairs[asked].any()
        assert not pairs[0]


def test_who_keeps_everything_answers_everything_and_without_the_first_token_nothing_is_fluent():
    streams = make_streams("zipf", tokens=384, streams=2, seed=0)
    trace = streams.attention()
    everything = torch.ones_like(trace, dtype=torch.bool).tril()
    assert [x.tolist() for x in streams.scores(trace, everything)] == [[1.0, 1.0], [1.0, 1.0]]
    headless = everything.clone()
    headless[:, 1:, 0] = False
    recalled, fluent = streams.scores(trace, headless)
    assert recalled.tolist() == [1.0, 1.0]
    assert fluent.tolist() == [0.0, 0.0]


@given(sinks=st.integers(1, 3), recent=st.integers(1, 8), planted=st.integers(1, 20), gap=st.integers(1, 14))
def test_a_pair_is_recalled_exactly_up_to_the_edge_of_the_cache(sinks, recent, planted, gap):
    """S + R are kept and the query sees itself too: a pair at j is answered at t iff t - j <= R or j < S."""
    T = 40
    asks = torch.full((1, T), -1)
    t = planted + gap
    asks[0, t] = planted
    streams = RecallStreams(asks, 0, torch.zeros(1, T, dtype=torch.bool))
    trace = streams.attention()
    visible = simulate(trace, load("streaming", sinks=sinks, recent=recent), sinks + recent)
    recalled, _ = streams.scores(trace, visible)
    room = planted + gap <= sinks + recent  # nothing has been evicted yet
    assert bool(recalled[0]) == (gap <= recent or planted < sinks or room)


@pytest.fixture(scope="module")
def recalled(tmp_path_factory):
    return tian.run("kvcache/recall", ["streams=4"], folder=tmp_path_factory.mktemp("recall") / "run")


def values(result, name):
    return {(m.by["policy"], m.by["stream"]): m.value for m in result.measurements if m.name == name}


def test_the_stream_separates_the_policies_as_designed(recalled):
    found = values(recalled, "recall")
    assert found["h2o", "zipf"] >= 0.8
    for other in ("window", "streaming", "h2o 15+1", "tova", "random"):  # neither half of h2o alone, nor its relatives
        assert found[other, "zipf"] <= 0.5
    assert found["h2o-decay", "drift"] >= 0.8
    assert found["h2o", "drift"] <= 0.5
    assert found["h2o-decay", "zipf"] >= found["h2o", "zipf"] - 0.02
    assert all(found["full", kind] == 1.0 for kind in ("zipf", "drift", "one-shot"))
    assert found["h2o", "one-shot"] <= 0.3  # nobody asked before: no rule of the past can know
    fluent = values(recalled, "fluency")
    assert {name for (name, _), value in fluent.items() if value < 1.0} == {"window"}


def test_the_first_token_gets_the_attention_of_late_fills_while_it_is_there(recalled):
    found = values(recalled, "attention on the first token")
    sink, size = math.exp(10.0), 16
    assert found["streaming", "zipf"] == pytest.approx(sink / (sink + size), abs=1e-6)  # 16 others, itself among them
    assert found["window", "zipf"] == 0
    assert found["full", "zipf"] < found["streaming", "zipf"]  # more others


def test_recall_gained_is_that_of_the_first_policy_over_each_other(recalled):
    gained = {(m.by["over"], m.by["stream"]): m for m in recalled.measurements if m.name == "recall gained"}
    found = values(recalled, "recall")
    assert {other for other, _ in gained} == {p for p, _ in found} - {"h2o"}
    for (other, kind), m in gained.items():
        assert m.by["policy"] == "h2o"
        assert m.value == pytest.approx(found["h2o", kind] - found[other, kind])
    assert gained["h2o-decay", "drift"].value < 0
    assert gained["window", "zipf"].ci95[0] > 0


def test_everything_about_the_stream_says_that_it_is_constructed(recalled):
    assert {m.by["data"] for m in recalled.measurements} == {"constructed"}
    page = (recalled.path / "report.html").read_text()
    assert "Constructed recall" in page
    assert "says nothing about a trained model" in page
    assert recalled.measurements[0].by["policy"] == "h2o"  # the configured policy first


class Stop(Exception):
    pass


def test_an_interrupted_recall_goes_on_with_the_policies_that_lack(tmp_path, monkeypatch, recalled):
    from tian_kvcache import recall

    calls = []

    def stopping(arm, trace, capacity):
        calls.append(arm.label)
        if len(calls) == 4:
            raise Stop
        return seen_by(arm, trace, capacity)

    seen_by = recall.seen_by
    monkeypatch.setattr(recall, "seen_by", stopping)
    with pytest.raises(Stop):
        tian.run("kvcache/recall", ["streams=4"], folder=tmp_path / "run")
    result = tian.run("kvcache/recall", resume=tmp_path / "run")
    assert len(calls) == len(set(calls)) + 1  # only the interrupted one twice
    assert [m.as_dict() for m in result.measurements] == [m.as_dict() for m in recalled.measurements]


@pytest.mark.parametrize(
    ("run", "override", "text"),
    [
        ("recall", "capacity=1", "capacity"), ("recall", "kinds=[zip]", "kinds"), ("recall", "tokens=50", "tokens"),
        ("recall", "compare=[h2o]", "use: h2o"), ("regret", "budget=1.5", "budget"), ("regret", "heads=0", "heads"),
        ("heavy-hitters", "share=1.5", "share"), ("heavy-hitters", "streams=1", "streams"),
    ],
)  # fmt: skip
def test_an_option_of_a_study_that_makes_no_sense_is_refused(run, override, text):
    with pytest.raises(TianError) as caught:
        tian.compose(f"kvcache/{run}", [override])
    assert text in caught.value.message + caught.value.hint


# -- regret ------------------------------------------------------------------------------------------------------------

TEXT = f"text.path={__file__}"  # a short text, quickly encoded
SMALL = [TEXT, "tokens=48", "streams=2", "curve=[0.5]", "compare=[{use: window}, {use: h2o-global}]"]


@pytest.fixture(scope="module")
def regretted(tmp_path_factory):
    pytest.importorskip("ortools")
    return tian.run("kvcache/regret", SMALL, folder=tmp_path_factory.mktemp("regret") / "run")


def test_regret_is_between_nothing_and_everything_and_falls_with_the_budget(regretted):
    found = {(m.by["policy"], m.by["budget"]): m for m in regretted.measurements if m.name == "regret"}
    assert {b for _, b in found} == {"12 tokens", "24 tokens"}
    for (name, budget), m in found.items():
        assert 0 <= m.value <= 1
        assert m.ci95 is not None
        if budget == "12 tokens" and name != "h2o-global":
            assert found[name, "24 tokens"].value < m.value
    assert regretted.measurements[0].by == {"policy": "h2o", "budget": "12 tokens"}
    gap = next(m for m in regretted.measurements if m.name.startswith("gap"))
    assert gap.value < 1e-9


def test_the_report_of_regret_names_its_caveats_and_draws_heads_and_curve(regretted):
    page = (regretted.path / "report.html").read_text()
    assert "is not loss" in page
    assert "Regret along the budget" in page
    assert {p.name for p in (regretted.path / "plots").iterdir()} == {"regret.svg", "regret-curve.svg"}


def test_the_plan_of_a_regret_run_can_be_read(regretted):
    assert load("plan", path=str(regretted.path / "plan.npz")).capacity(0, 4, None) == 12


@pytest.mark.slow
def test_an_interrupted_regret_goes_on_with_the_heads_that_lack(tmp_path, monkeypatch, regretted):
    calls = []

    def stopping(*args, **kwargs):
        calls.append(1)
        if len(calls) == 7:
            raise Stop
        return solve(*args, **kwargs)

    solve = regret.optimum
    monkeypatch.setattr(regret, "optimum", stopping)
    with pytest.raises(Stop):
        tian.run("kvcache/regret", SMALL, folder=tmp_path / "run")
    result = tian.run("kvcache/regret", resume=tmp_path / "run")
    assert len(calls) == 1 + 2 * 2 * 16  # the interrupted head twice, no other
    assert [m.as_dict() for m in result.measurements] == [m.as_dict() for m in regretted.measurements]


def test_heads_are_picked_evenly_and_all_by_default():
    assert regret._picked(2, 4, None) == [(i, j) for i in range(2) for j in range(4)]
    assert regret._picked(2, 4, 4) == [(0, 0), (0, 2), (1, 0), (1, 2)]


# -- heavy hitters -----------------------------------------------------------------------------------------------------


@given(n=st.integers(2, 30), d=st.integers(1, 8), seed=st.integers(0, 999))
def test_the_damage_meter_equals_leaving_the_token_out(n, d, seed):
    g = torch.Generator().manual_seed(seed)
    p = torch.randn(3, n, generator=g, dtype=torch.float64).mul(2).softmax(dim=-1)
    v = torch.randn(3, n, d, generator=g, dtype=torch.float64)
    o = (p[..., None] * v).sum(dim=1)
    found = stats.damage(p, o, v)
    for j in range(n):
        rest = p.clone()
        rest[:, j] = 0
        without = (rest[..., None] * v).sum(dim=1) / rest.sum(dim=1, keepdim=True)
        torch.testing.assert_close(found[:, j], without - o, atol=1e-6, rtol=1e-6)


def test_a_power_law_is_fitted_exactly_and_uniform_mass_adds_up():
    mass = torch.arange(1, 50, dtype=torch.float64) ** -1.5
    slope, fit = stats.power_law(mass[torch.randperm(49, generator=torch.Generator().manual_seed(0))])
    assert float(slope) == pytest.approx(-1.5)
    assert float(fit) == pytest.approx(1.0)
    rows = torch.ones(30, 30, dtype=torch.float64).tril()
    torch.testing.assert_close(stats.uniform_mass(30), (rows / rows.sum(dim=1, keepdim=True)).sum(dim=0))


def test_shares_and_rank_correlation_in_small_cases():
    mass = torch.tensor([5.0, 1.0, 3.0, 1.0])
    assert float(stats.share_of(mass, stats.heaviest(mass, 0.5))) == pytest.approx(0.8)
    x = np.array([1.0, 2.0, 3.0, 4.0])
    assert stats.rank_correlation(x, x**3) == pytest.approx(1.0)
    assert stats.rank_correlation(x, -x) == pytest.approx(-1.0)
    assert stats.rank_correlation(x, np.ones(4)) == 0.0
    assert stats.ranks(np.array([2.0, 1.0, 2.0])).tolist() == [1.5, 0.0, 1.5]
    chance = stats.permuted(np.arange(50.0), np.arange(50.0), times=200, seed=0)
    assert abs(chance.mean()) < 0.05
    assert np.quantile(chance, 0.975) < 0.4


@pytest.fixture(scope="module")
def model():
    from tian.hf.loading import load_model

    return load_model(None)


def test_masking_nothing_is_the_model_and_masking_a_token_is_as_if_it_were_not_seen(model):
    ids = torch.randint(1, 1000, (20,), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
    plain = float(torch.nn.functional.cross_entropy(logits, ids[1:]))
    assert stats.loss_without(model, ids, []) == pytest.approx(plain, abs=1e-5)
    assert stats.loss_without(model, ids, [19]) == pytest.approx(plain, abs=1e-5)  # nobody comes after it
    assert abs(stats.loss_without(model, ids, [3]) - plain) > 1e-4
    mask = stats.masked_mask([1], 3, torch.float32)[0, 0] == 0
    assert mask.tolist() == [[True, False, False], [True, True, False], [True, False, True]]


def test_attention_rows_sum_to_one_and_the_model_is_put_back(model):
    before = model.config._attn_implementation
    ids = torch.randint(1, 1000, (12,), generator=torch.Generator().manual_seed(0))
    found = attention_by_head(model, ids)
    assert found.shape == (4, 4, 12, 12)
    torch.testing.assert_close(found.sum(dim=-1), torch.ones(4, 4, 12))
    assert not found.triu(1).any()
    assert model.config._attn_implementation == before


HEAVY = [TEXT, "tokens=64", "streams=3", "permutations=20"]


@pytest.fixture(scope="module")
def heavy(tmp_path_factory):
    return tian.run("kvcache/heavy-hitters", HEAVY, folder=tmp_path_factory.mktemp("heavy") / "run")


def test_heavy_hitters_measures_with_intervals_and_a_meter_without_error(heavy):
    found = {m.name: m for m in heavy.measurements}
    share = found["share of attention on the heavy tokens"]
    assert 0.1 < share.value < 1
    assert share.ci95[0] < share.value < share.ci95[1]
    assert found["error of the damage meter"].value < 1e-6
    ratio = found["perplexity, heavy masked / random masked"]
    both = [found[f"perplexity with {x} tokens masked / intact"].value for x in ("heavy", "random")]
    assert ratio.value == pytest.approx(both[0] / both[1])
    page = (heavy.path / "report.html").read_text()
    assert "of the attention" in page
    assert "random pairings" in page


@pytest.mark.slow
def test_tokens_named_heavy_at_random_carry_no_more_than_their_share(tmp_path):
    result = tian.run("kvcache/heavy-hitters", [*HEAVY, "rank_by=random"], folder=tmp_path / "run")
    found = {m.name: m.value for m in result.measurements}
    assert found["share of attention on the heavy tokens"] == pytest.approx(0.1, abs=0.04)


@pytest.mark.slow
def test_an_interrupted_study_of_heavy_hitters_goes_on_with_the_streams_that_lack(tmp_path, monkeypatch, heavy):
    calls = []

    def stopping(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise Stop
        return look(*args, **kwargs)

    look = heavy_hitters.look
    monkeypatch.setattr(heavy_hitters, "look", stopping)
    with pytest.raises(Stop):
        tian.run("kvcache/heavy-hitters", HEAVY, folder=tmp_path / "run")
    result = tian.run("kvcache/heavy-hitters", resume=tmp_path / "run")
    assert len(calls) == 4
    assert [m.as_dict() for m in result.measurements] == [m.as_dict() for m in heavy.measurements]


def test_an_unfinished_study_has_no_section_yet(run_dir):
    from tian_kvcache import heavy_report, recall_report, regret_report

    assert [m.sections(run_dir) for m in (heavy_report, recall_report, regret_report)] == [[], [], []]


# -- the guarantee of greedy choices -----------------------------------------------------------------------------------


def test_greedy_keeps_the_bound_of_submodular_maximisation_and_is_optimal_for_sums():
    from tian_kvcache.submodular import best_set, facility_location, greedy

    for seed in range(20):
        near = np.random.default_rng(seed).random((12, 10))
        value = facility_location(near)
        got, best = value(greedy(value, 10, 3)), value(best_set(value, 10, 3))
        assert (1 - 1 / math.e) * best - 1e-12 <= got <= best + 1e-12
        weight = np.random.default_rng(seed).random(10)

        def modular(chosen, weight=weight):
            return float(weight[list(chosen)].sum())

        assert sorted(greedy(modular, 10, 3)) == sorted(best_set(modular, 10, 3))
    assert json.dumps(greedy(value, 10, 0)) == "[]"
