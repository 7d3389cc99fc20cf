"""`kvcache/stream` end to end: results, resuming, and what it says."""

import json
import math
import re
from typing import ClassVar

import pytest
import torch

import tian
from tian.errors import DataError, TianError
from tian.hf.host import attach
from tian.hf.loading import load_model
from tian.runs.rundir import open_existing
from tian.types import Section
from tian_kvcache import reader
from tian_kvcache.arms import Arm, build_arms
from tian_kvcache.checks import DEPENDENCE, NEITHER, SINK, FirstToken, judge, probe_first_token
from tian_kvcache.report import sections
from tian_kvcache.stream import OLDEST, curve, late_start
from tian_kvcache.traces import attention_by_head

SMALL = ["tokens=96", "streams=2", "kv.sinks=1", "kv.recent=7", "threads=1"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "stream"
    return tian.run("kvcache/stream", SMALL, folder=folder)


def test_a_run_leaves_numbers_plots_and_a_report(finished):
    names = {p.name for p in finished.path.iterdir()}
    assert {"config.yaml", "status.json", "provenance.json", "metrics.json", "report.html", "stream.json"} <= names
    assert (finished.path / "plots" / "perplexity.svg").exists()
    page = (finished.path / "report.html").read_text()
    assert "tian run kvcache/stream tokens=96" in page
    assert not re.search(
        r"<(script|link|img|iframe)|url\((?!#)|@import|(src|href)=.(https?:)?//", page
    )  # nothing is fetched
    assert json.loads((finished.path / "status.json").read_text())["state"] == "finished"
    kinds = {c["name"] for c in json.loads((finished.path / "provenance.json").read_text())["components"]}
    assert {"kvcache/stream", "kvcache/streaming", "kvcache/window", "kvcache/full"} <= kinds


def test_the_measured_arms_are_the_ones_asked_for(finished):
    arms = {m.by["policy"] for m in finished.measurements}
    assert arms == {"streaming 1+7", "full", "window 0+8", "recompute 1+7", "streaming 1+7, first value zeroed"}


def test_perplexity_of_full_equals_one_dense_forward(finished):
    """The whole path (text, tokens, cache, bookkeeping) against a single forward of the plain model."""
    reading, _ = reader.load_reading(finished.path / "streams" / "full.safetensors")
    from tian.hf.corpus import cut_streams, encode, first_tokens, read_text
    from tian.hf.loading import load_tokenizer
    from tian.hf.options import TextSource

    tokenizer, model = load_tokenizer(None), load_model(None)
    text = read_text(TextSource(packages=["networkx"])).text
    ids = cut_streams(encode(tokenizer, text), first=first_tokens(tokenizer), streams=2, tokens=96)
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    expected = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    torch.testing.assert_close(reading.nll, expected, atol=1e-4, rtol=1e-4)


def test_bounded_caches_do_not_grow(finished):
    rows = {r["label"]: r for r in json.loads((finished.path / "stream.json").read_text())["arms"]}
    assert rows["streaming 1+7"]["cache_growth"] == rows["window 0+8"]["cache_growth"] == 0
    assert rows["full"]["cache_growth"] > 0


def test_what_the_claims_judge_is_measured_from_the_readings(finished):
    """Cache growth and the cost of the first evictions, from the saved readings by hand."""
    found = {(m.name, m.by["policy"]): m for m in finished.measurements}
    assert found["cache growth", "streaming 1+7"].value == 0
    full, _ = reader.load_reading(finished.path / "streams" / "full.safetensors")
    (_, first), (_, last) = next(s for s in full.cache_bytes if s[0] >= full.done // 8), full.cache_bytes[-1]
    assert found["cache growth", "full"].value > 0
    assert last > first
    window, _ = reader.load_reading(finished.path / "streams" / "window-0-8.safetensors")
    ratio = math.exp(float((window.nll[:, 8:95] - full.nll[:, 8:95]).mean()))  # 8 tokens are kept, 96 are read
    assert found["perplexity over full attention", "window 0+8"].value == pytest.approx(ratio, rel=1e-6)
    assert ("perplexity over full attention", "full") not in found


def test_attention_on_the_oldest_token_is_that_of_the_first_or_of_an_ordinary_one(finished):
    """By hand: attention of the last of 8 tokens on slot 0, mean over heads and places, largest above the lowest layer."""
    model = load_model(None)
    ids = torch.randint(1, 1000, (2, 40), generator=torch.Generator().manual_seed(0))
    for ordinary in (False, True):
        found = probe_first_token(model, ids, recent=7, ordinary=ordinary)
        rows = []
        for end in torch.linspace(20, 40, 8).long().tolist():
            head = ids[:, end - 8 : end - 7] if ordinary else ids[:, :1]
            window = torch.cat([head, ids[:, end - 7 : end]], dim=1)
            rows.extend(attention_by_head(model, w)[:, :, -1, 0].mean(dim=1) for w in window)
        torch.testing.assert_close(torch.tensor(found.mass), torch.stack(rows).mean(dim=0), atol=1e-5, rtol=1e-4)
        assert found.strongest == 1 + int(torch.tensor(found.mass[1:]).argmax())
    measured = [m for m in finished.measurements if m.name == OLDEST]
    assert [m.by for m in measured] == [{"policy": "streaming 1+7"}]
    assert measured[0].value == max(json.loads((finished.path / "stream.json").read_text())["verdict"]["mass"][1:])


def test_recomputation_may_have_a_size_of_its_own(run_dir):
    arms = build_arms({"use": "kvcache/window", "recent": 8}, ["recompute 2+5"], run_dir)
    assert [(a.label, a.policy, a.sinks, a.recent) for a in arms[1:]] == [("recompute 2+5", None, 2, 5)]
    assert [a.label for a in build_arms({"use": "kvcache/full"}, ["recompute 1+3"], run_dir)][1:] == ["recompute 1+3"]
    for wrong in ("recompute 2", "recompute 2+0", "recompute a+b"):
        with pytest.raises(TianError, match="bare name"):
            tian.compose("kvcache/stream", [f"compare=['{wrong}']"])


class Stop(Exception):
    pass


@pytest.mark.parametrize("policy", ["streaming", "full", None])
@pytest.mark.parametrize("at", [3, 30])
def test_an_interrupted_stream_resumes_bit_identically(tmp_path, monkeypatch, policy, at):
    model = load_model(None)
    ids = torch.randint(1, 1000, (2, 50), generator=torch.Generator().manual_seed(0))
    options = {"sinks": 1, "recent": 7} if policy == "streaming" else {}
    arm = Arm("x", tian.load("kv_policy", policy, **options) if policy else None, 1, 7)
    whole = reader.read(model, ids, arm, path=tmp_path / "a", save_every=1e9, advance=lambda n: None)

    class Interrupted(reader.SafePoint):
        steps = 0

        @property
        def requested(self):
            Interrupted.steps += 1
            return Interrupted.steps == at

        def check(self):
            raise Stop

    monkeypatch.setattr(reader, "SafePoint", Interrupted)
    with pytest.raises(Stop):
        reader.read(model, ids, arm, path=tmp_path / "b", save_every=1e9, advance=lambda n: None)
    monkeypatch.undo()
    half, _ = reader.load_reading(tmp_path / "b")
    assert half.done == at
    rest = reader.read(model, ids, arm, path=tmp_path / "b", save_every=1e9, advance=lambda n: None)
    assert torch.equal(rest.nll, whole.nll)


def test_a_damaged_saved_stream_is_named(tmp_path):
    (tmp_path / "x").write_bytes(b"torn")
    with pytest.raises(DataError, match="damaged") as caught:
        reader.load_reading(tmp_path / "x")
    assert "starts over" in caught.value.hint


def test_recomputation_is_the_dense_model_on_first_and_last_tokens():
    model = load_model(None)
    ids = torch.randint(1, 1000, (1, 20), generator=torch.Generator().manual_seed(0))
    arm = Arm("recompute", None, sinks=2, recent=5)
    with torch.no_grad():
        got = reader._recompute_step(model, ids, 15, arm)
        want = model(input_ids=ids[:, [0, 1, 11, 12, 13, 14, 15]], use_cache=False).logits[:, -1]
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_with_one_layer_streaming_equals_recomputation(tmp_path):
    """Upper layers remember what was evicted; a one-layer model does not, so there the two must agree exactly."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=0, eos_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    ids = torch.randint(0, 50, (2, 40), generator=torch.Generator().manual_seed(1))
    # A step attends to the C kept tokens and its own, hence recomputation over one token more.
    cached = Arm("a", tian.load("kv_policy", "streaming", sinks=1, recent=7))
    again = Arm("b", None, sinks=1, recent=8)
    readings = [
        reader.read(model, ids, a, path=tmp_path / a.label, save_every=9, advance=lambda n: None)
        for a in (cached, again)
    ]
    torch.testing.assert_close(readings[0].nll, readings[1].nll, atol=1e-5, rtol=1e-5)


def test_the_first_value_can_be_zeroed_and_stays_zero():
    model = load_model(None)
    ids = torch.randint(1, 1000, (1, 12), generator=torch.Generator().manual_seed(0))
    with attach(model, kv=tian.load("kv_policy", "streaming", sinks=1, recent=3)) as cache, torch.inference_mode():
        for t in range(12):
            model(input_ids=ids[:, t : t + 1], past_key_values=cache, use_cache=True)
            if t == 0:
                for layer in cache.layers:
                    layer.values[:, :, 0].zero_()
        assert cache.kept()[0, 0].tolist() == [0, 9, 10, 11]
        for layer in cache.layers:
            slot = int((layer.tok[0, 0] == 0).int().argmax())
            assert not layer.values[:, :, slot].any()


@pytest.mark.parametrize(
    ("first", "ratio", "zeroed", "words"),
    [
        (FirstToken([0.5, 0.6], [0.2, 0.2]), 1.5, 1.0, SINK),
        (FirstToken([0.9, 0.1], [0.2, 0.2]), 1.5, 1.0, DEPENDENCE),  # mass in the lowest layer only
        (FirstToken([0.5, 0.6], [0.2, 0.8]), 1.5, 1.0, DEPENDENCE),  # its value carries content
        (FirstToken([0.5, 0.6], [0.2, 0.2]), 1.5, 1.1, DEPENDENCE),  # and that content matters
        (FirstToken([0.5, 0.6], [0.2, 0.2]), 1.1, 1.0, NEITHER),
    ],
)
def test_only_all_checks_together_make_a_sink(first, ratio, zeroed, words):
    assert judge(first, ratio=ratio, zeroed=zeroed).words == words


def test_the_report_never_speaks_of_a_sink_without_the_checks(finished):
    run = open_existing(finished.path)
    verdict = run.read_json("stream.json")["verdict"]["words"]
    first = sections(run)[0]
    assert isinstance(first, Section)
    if verdict != SINK:
        assert verdict in first.html
        assert "attention sink" not in first.html.replace(verdict, "")


def test_comparison_starts_past_training_length_and_caches():
    arms = [Arm("a", None, 1, 31), Arm("b", tian.load("kv_policy", "window", recent=200))]
    assert late_start(arms, train_length=128, length=1000) == 201
    assert late_start(arms[:1], train_length=128, length=1000) == 128
    assert late_start(arms, train_length=128, length=150) == 75  # too short: the second half


def test_the_curve_is_the_perplexity_of_equal_bins():
    nll = torch.log(torch.arange(1.0, 65.0))[None]
    points = curve(nll, 64)
    assert len(points) == 32
    assert points[0][1] == pytest.approx(math.sqrt(1 * 2))


def test_beside_an_unbounded_policy_there_is_no_size_to_match():
    class NoRun:
        said: ClassVar = []
        info = said.append
        load = staticmethod(lambda role, node: tian.load(role, node["use"]))

    assert [a.label for a in build_arms({"use": "kvcache/full"}, ["full", "window", "recompute"], NoRun)] == ["full"]
    assert [s.split()[0] for s in NoRun.said] == ["window", "recompute"]


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "gpt_neox"])
def test_any_supported_model_folder_and_text_file_can_be_read(tmp_path, kind):
    from transformers import AutoConfig, AutoModelForCausalLM

    from tian.hf.loading import load_tokenizer

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    if kind != "gpt_neox":
        shape["num_key_value_heads"] = 2
    config = AutoConfig.for_model(kind, vocab_size=1024, max_position_embeddings=64, **shape)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    load_tokenizer(None).save_pretrained(tmp_path / "model")
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog. Größe ∑. " * 60, encoding="utf-8")
    result = tian.run(
        "kvcache/stream",
        [
            f"model.path={tmp_path / 'model'}",
            f"text.path={tmp_path / 'text.txt'}",
            "kv=streaming",
            "kv.sinks=4",
            "kv.recent=12",
            "tokens=80",
            "streams=2",
        ],
        folder=tmp_path / "run",
    )
    measured = {m.by["policy"]: m.value for m in result.measurements if m.name == "perplexity"}
    assert measured.keys() >= {"streaming 4+12", "full", "window 0+16", "recompute 4+12"}
    assert all(math.isfinite(v) for v in measured.values())


def test_an_arm_that_stops_early_is_compared_on_what_it_read(tmp_path):
    options = ["tokens=96", "streams=2", "kv.recent=7", "compare=[full]", "full_limit=10", "checks=false", "threads=1"]
    path = tian.run("kvcache/stream", options, folder=tmp_path / "run").path
    main, full = json.loads((path / "stream.json").read_text())["arms"]
    assert (full["from"], full["done"], main["from"], main["done"]) == (1, 10, 48, 95)
    both = [reader.load_reading(path / "streams" / f"{n}.safetensors")[0].nll for n in ("full", "streaming-1-7")]
    gap = (both[0][:, :10] - both[1][:, :10]).mean()  # the same ten tokens of both
    assert full["ratio"] == pytest.approx(math.exp(float(gap)), rel=1e-5)
    first = sections(open_existing(path))[0].html
    assert "on the same tokens" in first
    assert "past the training length" not in first  # 10 tokens are not


def test_a_first_arm_that_stops_early_still_gives_finite_ratios(tmp_path):
    options = ["kv=full", "full_limit=10", "compare=[{use: window, recent: 8}]", "tokens=96", "streams=2", "threads=1"]
    result = tian.run("kvcache/stream", options, folder=tmp_path / "run")
    assert all(math.isfinite(m.value) for m in result.measurements)
