"""StreamEval: the stream is what it says, and answers end exactly at the edge of the cache."""

import json
import random

import pytest
import torch

import tian
from tian.errors import TianError
from tian.hf.loading import load_tokenizer
from tian_kvcache.streameval_stream import Asked, constructed, distance_of, right, text_stream


def test_each_question_is_about_the_line_so_many_lines_back():
    tokenizer = load_tokenizer(None)
    ids, asked = text_stream(tokenizer, back=3, queries=2, every=5, rng=random.Random(0))
    assert len(asked) == 2
    for a in asked:
        answer = tokenizer.decode(ids[a.start : a.start + a.length])
        at = a.start - a.distance
        assert tokenizer.decode(ids[at : at + a.length]) == answer
        between = tokenizer.decode(ids[at : a.start])
        assert between.count("\n") == 4  # three further lines, and its own end
        assert between.rstrip().endswith("Answer:")


def test_an_answer_is_right_when_all_its_tokens_are():
    hits = torch.tensor([False, True, True, True, False])
    assert right(hits, [Asked(2, 3, 9), Asked(3, 3, 9), Asked(1, 1, 9)]) == [True, False, False]


@pytest.mark.parametrize("back", [1, 3])
def test_the_constructed_edge_is_exact(tmp_path, back):
    """S + R are kept and the query sees itself too: with R = distance all is answered, with one less nothing."""
    distance = distance_of(back)
    shared = ["queries=2", "every=4", f"lines_back=[{back}]", "kv.sinks=1", "compare=[]"]
    found = [
        tian.run("kvcache/streameval", [*shared, f"kv.recent={r}"], folder=tmp_path / str(r)).measurements[0].value
        for r in (distance, distance - 1)
    ]
    assert found == [1.0, 0.0]
    asks = constructed(back=back, queries=2, every=4).asks[0]
    for t in torch.nonzero(asks >= 0).flatten().tolist():
        assert t - int(asks[t]) == distance


def test_a_model_reads_the_stream_and_a_finished_run_is_not_read_again(tmp_path):
    overrides = ["reader=model", "queries=1", "every=2", "streams=2", "lines_back=[1]", "compare=[]", "threads=1"]
    result = tian.run("kvcache/streameval", overrides, folder=tmp_path / "run")
    assert [m.n for m in result.measurements] == [2]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "By distance" in page
    assert len((tmp_path / "run" / "answers.jsonl").read_text().splitlines()) == 1
    assert json.loads((tmp_path / "run" / "streameval.json").read_text())["reader"] == "model"


@pytest.mark.parametrize("bad", ["lines_back=[]", "lines_back=[0]", "queries=0", "compare=[window]"])
def test_bad_options_are_named(tmp_path, bad):
    with pytest.raises(TianError, match=bad.partition("=")[0]):
        tian.run("kvcache/streameval", [bad], folder=tmp_path / "run")
