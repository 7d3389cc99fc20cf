"""Predict-then-optimise: what the examples are, that every method learns, and that rows resume."""

import dataclasses

import pytest
import torch
from omegaconf import OmegaConf

from tian.errors import InvalidInput
from tian.runs.rundir import create
from tian_genco.grad import predict
from tian_genco.grad.options import METHODS, RELAXED, PredictOptions
from tian_genco.grad.oracle import Oracle
from tian_genco.grad.predict_report import sections
from tian_genco.paths.grid import GridPathSolver
from tian_genco.paths.options import PathOptions
from tian_genco.paths.problem import PathProblem

OPTIONS = PredictOptions(features=3, degree=4, spread=0.1, train=80, test=100, epochs=15, seeds=2, lr=0.05)
PROBLEM = PathProblem(5, 5)


def oracle():
    return Oracle(GridPathSolver(PathOptions("torch")), PROBLEM, time_limit_s=5.0, least=0.0)


def test_examples_are_what_the_formula_says():
    options = dataclasses.replace(OPTIONS, spread=0.0)
    train, test = predict.make_examples(options, oracle(), 3)
    assert len(train.features) == 80
    assert len(test.features) == 100
    assert torch.equal(train.costs, train.expected)
    # costs are (w.f / sqrt(p) + 3)^4 + 1 over 3.5^4 for some w of zeros and ones: solve for w
    plain = (train.costs > 0.02).all(1)  # neither raised to 0.01 nor from a negative base
    assert plain.sum() > 50
    root = ((train.costs[plain] * 3.5**4 - 1) ** 0.25 - 3) * 3**0.5
    w = torch.linalg.lstsq(train.features[plain], root).solution
    assert torch.allclose(w, w.round(), atol=1e-9)
    assert set(w.round().abs().unique().tolist()) == {0.0, 1.0}
    assert all(PROBLEM.broken(path) == "" for path in test.paths[:10].numpy())
    spread, _ = predict.make_examples(OPTIONS, oracle(), 3)
    ratio = spread.costs / spread.expected
    assert 0.9 <= ratio.min() < 0.91
    assert 1.09 < ratio.max() <= 1.1


def test_examples_depend_on_the_seed_only():
    one, again, other = (predict.make_examples(OPTIONS, oracle(), seed)[1] for seed in (3, 3, 4))
    assert torch.equal(one.costs, again.costs)
    assert not torch.equal(one.costs, other.costs)


def test_regret_is_zero_for_the_truth_and_never_negative():
    _, test = predict.make_examples(OPTIONS, oracle(), 0)
    assert predict.regret(test.costs, test, oracle()) == 0
    assert predict.regret(5 * test.costs, test, oracle()) == 0
    diagonal = test.costs.reshape(-1, 5, 5).diagonal(dim1=1, dim2=2).sum()
    best = (test.costs * test.paths).sum()
    assert predict.regret(torch.ones_like(test.costs), test, oracle()) == pytest.approx(float(diagonal / best) - 1)
    anything = torch.rand(test.costs.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    far = predict.regret(anything, test, oracle())
    assert far > predict.regret(test.expected, test, oracle()) >= 0


@pytest.mark.parametrize("method", [*METHODS, *(pytest.param(m, marks=pytest.mark.slow) for m in RELAXED)])
def test_every_method_learns(method):
    train, test = predict.make_examples(OPTIONS, oracle(), 1)
    start = predict.Predictor(OPTIONS.features, PROBLEM.n, 1)
    model = predict.learn(method, train, oracle(), OPTIONS, 1)
    before, after = (predict.regret(m(test.features), test, oracle()) for m in (start, model))
    assert after < 0.6 * before
    again = predict.learn(method, train, oracle(), OPTIONS, 1)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = create(tmp_path_factory.mktemp("predict") / "run", OmegaConf.create({"recipe": "genco/predict", "seed": 0}))
    options = dataclasses.replace(OPTIONS, epochs=2, methods=["two-stage", "spo-plus"])
    yield run, options, predict.compare(options, run, seed=0)
    run.release()


def test_the_gain_is_paired_by_seed(finished):
    run, _, found = finished
    rows = run.read_json(predict.FILE)["rows"]
    assert list(rows) == ["two-stage", "spo-plus", predict.FLOOR]
    saved = next(m for m in found if m.name == "regret saved" and m.by["method"] == "spo-plus")
    gains = [a - b for a, b in zip(rows["two-stage"], rows["spo-plus"], strict=True)]
    assert saved.value == pytest.approx(sum(gains) / 2)
    # Student's t of one degree of freedom: 12.706
    assert saved.ci95[1] - saved.value == pytest.approx(12.706 * abs(gains[0] - gains[1]) / 2, rel=1e-3)


def test_a_resumed_run_ends_alike(finished, tmp_path, monkeypatch):
    run, options, found = finished
    rows = run.read_json(predict.FILE)["rows"]
    other = create(tmp_path / "run", OmegaConf.create({"recipe": "genco/predict", "seed": 0}))
    other.write_json(predict.FILE, {"rows": {"two-stage": rows["two-stage"], "spo-plus": rows["spo-plus"][:1]}})
    original, learned = predict.learn, []
    monkeypatch.setattr(predict, "learn", lambda method, *rest: learned.append(method) or original(method, *rest))
    assert predict.compare(options, other, seed=0) == found
    assert learned == ["spo-plus"]
    other.release()


def test_the_report_says_synthetic_and_has_every_method(finished, tmp_path):
    run, _, _ = finished
    first, second = sections(run)
    assert "<svg" in first.html
    assert "Synthetic" in first.html
    assert "synthetic" in second.title
    assert all(name in second.html for name in ("two-stage", "spo-plus", "floor"))
    empty = create(tmp_path / "empty", OmegaConf.create({"recipe": "genco/predict"}))
    assert sections(empty) == []
    empty.release()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"methods": ["guess"]}, r"methods holds \['guess'\]"),
        ({"methods": []}, "methods holds nothing"),
        ({"seeds": 1}, "seeds must be >= 2"),
        ({"spread": 1.0}, "spread must be 0 or more and below 1"),
        ({"train": 0}, "train must be >= 1"),
        ({"lr": 0.0}, "lr must be > 0"),
        ({"size": 1}, "size >= 2"),
    ],
)
def test_options_out_of_range_are_named(options, said):
    with pytest.raises(InvalidInput, match=said):
        PredictOptions(**options)
