"""Pyomo models: the same optimum as Pyomo's own solve, and no model is read wrongly in silence."""

import pickle
import sys

import numpy as np
import pyomo.environ as pyo
import pytest
from pyomo.contrib.solver.common.factory import SolverFactory

from tian.errors import InvalidInput
from tian_genco.problem import TOLERANCE
from tian_genco.solving.highs import HighsSolver
from tian_genco.solving.pyomo_model import compile_pyomo, load_model


def random_model(seed):
    """Six integers and two reals that costs meet, three further variables; rows of every sort; either sense."""
    rng = np.random.default_rng(seed)
    m = pyo.ConcreteModel()
    m.I = pyo.Set(initialize=[7, 3, 5, 1, 8, 2, 9, 4], ordered=True)
    m.x = pyo.Var(m.I, bounds=(0, 3), domain=lambda _, i: pyo.Integers if i < 8 else pyo.Reals)
    m.b = pyo.Block()
    m.b.z = pyo.Var(["p", "q"], bounds=(-2, 2))
    m.b.on = pyo.Var(domain=pyo.Binary)
    fixed = int(rng.choice([7, 3, 5]))
    m.x[fixed].fix(1)
    m.b.z["p"].fix(0.5)
    w = {i: float(rng.integers(-3, 6)) for i in m.I}
    m.cap = pyo.Constraint(expr=sum(w[i] * m.x[i] for i in m.I) + m.b.z["p"] <= 12)
    m.band = pyo.Constraint(expr=pyo.inequality(2, sum(m.x[i] for i in m.I) + 1, 9))
    m.link = pyo.Constraint(expr=m.x[1] - m.b.z["q"] == 1 - 2 * m.b.on)
    m.least = pyo.Constraint(expr=m.x[8] + m.b.z["q"] >= 0.25)
    m.off = pyo.Constraint(expr=m.x[1] >= 100)
    m.off.deactivate()
    sense = pyo.maximize if seed % 2 else pyo.minimize
    m.goal = pyo.Objective(expr=sum(float(rng.normal()) * m.x[i] for i in m.I) + 4.25, sense=sense)
    return m


@pytest.mark.parametrize("seed", range(20))
def test_the_optimum_is_that_of_pyomo(seed):
    model = random_model(seed)
    problem = compile_pyomo(model, "x")
    own = problem.own_objective()
    got = HighsSolver().solve(problem.instance(own.cost), time_limit_s=30)
    options = {"mip_rel_gap": 0.0, "threads": 1}
    result = SolverFactory("highs").solve(model, solver_options=options, raise_exception_on_nonoptimal_result=False)
    if got.status == "infeasible":
        assert result.incumbent_objective is None
        return
    assert own.value(got.x) == pytest.approx(result.incumbent_objective, abs=1e-6)
    assert problem.broken(got.x) == ""
    theirs = np.array([pyo.value(model.x[i]) for i in model.I])
    assert own.value(theirs) == pytest.approx(pyo.value(model.goal), abs=1e-9)  # x is in the order of the index set
    assert problem.broken(theirs) == ""


def test_some_of_the_random_models_have_a_solution():
    found = [
        HighsSolver().solve(compile_pyomo(random_model(s), "x").instance(), time_limit_s=9).status for s in range(6)
    ]
    assert found.count("optimal") >= 3


def tiny(rule=None):
    m = pyo.ConcreteModel()
    m.x = pyo.Var([1, 2], domain=pyo.Binary)
    m.s = pyo.Var(domain=pyo.NonNegativeReals)
    m.c = pyo.Constraint(expr=m.x[1] + m.x[2] + m.s == 1.5)
    m.most = pyo.Constraint(expr=m.s <= 0.75)
    if rule is not None:
        m.odd = pyo.Constraint(rule=rule)
    return m


def test_what_is_broken_is_named_and_the_model_keeps_its_values():
    m = tiny()
    m.x[1].set_value(0)
    problem = compile_pyomo(m, "x")
    assert problem.broken(np.array([1.0, 0.0])) == ""
    assert problem.broken(np.array([0.0, 1.0])) == ""
    assert problem.broken(np.array([0.0, 0.0])).startswith("no values of the further variables")
    assert problem.broken(np.array([0.5, 0.5])).startswith("variable x[1] is 0.5")
    assert (m.x[1].value, m.x[2].value, m.s.value) == (0, None, None)
    n = pyo.ConcreteModel()
    n.x = pyo.Var([1, 2], domain=pyo.Binary)
    n.one = pyo.Constraint(expr=n.x[1] + n.x[2] == 1)
    assert compile_pyomo(n, "x").broken(np.ones(2)).startswith("constraint one: 2 is not within 1")


