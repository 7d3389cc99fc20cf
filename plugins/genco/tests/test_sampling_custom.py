"""The user's own rules: designs that the model itself accepts, learned when there is data, and clear refusals."""

import itertools
import json
import sys

import numpy as np
import pytest

from tian.errors import DataError, InvalidInput, ResumeMismatch, RunError
from tian.runs.execute import run
from tian_genco.sampling.example import DAYS, NURSES, build
from tian_genco.sampling.options import CustomOptions, FitOptions, ModelOptions
from tian_genco.solving.highs import HighsSolver
from tian_genco.solving.pyomo_model import compile_pyomo

ROTA = "model.pyomo=tian_genco.sampling.example:build"


def custom(folder, *overrides):
    return run("genco/custom", list(overrides), folder=folder)


def named(result):
    return {(m.name, m.by.get("designs")): m.value for m in result.measurements}


def is_rota(x):
    """The rules of the example, read from its docstring."""
    works = x.reshape(len(NURSES), len(DAYS))
    threes = any(row[i : i + 3].all() for row in works for i in range(5))
    return (works.sum(0) == 2).all() and set(works.sum(1)) <= {3, 4} and not threes and works[1, 6] == 0


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module of models that can be named."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(name, body):
        (tmp_path / f"{name}.py").write_text("import pyomo.environ as pyo\n" + body)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return f"model.pyomo={name}:build"

    return make


def test_without_data_designs_are_valid_and_apart(tmp_path):
    result = custom(tmp_path / "run", ROTA, "n=12", "min_hamming=6")
    with np.load(result.path / "designs.npz") as file:
        designs, names = file["designs"], file["names"]
    assert designs.shape == (12, 28)
    assert names[0] == "works[Ada,Mon]"
    assert names[-1] == "works[Dot,Sun]"
    assert all(is_rota(x) for x in designs)
    assert min((a != b).sum() for a, b in itertools.combinations(designs, 2)) >= 6
    got = named(result)
    assert (got["valid", "ours"], got["unique", "ours"], got["no more exist", "ours"]) == (1, 1, 0)
    assert got["Hamming", "ours"] == pytest.approx(
        np.mean([(a != b).sum() for a, b in itertools.combinations(designs, 2)])
    )
    assert "works[Ada,Mon]" in (result.path / "report.html").read_text()
    checked = run("genco/verify", [f"from={result.path}", "resolve=true"], folder=tmp_path / "v")
    assert checked.measurements[1].value == 12


def test_a_changed_design_of_a_model_is_named(tmp_path):
    made = custom(tmp_path / "run", ROTA, "n=3").path
    with np.load(made / "designs.npz") as file:
        kept = dict(file)
    kept["designs"][1, 5] ^= 1
    np.savez_compressed(made / "designs.npz", **kept)
    with pytest.raises(DataError, match=r"design 1: the design in designs\.npz is another one"):
        run("genco/verify", [f"from={made}"], folder=tmp_path / "v")


def test_with_data_designs_resemble_it(tmp_path):
    """Data that prefer some days: fifteen steps bring the designs nearer than random costs are."""
    problem = compile_pyomo(build(), "works")
    wish = np.zeros((4, 7))
    wish[0, :2] = wish[1, 2:4] = wish[2, 5:] = -3.0
    costs = wish.ravel() + np.random.default_rng(0).normal(size=(80, 28))
    data = np.rint(HighsSolver().solve_costs(problem.instance(), costs, time_limit_s=9).x)
    np.save(tmp_path / "data.npy", data.astype(np.uint8))
    fast = ["train.steps=15", "train.batch=16", "train.lr=0.01"]
    result = custom(tmp_path / "run", ROTA, f"data.path={tmp_path / 'data.npy'}", "n=60", *fast)
    got = named(result)
    assert got["valid", "ours"] == got["valid", "data"] == 1
    assert got["energy distance", "ours"] < 0.7 * got["energy distance", "random costs"]
    again = custom(tmp_path / "again", ROTA, f"data.path={tmp_path / 'data.npy'}", "n=60", *fast)
    names = ("certificates.jsonl", "summary.json")
    assert all((again.path / n).read_bytes() == (result.path / n).read_bytes() for n in names)


