"""lm-eval-harness over a slot cache; needs `pip install tian-framework[lm-eval]`."""

import importlib.util
import json

import pytest

import tian
from tian.errors import InvalidInput, MissingDependency
from tian.hf.host import attach
from tian.hf.loading import SHIPPED, load_model, load_tokenizer
from tian.hf.scoring import Row, score

HERE = importlib.util.find_spec("lm_eval") is not None
needs_lm_eval = pytest.mark.skipif(not HERE, reason="lm_eval is not installed (tian-framework[lm-eval])")
# The library itself warns about what it deprecates and about tasks this small.
pytestmark = pytest.mark.filterwarnings("ignore")
DOCS = [
    {"context": "for i in range(10):\n    total", "choices": [" += i", " import os"], "gold": 0},
    {"context": "import", "choices": ["):", " numpy as np"], "gold": 1},
    {"context": "class A:\n    def __init__(self, x):\n        self.x", "choices": [" = x", " yield"], "gold": 0},
]


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """One task of each kind of request, on a local file."""
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, DOCS)))
    common = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(tmp_path / "cache")},
        "test_split": "test",
        "doc_to_text": "{{context}}",
    }
    choice = {
        **common,
        "task": "toy_choice",
        "output_type": "multiple_choice",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    }
    text = {
        **common,
        "task": "toy_text",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{context}}",
        "metric_list": [{"metric": "word_perplexity"}],
    }
    written = {
        **common,
        "task": "toy_written",
        "output_type": "generate_until",
        "doc_to_target": "{{choices[gold]}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6},
        "metric_list": [{"metric": "exact_match"}],
    }
    for task in (choice, text, written):
        (tmp_path / f"{task['task']}.yaml").write_text(json.dumps(task))
    return TaskManager(include_path=str(tmp_path), include_defaults=False)


def evaluate(tasks, name, **options):
    import lm_eval

    from tian.hf.lm_eval import TianLM

    lm = TianLM(str(SHIPPED), batch_size=2, **options)
    return lm_eval.simple_evaluate(model=lm, tasks=[name], task_manager=tasks, bootstrap_iters=0)


def test_without_lm_eval_the_module_names_the_extra():
    if HERE:
        pytest.skip("lm_eval is installed")
    with pytest.raises(MissingDependency) as caught:
        import tian.hf.lm_eval  # noqa: F401
    assert "tian-framework[lm-eval]" in caught.value.hint


@needs_lm_eval
def test_multiple_choice_scores_what_the_scorer_scores_under_the_policy(tasks):
    found = evaluate(tasks, "toy_choice", kv="kvcache/h2o", kv_heavy=2, kv_recent=2)
    model, tokenizer = load_model(None), load_tokenizer(None)
    rows = []
    for doc in DOCS:
        head = tokenizer(doc["context"])["input_ids"]
        whole = [tokenizer(doc["context"] + choice)["input_ids"] for choice in doc["choices"]]
        rows += [Row(tuple(head), tuple(ids[len(head) :])) for ids in whole]
    with attach(model, kv=tian.load("kv_policy", "kvcache/h2o", heavy=2, recent=2)) as cache:
        under = score(model, rows, cache=cache)
    plain = score(model, rows)
    samples = sorted(found["samples"]["toy_choice"], key=lambda s: s["doc_id"])
    got = [
        float(answer[0][0] if isinstance(answer[0], (list, tuple)) else answer[0])
        for s in samples
        for answer in s["resps"]
    ]
    assert got == pytest.approx([float(s.log_prob.sum()) for s in under], abs=1e-3)
    assert any(abs(a - float(s.log_prob.sum())) > 0.01 for a, s in zip(got, plain, strict=True))


@needs_lm_eval
def test_with_everything_kept_it_agrees_with_the_harness_own_model(tasks):
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    for name in ("toy_choice", "toy_text"):
        theirs = lm_eval.simple_evaluate(
            model=HFLM(pretrained=load_model(None), tokenizer=load_tokenizer(None), batch_size=2, device="cpu"),
            tasks=[name],
            task_manager=tasks,
            bootstrap_iters=0,
        )
        found = (evaluate(tasks, name, kv="kvcache/full"), theirs)
        numbers = [{k: v for k, v in r["results"][name].items() if isinstance(v, float)} for r in found]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-3)


@needs_lm_eval
def test_generation_runs_under_the_policy(tasks):
    """With two tokens kept something else is written than with all."""
    few, all_ = (
        [s["resps"] for s in evaluate(tasks, "toy_written", **kv)["samples"]["toy_written"]]
        for kv in ({"kv": "kvcache/window", "kv_recent": 1}, {"kv": "kvcache/full"})
    )
    assert few != all_
    model, tokenizer = load_model(None), load_tokenizer(None)
    for doc, got in zip(DOCS, all_, strict=True):
        ids = tokenizer(doc["context"], return_tensors="pt")["input_ids"]
        text = tokenizer.decode(model.generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :])
        assert got == [[text.split("\n")[0]]]


@needs_lm_eval
def test_a_batch_size_that_is_no_number_is_refused():
    from tian.hf.lm_eval import TianLM

    with pytest.raises(InvalidInput, match="'auto'"):
        TianLM(str(SHIPPED), batch_size="auto")