def test_a_fixed_entry_is_a_fixed_column_and_a_copy_travels_without_the_model():
    m = tiny(lambda m: m.x[2] >= 0)
    m.x[2].fix(1)
    problem = pickle.loads(pickle.dumps(compile_pyomo(m, "x")))
    assert problem.milp().col_lower[1] == problem.milp().col_upper[1] == 1.0
    got = HighsSolver().solve(problem.instance(np.array([1.0, 5.0])), time_limit_s=9)
    assert got.x.tolist() == [0.0, 1.0]
    with pytest.raises(InvalidInput, match="without its model"):
        problem.broken(got.x)
    assert compile_pyomo(m, "x").broken(np.array([0.0, 0.0])).startswith(("variable x[2]", "no values"))


def test_rows_keep_their_names_and_a_range_is_one_row():
    problem = compile_pyomo(random_model(0), "x")
    assert problem.milp().row_names == ("cap", "band", "link", "least")
    band = problem.milp().rows()[1]
    assert band.upper - band.lower == 7.0


def sos(m):
    m.sos = pyo.SOSConstraint(var=m.x, sos=1)


def several(m):
    m.pick = pyo.Var(domain=pyo.Any)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda m: setattr(m, "q", pyo.Constraint(expr=m.x[1] * m.x[2] <= 1)), "q"),
        (lambda m: setattr(m, "e", pyo.Constraint(expr=pyo.exp(m.s) <= 1)), "e"),
        (lambda m: setattr(m, "g", pyo.Objective(expr=m.s**2)), "g"),
        (sos, "sos"),
        (several, "pick"),
        (lambda m: m.s.setub(-1), "variable s"),
        (lambda m: (m.s.fix(0), m.x[1].fix(0), m.x[2].fix(0)), "'c'"),
        (lambda m: setattr(m, "nan", pyo.Constraint(expr=float("inf") * m.s + m.x[1] <= 1)), "nan"),
    ],
)
def test_what_cannot_be_compiled_is_refused_by_name(change, named):
    m = tiny()
    change(m)
    with pytest.raises(InvalidInput, match=named):
        compile_pyomo(m, "x")


def test_the_cost_variable_must_be_indexed():
    with pytest.raises(InvalidInput, match="'s' is scalar") as info:
        compile_pyomo(tiny(), "s")
    assert "x" in info.value.hint
    for name in ("y", "c"):
        with pytest.raises(InvalidInput, match=f"'{name}' is"):
            compile_pyomo(tiny(), name)
    with pytest.raises(InvalidInput, match="AbstractModel"):
        compile_pyomo(pyo.AbstractModel(), "x")


def test_an_objective_over_other_variables_is_not_taken_for_the_costs():
    m = tiny()
    m.goal = pyo.Objective(expr=m.x[1] + m.s)
    with pytest.raises(InvalidInput, match="objective"):
        compile_pyomo(m, "x").own_objective()
    with pytest.raises(InvalidInput, match="objective"):
        compile_pyomo(tiny(), "x").own_objective()


def test_a_variable_without_coefficient_keeps_its_domain():
    m = tiny()
    m.idle = pyo.Var(bounds=(2, 3), domain=pyo.Integers, initialize=9)
    problem = compile_pyomo(m, "x")
    assert problem.broken(np.array([1.0, 0.0])) == ""
    assert problem.milp().col_lower[-1] == 2.0
    assert m.idle.value == 9


def test_a_model_comes_from_a_function_of_the_user(tmp_path, monkeypatch):
    (tmp_path / "shop_models.py").write_text(
        "import pyomo.environ as pyo\nnumber = 3\n"
        "def build():\n    m = pyo.ConcreteModel()\n    m.x = pyo.Var([1], domain=pyo.Binary)\n    return m\n"
        "def nothing():\n    return None\ndef fails():\n    raise KeyError('table')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert compile_pyomo(load_model("shop_models:build"), "x").n == 1
    for bad, why in {
        "shop_models": "form",
        "no_such_module_:build": "cannot be imported",
        "shop_models:missing": "nothing",
        "shop_models:number": "a int",
        "shop_models:nothing": "NoneType",
        "shop_models:fails": "KeyError: 'table'",
    }.items():
        with pytest.raises(InvalidInput, match=why):
            load_model(bad)
    sys.modules.pop("shop_models")


def test_values_within_the_tolerance_are_valid():
    problem = compile_pyomo(tiny(), "x")
    assert problem.broken(np.array([1.0 - TOLERANCE / 2, 0.0])) == ""
