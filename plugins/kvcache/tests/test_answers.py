"""`kvcache/answers`: scores by hand, prompts, equality with plain generation, resuming, and what it refuses."""

import json
import shutil

import pytest
import torch

import tian
from tian.errors import TianError
from tian.hf.loading import SHIPPED, load_model, load_tokenizer
from tian.hf.options import TextSource
from tian.hf.texts import Document, LongQuestion, read_documents
from tian_kvcache.answers import answer
from tian_kvcache.answers_prompts import constructed, prompt_of
from tian_kvcache.answers_score import exact, f1

SMALL = ["items=3", "max_new=6", "text.packages=[tian.config]", "threads=1", "compare=[{use: kvcache/full}]"]


@pytest.fixture(scope="module")
def shipped():
    return load_model(None), load_tokenizer(None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tian.run("kvcache/answers", SMALL, folder=tmp_path_factory.mktemp("run") / "answers")


def value(result, name, **by):
    return next(m.value for m in result.measurements if m.name == name and by.items() <= m.by.items())


@pytest.mark.parametrize(
    ("said", "references", "score", "same"),
    [
        ("The cat sat.", ["a cat, sat!"], 1.0, True),  # articles, case and punctuation do not count
        ("red red fox", ["red fox fox jumps"], 2 * 2 / 7, False),  # bags: one red, one fox in common
        ("green", ["blue", "green tea"], 2 / 3, False),  # the best of the references
        ("", ["something"], 0.0, False),
    ],
)
def test_scores_by_hand(said, references, score, same):
    assert f1(said, references) == pytest.approx(score)
    assert exact(said, references) is same


def test_a_long_prompt_loses_its_middle_and_keeps_both_ends(shipped):
    _, tokenizer = shipped
    question = LongQuestion("import os\n" * 50, "Which module?", ("os",), "here")
    whole = prompt_of(tokenizer, question, max_prompt=None)
    cut = prompt_of(tokenizer, question, max_prompt=21)
    assert (len(cut), cut[:10], cut[10:]) == (21, whole[:10], whole[-11:])
    assert prompt_of(tokenizer, question, max_prompt=len(whole)) == whole
    text = tokenizer.decode(whole, skip_special_tokens=True)
    assert text == question.context + "\n\nWhich module?\nAnswer:"


def test_with_everything_kept_an_answer_is_that_of_plain_generation(shipped):
    model, tokenizer = shipped
    documents, _ = read_documents(TextSource(packages=["networkx.classes"]))
    full, said = tian.load("kv_policy", "kvcache/full"), []
    for question in constructed(documents, items=2, lines=5, seed=0):
        ids = prompt_of(tokenizer, question, max_prompt=None)
        row = torch.tensor([ids])
        how = {"attention_mask": torch.ones_like(row), "max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
        made = model.generate(row, **how)[0, len(ids) :].tolist()
        plain = tokenizer.decode(made, skip_special_tokens=True).split("\n")[0].strip()
        for chunk in (7, 999):
            assert answer(model, tokenizer, ids, full, chunk=chunk, max_new=8, ends=set()) == plain
        before = tokenizer.decode(made[:2], skip_special_tokens=True).split("\n")[0].strip()
        if made[2] not in made[:2]:
            assert answer(model, tokenizer, ids, full, chunk=999, max_new=8, ends={made[2]}) == before
        said.append(plain)
    assert any(said)


def test_what_is_measured_follows_from_the_answers(finished):
    data = json.loads((finished.path / "answers.json").read_text())
    assert [r["policy"] for r in data["rows"]] == ["h2o", "full"]
    for name in ("h2o", "full"):
        mine = [f1(q["said"][name], q["references"]) for q in data["questions"]]
        assert value(finished, "F1", policy=name) == pytest.approx(sum(mine) / 3)
    gap = value(finished, "F1", policy="h2o") - value(finished, "F1", policy="full")
    assert value(finished, "F1 against full", policy="h2o") == pytest.approx(gap)
    assert finished.measurements[0].by == {"policy": "h2o"}
    page = (finished.path / "report.html").read_text()
    assert "constructed" in page
    assert "hardly anything" in page


def test_a_resumed_run_equals_the_whole(tmp_path, finished):
    folder = tmp_path / "again"
    shutil.copytree(finished.path, folder)
    whole = (folder / "answers.json").read_text()
    lines = (folder / "answers.jsonl").read_text().splitlines()
    stale = json.dumps({**json.loads(lines[2]), "prompt": 0, "answer": "of another prompt"})
    (folder / "answers.jsonl").write_text("\n".join([*lines[:2], stale]) + "\n")
    (folder / "answers.json").unlink()
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps({**status, "state": "interrupted"}))
    result = tian.run("kvcache/answers", resume=folder)
    assert result.measurements == finished.measurements
    assert (folder / "answers.json").read_text() == whole
    assert (folder / "answers.jsonl").read_text().splitlines() == [*lines[:2], stale, *lines[2:]]


def test_a_bad_line_of_the_questions_is_named(tmp_path):
    data = tmp_path / "q.jsonl"
    data.write_text('{"input": "?", "context": "x", "answers": ["y"]}\n{"input": "?", "context": "x"}\n')
    with pytest.raises(TianError, match='"answers" is missing') as caught:
        tian.run("kvcache/answers", [*SMALL, f"data.path={data}"], folder=tmp_path / "run")
    assert caught.value.where == f"{data}:2"


def test_learned_positions_end_where_the_last_prompt_says(tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"vocab_size": 1024, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 16}
    config = AutoConfig.for_model("opt", max_position_embeddings=48, word_embed_proj_dim=16, **sizes)
    model = tmp_path / "model"
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(model)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(SHIPPED / name, model / name)
    data = tmp_path / "q.jsonl"
    data.write_text((json.dumps({"input": "Who?", "context": "word " * 99, "answers": ["me"]}) + "\n") * 2)
    own = [*SMALL, f"model.path={model}", f"data.path={data}", "positions=original", "chunk=16"]
    with pytest.raises(TianError, match="49 tokens, and the model has 48") as caught:
        tian.run("kvcache/answers", [*own, "max_prompt=44"], folder=tmp_path / "long")
    assert "max_prompt=43" in caught.value.hint
    result = tian.run("kvcache/answers", [*own, "max_prompt=43"], folder=tmp_path / "run")
    assert json.loads((result.path / "answers.json").read_text())["tokens"] == 43


def test_constructed_questions_ask_for_the_next_line():
    text = Document("t", "\n".join(f"line number {i} here\n" for i in range(20)))
    for q in constructed([text], items=5, lines=4, seed=1):
        lines = q.context.split("\n")
        assert lines[lines.index(q.input.split("`")[1]) + 1] == q.answers[0]
    with pytest.raises(TianError, match="0 of 2 questions"):
        constructed([Document("t", "same two\n" * 9)], items=2, lines=3, seed=0)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("items=1", "items must be >= 2"),
        ("max_prompt=3", "max_prompt must be >= 8"),
        ("compare=[window]", "a policy with its options"),
        ("data.path=/nowhere.jsonl", "does not exist"),
    ],
)
def test_bad_options_are_named(tmp_path, bad, says):
    with pytest.raises(TianError, match=says):
        tian.run("kvcache/answers", [*SMALL, bad], folder=tmp_path / "run")
