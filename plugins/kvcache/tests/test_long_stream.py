"""`kvcache/long-stream`: what it reads, resumes, refuses and reports."""

import json
import math
from types import SimpleNamespace

import pytest
import torch

import tian
from tian.errors import DataError, InvalidInput
from tian.hf import attach, load_model, load_tokenizer
from tian_kvcache import long_stream
from tian_kvcache.long_stream import STATE, token_at

SMALL = ["tokens=400", "chunk=64", "single=8", "first_check=64", "kv.sinks=2", "kv.recent=14"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n".join(f"def f{i}(x):\n    return x * {i} + {i * i % 97}" for i in range(120)))
    return f"text.path={path}"


@pytest.fixture(scope="module")
def finished(text, tmp_path_factory):
    return tian.run("kvcache/long-stream", [*SMALL, text], folder=tmp_path_factory.mktemp("long") / "run")


def value(result, name):
    return next(m.value for m in result.measurements if m.name == name)


def test_every_check_finds_the_state_of_the_kept_tokens_alone(finished):
    checks = json.loads((finished.path / "long-stream.json").read_text())["at"]["checks"]
    assert [c["tokens"] for c in checks] == [64, 128, 256, 400]
    assert all(c["error"] < 1e-4 for c in checks)
    assert value(finished, "hidden error") == max(c["error"] for c in checks)
    assert value(finished, "cache growth") == 0


def test_positions_that_go_on_counting_miss_the_bar(text, tmp_path):
    counting = tian.run("kvcache/long-stream", [*SMALL, text, "kv.positions=original"], folder=tmp_path / "run")
    assert value(counting, "hidden error") > 1e-2


def test_perplexity_is_that_of_the_tokens_one_by_one(finished, text):
    from tian.hf.corpus import load_streams
    from tian.hf.options import TextSource

    model, path = load_model(None), text.removeprefix("text.path=")
    ids, _ = load_streams(TextSource(path=path), load_tokenizer(None), streams=1, tokens=400, seed=0)
    policy, total = tian.load("kv_policy", "kvcache/streaming", sinks=2, recent=14), 0.0
    with attach(model, kv=policy) as cache:
        for t in range(399):
            logits = model(input_ids=ids[:, t : t + 1], past_key_values=cache, use_cache=True).logits[:, -1]
            total += float(torch.nn.functional.cross_entropy(logits, ids[:, t + 1]))
    assert value(finished, "perplexity") == pytest.approx(math.exp(total / 399), rel=1e-4)


def test_a_stream_that_was_cut_off_goes_on_to_the_same_result(finished, text, tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    class Cut(long_stream.SafePoint):
        asked = 0

        @property
        def requested(self):
            Cut.asked += 1
            return Cut.asked == 12

        def check(self):
            raise Stop

    monkeypatch.setattr(long_stream, "SafePoint", Cut)
    with pytest.raises(Stop):
        tian.run("kvcache/long-stream", [*SMALL, text], folder=tmp_path / "run")
    monkeypatch.undo()
    assert (tmp_path / "run" / STATE).exists()
    again = tian.run("kvcache/long-stream", resume=tmp_path / "run")
    for name in ("hidden error", "perplexity", "perplexity, last check"):
        assert value(again, name) == value(finished, name)
    (tmp_path / "run" / STATE).write_bytes(b"torn")
    with pytest.raises(DataError, match="damaged"):
        long_stream._restore(SimpleNamespace(path=tmp_path / "run"), None)


def test_a_short_text_starts_over_without_its_first_token():
    ids = torch.tensor([9, 1, 2, 3])
    assert token_at(ids, 1, 0, 10).tolist() == [[9, 1, 2, 3, 1, 2, 3, 1, 2, 3]]
    assert token_at(ids, 1, 5, 8).tolist() == [[2, 3, 1]]
    assert token_at(ids, 0, 2, 6).tolist() == [[2, 3, 9, 1]]


@pytest.mark.parametrize("kv", ["h2o", "full"])
def test_a_policy_that_is_not_contiguous_is_refused(text, tmp_path, kv):
    with pytest.raises(InvalidInput, match="first and the newest tokens only") as error:
        tian.run("kvcache/long-stream", [*SMALL[:4], text, f"kv={kv}"], folder=tmp_path / "run")
    assert "kv=streaming" in error.value.hint


@pytest.mark.parametrize("wrong", ["chunk=0", "single=200", "tokens=50", "save_every=0"])
def test_options_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InvalidInput, match=r"need|must be"):
        tian.compose("kvcache/long-stream", [*SMALL, wrong])


def test_the_report_shows_the_worst_error_and_every_check(finished):
    page = (finished.path / "report.html").read_text()
    assert "400 tokens, hidden error at most" in page
    assert "At every doubling" in page
    assert "<svg" in page