def test_no_more_exist_is_said(tmp_path, module):
    text = "def build():\n m = pyo.ConcreteModel()\n m.x = pyo.Var(range(3), domain=pyo.Binary)\n"
    text += " m.c = pyo.Constraint(expr=sum(m.x[i] for i in range(3)) == 2)\n return m\n"
    result = custom(tmp_path / "run", module("three", text), "n=9", "min_hamming=1")
    assert named(result)["no more exist", "ours"] == 1
    with np.load(result.path / "designs.npz") as file:
        assert sorted(file["designs"].tolist()) == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
    assert json.loads((result.path / "results.json").read_text())["exhausted"]
    assert "No more exist" in (result.path / "report.html").read_text()


def test_code_is_executed_only_when_it_is_named_anew(tmp_path, module):
    mark = tmp_path / "executed"
    text = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\ndef build():\n return pyo.ConcreteModel()\n"
    wanted = module("marked", text)
    with pytest.raises(InvalidInput):
        custom(tmp_path / "run", wanted)
    assert mark.exists()
    mark.unlink()
    sys.modules.pop("marked")
    with pytest.raises(ResumeMismatch, match="executed only when named on the command line"):
        run("genco/custom", resume=tmp_path / "run")
    assert not mark.exists()


TWO = "def build():\n m = pyo.ConcreteModel()\n m.x = pyo.Var([1, 2], domain=pyo.Binary)\n m.y = pyo.Var([1, 2], bounds=(0, 1))\n"


@pytest.mark.parametrize(
    ("body", "more", "said"),
    [
        (f"{TWO} return m\n", [], "the model has 2 indexed Vars: x, y"),
        (f"{TWO} return m\n", ["model.costs=y"], r"must be binary, y\[1\] is not"),
        (f"{TWO} return m\n", ["model.costs=z"], "'z' is missing"),
        ("def build():\n return pyo.ConcreteModel()\n", [], "the model has 0 indexed Vars: none"),
        (
            f"{TWO} m.a = pyo.Constraint(expr=m.x[1] + m.x[2] >= 2)\n m.b = pyo.Constraint(expr=m.x[1] <= 0)\n"
            " m.idle = pyo.Constraint(expr=m.y[1] <= 0.5)\n return m\n",
            ["model.costs=x"],
            "a and b are in conflict",
        ),
        (
            f"{TWO} m.a = pyo.Constraint(expr=m.x[1] * m.x[2] >= 1)\n return m\n",
            ["model.costs=x"],
            "cannot be compiled",
        ),
        ("def other():\n pass\n", [], "names nothing, not a function"),
        ("def build():\n raise KeyError('k')\n", [], "raised KeyError"),
    ],
)
def test_models_that_cannot_serve_are_named(tmp_path, module, body, more, said):
    with pytest.raises(InvalidInput, match=said):
        custom(tmp_path / "run", module("odd", body), *more)


def test_a_var_that_is_named_and_partly_fixed_serves(tmp_path, module):
    wanted = module("fixed", f"{TWO} m.x[1].fix(1)\n m.c = pyo.Constraint(expr=m.x[2] + m.y[1] >= 1)\n return m\n")
    result = custom(tmp_path / "run", wanted, "model.costs=x", "n=5")
    assert named(result)["valid", "ours"] == 1
    with np.load(result.path / "designs.npz") as file:
        assert (file["designs"][:, 0] == 1).all()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (np.zeros((5, 27)), r"holds \[5, 27\], designs of this model are \[N, 28\]"),
        (np.zeros(28), r"holds \[28\]"),
        (np.zeros((1, 28)), r"holds \[1, 28\]"),
        (np.full((5, 28), 0.5), "numbers other than 0 and 1"),
        (None, "no array can be read"),
    ],
)
def test_data_of_another_form_are_named(tmp_path, data, said):
    path = tmp_path / "data.npy"
    if data is not None:
        np.save(path, data)
    with pytest.raises(DataError, match=said):
        custom(tmp_path / "run", ROTA, f"data.path={path}")


def test_no_design_in_time_is_an_error(tmp_path):
    with pytest.raises(RunError, match=r"none of 3 solves ended with a design.*timeout"):
        custom(tmp_path / "run", ROTA, "n=3", "time_limit_s=1e-9")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: CustomOptions(ModelOptions("a:b"), n=0), "n >= 1"),
        (lambda: CustomOptions(ModelOptions("a:b"), time_limit_s=0), "time_limit_s must be > 0"),
        (lambda: FitOptions(steps=0), "train.steps must be >= 1"),
        (lambda: FitOptions(batch=1), "train.batch >= 2"),
    ],
)
def test_options_out_of_range_are_named(make, said):
    with pytest.raises(InvalidInput, match=said):
        make()
