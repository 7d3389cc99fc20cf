"""`kvcache/speed`: what is compared, in which order, against which bound. No test here looks at a time."""

import json
import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tian
from tian.errors import InvalidInput, MissingDependency, RunError, TianError
from tian_kvcache import offload, speed, speed_ways
from tian_kvcache.speed_bound import Cost, Limits
from tian_kvcache.speed_options import Shape, SpeedOptions
from tian_kvcache.speed_timing import Clock, Timed, in_turns, median_interval, quartiles
from tian_kvcache.speed_ways import build_model, node_at, twin

TINY = [
    "shape.vocab_size=32", "shape.d_model=16", "shape.layers=2", "shape.heads=2", "shape.kv_heads=2", "shape.ffn=24",
    "length=64", "sizes=[8,16]", "batch=2", "rounds=6", "steps=1", "budget=0.25",
]  # fmt: skip
SHAPE = Shape(vocab_size=32, d_model=16, layers=2, heads=2, kv_heads=1, ffn=24)


@pytest.fixture(scope="module", autouse=True)
def quick():
    """No time is spent on the limits of this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed, "measure_limits", lambda *_args, **_kwargs: Limits(1e10, 1e11))
        yield


def rows_in(path):
    return json.loads((path / "speed.json").read_text())["rows"]


def ratios_by_name(result):
    return {m.name: m for m in result.measurements if m.name in speed.RATIO.values()}


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_bytes_and_operations_are_those_of_the_real_tensors():
    model = build_model(SpeedOptions(shape=SHAPE))
    cost = Cost.of(model)
    table = 32 * 16 * 4
    assert cost.resident == sum(p.nbytes for p in model.parameters())
    assert cost.weights == cost.resident - table  # the embedding is looked up, the head is read
    assert cost.largest == table
    assert cost.kappa == 2 * 2 * 1 * 8 * 4  # layers, keys and values, one head of 8, 4 bytes
    layer = 2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 24  # q and o, k and v of half the width, three of the MLP
    assert cost.products == 2 * layer
    assert cost.step_flops(3, 10) == 3 * (2 * (2 * layer + 32 * 16) + 2 * 2 * 8 * 4 * 10)
    assert cost.prompt_flops(2) == 2 * 2 * 2 * layer + 2 * 32 * 16 + 2 * 2 * 8 * 4 * 3


def test_a_tied_head_is_read_and_a_table_of_positions_is_not():
    model = build_model(SpeedOptions(shape=Shape(kind="opt", vocab_size=32, d_model=16, layers=1, heads=2, kv_heads=2)))
    positions = model.model.decoder.embed_positions.weight
    assert Cost.of(model).weights == Cost.of(model).resident - positions.nbytes


def test_the_bound_of_an_8b_model_is_small_for_one_row_and_two_for_many():
    cost = Cost(16 * 10**9, 16 * 10**9, 10**9, 128 * 1024, 8 * 10**9, 0, 0, torch.device("cpu"))
    assert cost.best_ratio(1, 8192, 2048) == pytest.approx(1.05, abs=0.01)
    assert cost.best_ratio(32, 8192, 2048) == pytest.approx(2.0, abs=0.1)
    assert cost.best_ratio(10**6, 8192, 2048) == pytest.approx(4.0, abs=0.01)


def test_the_least_time_is_the_slower_of_reading_and_computing():
    limits = Limits(bandwidth=10.0, flops=100.0)
    assert limits.seconds(20.0, 50.0) == 2.0
    assert limits.seconds(20.0, 500.0) == 5.0


# -- timing ------------------------------------------------------------------------------------------------------------


def test_ways_take_turns_and_each_round_begins_with_another():
    calls = []
    ways = [Timed(name, lambda name=name: calls.append(name), 1, 2, 0, 0, 0) for name in "abc"]
    found = in_turns(ways, rounds=2, clock=Clock(torch.device("cpu"), 1))
    assert "".join(calls) == "abc" + "aabbcc" + "bbccaa"
    assert {name: len(x) for name, x in found.items()} == {"a": 2, "b": 2, "c": 2}


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60))
def test_the_interval_holds_the_median_and_needs_six_values(x):
    interval = median_interval(x)
    assert (interval is None) == (len(x) < 6)
    if interval:
        assert min(x) <= interval[0] <= statistics.median(x) <= interval[1] <= max(x)
        below = sum(math.comb(len(x), i) for i in range(sorted(x).index(interval[0]) + 1)) / 2 ** len(x)
        assert below <= 0.025 or sorted(x).count(interval[0]) > 1


def test_more_rounds_give_a_narrower_interval():
    assert median_interval(range(20)) == (5, 14)
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 4.0)
    assert quartiles([7.0]) == (7.0, 7.0)


# -- ways --------------------------------------------------------------------------------------------------------------


def test_a_policy_is_resized_and_learned_positions_stay_where_they_are():
    llama = build_model(SpeedOptions(shape=SHAPE))
    opt = build_model(SpeedOptions(shape=Shape(kind="opt", vocab_size=32, d_model=16, layers=1, heads=2, kv_heads=2)))
    h2o = {"use": "h2o", "heavy": 3, "recent": 1, "budget": None, "positions": "in_cache"}
    assert node_at(h2o, 40, model=llama) == {**h2o, "budget": 40}
    assert node_at(h2o, 40, model=opt) == {**h2o, "budget": 40, "positions": "original"}
    assert node_at({"use": "streaming", "sinks": 4, "recent": 1}, 40, model=llama)["recent"] == 36
    assert node_at({"use": "full"}, 40, model=opt) == {"use": "full"}
    with pytest.raises(InvalidInput, match="50 sinks"):
        node_at({"use": "streaming", "sinks": 50, "recent": 1}, 40, model=llama)


def test_a_twin_shares_the_weights_and_nothing_else():
    model = build_model(SpeedOptions(shape=SHAPE))
    other = twin(model)
    assert all(a is b for a, b in zip(model.parameters(), other.parameters(), strict=True))
    other.set_attn_implementation("eager")
    assert model.config._attn_implementation != "eager"


def test_offloaded_weights_are_outside_and_give_the_same_logits(tmp_path):
    pytest.importorskip("accelerate")
    model = build_model(SpeedOptions(shape=SHAPE))
    other = offload.offloaded(model, tmp_path)
    ids = torch.arange(1, 9)[None]
    assert all(p.device.type == "meta" for p in other.parameters())
    assert all(p.device.type == "cpu" for p in model.parameters())
    with torch.inference_mode():
        torch.testing.assert_close(other(input_ids=ids).logits, model(input_ids=ids).logits, rtol=0, atol=0)


# -- the recipe --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def timed(tmp_path_factory):
    return tian.run("kvcache/speed", TINY, folder=tmp_path_factory.mktemp("speed") / "run")


def test_every_ratio_has_its_bound_and_the_rounds_behind_it(timed):
    found = [m for m in timed.measurements if m.name in speed.RATIO.values()]
    bounds = {tuple(m.by.values()): m for m in timed.measurements if m.name == "bound"}
    assert [m.by["row"] for m in found] == ["recompute 8", "recompute 16", "batch", "memory"]
    assert all(tuple(m.by.values()) in bounds for m in found)
    assert all(m.n == 6 and m.ci95 is not None for m in found)
    cost = Cost.of(build_model(options_of_tiny()))
    at_equal_batch = bounds[tuple(found[2].by.values())].value
    assert at_equal_batch == pytest.approx(cost.best_ratio(2, 64, 16))


def options_of_tiny():
    return SpeedOptions(shape=Shape(vocab_size=32, d_model=16, layers=2, heads=2, kv_heads=2, ffn=24))


def test_a_policy_gets_more_rows_in_the_same_memory_and_no_more_than_fit(timed):
    data = rows_in(timed.path)
    ours, *full = data["memory"]["ways"]
    assert ours["batch"] > full[0]["batch"] == 2
    resident = Cost.of(build_model(options_of_tiny())).resident
    assert all(resident + way["cache_bytes"] <= data["memory"]["memory"] for way in data["memory"]["ways"])
    assert {way["batch"] for way in data["batch"]["ways"]} == {2}


def test_the_report_sets_each_ratio_beside_its_bound(timed):
    page = (timed.path / "report.html").read_text()
    assert "(W + B n kappa) / (W + B C kappa)" in page
    assert "of bound" in page
    assert {p.name for p in (timed.path / "plots").iterdir()} == {"recompute.svg", "throughput.svg"}


def test_a_full_cache_as_kv_keeps_everything_and_has_no_gain_to_hope_for(tmp_path):
    result = tian.run("kvcache/speed", [*TINY, "kv=full", "studies=[batch]"], folder=tmp_path / "run")
    bound = next(m for m in result.measurements if m.name == "bound")
    assert bound.value == 1.0
    assert bound.by["of"] == "full, all kept"


def test_learned_positions_and_offloaded_weights_are_timed_too(tmp_path):
    pytest.importorskip("accelerate")
    more = ["shape.kind=opt", "disk=true", "studies=[memory]"]
    result = tian.run("kvcache/speed", [*TINY, *more], folder=tmp_path / "run")
    found = ratios_by_name(result)
    assert found[speed.RATIO[speed.DISK]].by["over"] == "full, weights offloaded"
    outside = rows_in(result.path)["memory"]["ways"][-1]
    assert outside["batch"] > 2  # what the weights leave free is used for rows


class Stop(Exception):
    pass


def test_an_interrupted_run_goes_on_with_the_rows_that_lack(tmp_path, monkeypatch):
    seen = []

    def stopping(ways, **kwargs):
        seen.append(ways[0].label)
        if len(seen) == 3:
            raise Stop
        return in_turns(ways, **kwargs)

    monkeypatch.setattr(speed, "in_turns", stopping)
    with pytest.raises(Stop):
        tian.run("kvcache/speed", [*TINY, "rounds=1"], folder=tmp_path / "run")
    before = rows_in(tmp_path / "run")
    result = tian.run("kvcache/speed", resume=tmp_path / "run")
    assert seen == ["streaming 8", "streaming 16", "h2o 16", "h2o 16", "h2o 16"]
    assert {k: rows_in(result.path)[k] for k in before} == before


def test_memory_for_less_than_one_row_is_refused_with_what_is_needed(tmp_path):
    with pytest.raises(InvalidInput, match="do not hold the weights") as caught:
        tian.run("kvcache/speed", [*TINY, "studies=[memory]", "memory_mib=0.01"], folder=tmp_path / "run")
    assert caught.value.where == "memory_mib"


def test_offloading_without_accelerate_is_refused_before_anything_is_timed(tmp_path, monkeypatch):
    monkeypatch.setattr(offload, "find_spec", lambda _name: None)
    with pytest.raises(MissingDependency, match="accelerate"):
        tian.run("kvcache/speed", [*TINY, "disk=true"], folder=tmp_path / "run")


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("studies=[speed]", "studies"), ("sizes=[2]", "sizes"), ("budget=2.0", "budget"), ("rounds=0", "rounds"),
        ("length=32", "length"), ("budget=0.003", "below 8"), ("memory_mib=-1", "memory_mib"), ("shape.heads=3", "heads"),
        ("shape=gpt", "gpt"), ("shape.layers=0", "shape.layers"),
    ],
)  # fmt: skip
def test_an_option_that_makes_no_sense_is_refused(override, text):
    with pytest.raises(TianError) as caught:
        tian.compose("kvcache/speed", [override])
    assert text in caught.value.message + caught.value.hint


@pytest.mark.parametrize("name", ["llama-29m", "llama-2-7b", "llama-2-13b", "llama-3-8b", "opt-6.7b", "opt-31m"])
def test_every_shape_that_ships_composes(name):
    assert tian.compose("kvcache/speed", [f"shape={name}"])[0].shape.layers >= 8


# -- recorded steps ----------------------------------------------------------------------------------------------------


def test_recorded_steps_are_timed_where_python_ran_them(tmp_path, monkeypatch):
    """Elsewhere than on a GPU the slots' step is a traced program, and full caches are left as they are."""
    made, real = [], speed_ways.RecordedStep

    def record(*args):
        made.append(calls := [])
        step = real(*args)
        return lambda ids: calls.append(ids.shape) or step(ids)

    monkeypatch.setattr(speed_ways, "RecordedStep", record)
    result = tian.run("kvcache/speed", [*TINY, "recorded=true", "studies=[recompute,batch]"], folder=tmp_path / "run")
    assert [len(calls) for calls in made] == [7, 7, 7]  # one to warm up, six rounds; two cache sizes and the batch
    assert [calls[0] for calls in made] == [(1, 1), (1, 1), (2, 1)]
    assert {m.name for m in result.measurements} >= {"speed over recomputation", "speed over full cache, equal batch"}


def test_steps_with_learned_positions_cannot_be_recorded(tmp_path):
    opt = ["shape.kind=opt", "recorded=true", "studies=[batch]"]
    with pytest.raises(InvalidInput, match="learned positions"):
        tian.run("kvcache/speed", [*TINY, *opt], folder=tmp_path / "run")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here, and the step is captured")
def test_a_step_that_cannot_be_captured_is_named():
    with pytest.raises(RunError, match="'full static' cannot be captured"):
        speed_ways.captured(Timed("full static", lambda: None, 1, 1, 1.0, 1.0, 0))
