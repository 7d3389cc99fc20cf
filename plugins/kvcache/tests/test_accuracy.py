"""`kvcache/accuracy`: numbers by hand, every architecture, resuming, and what it refuses."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import tian
from tian.errors import TianError
from tian.hf.loading import SHIPPED
from tian_kvcache.accuracy import at_capacity
from tian_kvcache.intervals import mcnemar, mean_interval, wilson

SMALL = ["items=6", "context=24", "continuation=4", "text.packages=[tian.config]", "threads=1"]
QUESTIONS = [
    {"context": f"def f{i}(value):\n    for item in value:\n        yield", "choices": [" item", " import"], "gold": 0}
    for i in range(4)
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tian.run("kvcache/accuracy", SMALL, folder=tmp_path_factory.mktemp("run") / "accuracy")


def value(result, name, **by):
    return next(m.value for m in result.measurements if m.name == name and by.items() <= m.by.items())


def test_what_is_measured_follows_from_the_answers(finished):
    rows = [json.loads(x) for x in (finished.path / "answers.jsonl").read_text().splitlines()]
    answers = {(r["policy"], r["item"]): r["log_prob"] for r in rows}
    names = {p for p, _ in answers}
    assert names == {"h2o", "window", "h2o 3+1", "streaming", "sink-h2o", "random", "full"}

    def pick(policy, i):
        return max(range(4), key=lambda c: answers[policy, i][c])

    agree = sum(pick("h2o", i) == pick("full", i) for i in range(6)) / 6
    assert value(finished, "agreement", policy="h2o") == pytest.approx(agree)
    moved = [
        sum(abs(a - b) / 4 for a, b in zip(answers["h2o", i], answers["full", i], strict=True)) / 4 for i in range(6)
    ]
    assert value(finished, "log-prob change", policy="h2o") == pytest.approx(sum(moved) / 6)
    assert finished.measurements[0].by == {"policy": "h2o"}  # the configured policy comes first
    lost = value(finished, "accuracy", policy="full") - value(finished, "accuracy", policy="h2o")
    assert value(finished, "accuracy lost", policy="h2o") == pytest.approx(lost)


def test_the_report_says_what_small_model_and_cloze_can_show(finished):
    page = (finished.path / "report.html").read_text()
    assert "no exam" in page
    assert "McNemar" in page


def test_with_the_whole_prompt_as_budget_nothing_changes(tmp_path):
    result = tian.run("kvcache/accuracy", [*SMALL, "budget=40", "compare=[]", "kv=h2o"], folder=tmp_path / "run")
    assert value(result, "log-prob change", policy="h2o") < 1e-4
    assert value(result, "agreement", policy="h2o") == 1.0


def test_a_resumed_run_asks_only_what_lacks(tmp_path, finished):
    folder = tmp_path / "again"
    shutil.copytree(finished.path, folder)
    lines = (folder / "answers.jsonl").read_text().splitlines()
    kept = [x for x in lines if '"h2o"' not in x]
    (folder / "answers.jsonl").write_text("\n".join(kept) + "\n")
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps({**status, "state": "interrupted"}))
    result = tian.run("kvcache/accuracy", resume=folder)
    assert [m.value for m in result.measurements] == pytest.approx([m.value for m in finished.measurements], abs=1e-5)
    after = (folder / "answers.jsonl").read_text().splitlines()
    assert (after[: len(kept)], len(after)) == (kept, len(lines))


def random_model(kind, folder):
    """A tiny model with the shipped tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 1024, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    more = {"ffn_dim": 16, "word_embed_proj_dim": 16} if kind == "opt" else {"intermediate_size": 16}
    config = AutoConfig.for_model(kind, max_position_embeddings=64, **sizes, **more)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(SHIPPED / name, folder / name)
    return str(folder)


@pytest.mark.parametrize("reading", ["whole", "stream"])
@pytest.mark.parametrize("kind", ["opt", "gpt_neox"])
def test_opt_and_gpt_neox_answer_a_users_questions(tmp_path, kind, reading):
    data = tmp_path / "q.jsonl"
    data.write_text("\n".join(map(json.dumps, QUESTIONS)))
    model = random_model(kind, tmp_path / "model")
    shared = [f"model.path={model}", f"data.path={data}", f"reading={reading}", "budget=0.3", "threads=1"]
    result = tian.run("kvcache/accuracy", [*shared, "data.shots=1", "positions=original"], folder=tmp_path / "run")
    assert json.loads((Path(result.path) / "accuracy.json").read_text())["items"] == 3
    assert value(result, "log-prob change", policy="h2o") > 0
    if kind == "opt":
        with pytest.raises(TianError, match="learned positions"):
            tian.run("kvcache/accuracy", shared, folder=tmp_path / "in_cache")
        with pytest.raises(TianError, match="64 learned positions"):
            tian.run("kvcache/accuracy", [*shared, "data.shots=3", "positions=original"], folder=tmp_path / "long")


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("budget=1.5", "share of the prompt"),
        ("data.shots=2", "data.shots needs questions"),
        ("items=1", "items must be"),
        ("compare=[window]", "a policy with its options"),
        ("budget=0.01", "at least 2 are needed"),
        ("data.path=/nowhere.jsonl", "does not exist"),
    ],
)
def test_bad_options_are_named(tmp_path, bad, says):
    with pytest.raises(TianError, match=says):
        tian.run("kvcache/accuracy", [*SMALL, bad], folder=tmp_path / "run")


def test_a_policy_keeps_its_proportions_at_any_capacity():
    made = at_capacity(tian.load("kv_policy", "kvcache/streaming", sinks=4, recent=12), 3, positions="original")
    assert (made.capacity(0, 1, None), made.sinks, made.positions) == (3, 2, "original")
    pyramid = at_capacity(tian.load("kv_policy", "kvcache/h2o", heavy=1, recent=1, layers="pyramid"), 10)
    assert [pyramid.capacity(i, 3, None) for i in range(3)] == [15, 10, 5]


def test_intervals_and_tests_against_known_values():
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == pytest.approx(1.0)
    assert wilson(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert mcnemar([True, False], [True, False]) == 1.0
    assert mcnemar([True] * 8 + [False] * 2, [False] * 8 + [True] * 2) == pytest.approx(0.109375)
    assert mean_interval([3.0]) == (3.0, None)
