"""Models written in Pyomo, compiled to arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
import pyomo.environ as pyo
from pyomo.common.errors import InfeasibleConstraintException, PyomoException
from pyomo.repn.plugins.standard_form import LinearStandardFormCompiler

from tian.errors import InvalidInput
from tian_genco.problem import TOLERANCE, Floats, Milp, Problem
from tian_genco.solving.engine import complete


@dataclass(frozen=True)
class OwnObjective:
    """The objective a model came with: `sign * (cost . x + constant)`, where cost is to be minimised.

    Attributes:
        cost: `[n]` float64.
        constant: what does not depend on x.
        sign: 1 when the model minimises, -1 when it maximises.
    """

    cost: Floats
    constant: float
    sign: int

    def value(self, x: Floats) -> float:
        """The objective as the model states it."""
        return self.sign * (float(self.cost @ x) + self.constant)


@dataclass(frozen=True, eq=False)
class PyomoProblem(Problem):
    """A compiled Pyomo model. The model is read once; later changes to it are not seen.

    A copy sent to another process holds the arrays only: it can be solved, and not be checked.

    Attributes:
        model: the ConcreteModel, None in another process.
        variables: m variables, in the order of the columns; the first n are the indexed Var that receives costs.
        program: the arrays.
        objective: of the model, when it has exactly one, linear in the first n columns.
    """

    kind: ClassVar[str] = "pyomo"
    model: Any
    variables: tuple[Any, ...]
    program: Milp
    objective: OwnObjective | None

    @property
    def n(self) -> int:
        """Entries of the Var that receives costs."""
        return self.program.n

    def milp(self) -> Milp:
        """The compiled arrays."""
        return self.program

    def own_objective(self) -> OwnObjective:
        """The objective of the model. Raises InvalidInput when it has none that is a sum over the cost Var."""
        if self.objective is None:
            raise InvalidInput(
                "the model has no single active objective over the Var that receives the costs",
                hint="give the costs yourself; they are all that is minimised",
            )
        return self.objective

    def broken(self, x: Floats) -> str:
        """The first constraint or variable whose Pyomo expression or domain does not hold at x.

        Further variables get values from HiGHS first. The values of the model's variables are restored afterwards.

        Raises:
            InvalidInput: x does not fit, or this is a copy without the model.
        """
        if self.model is None:
            raise InvalidInput(
                "this copy of a Pyomo problem came without its model", hint="check in the process that compiled it"
            )
        y = complete(self, x)
        with _loaded(self.variables, x if y is None else y):
            for con in self.model.component_data_objects(pyo.Constraint, active=True):
                body = pyo.value(con.body, exception=False)
                if body is None:  # a further variable without a value
                    continue
                below = con.lb is not None and body < con.lb - TOLERANCE
                if below or (con.ub is not None and body > con.ub + TOLERANCE):
                    return f"constraint {con.name}: {body:g} is not within {con.lb} to {con.ub}"
            for var, given in zip(self.variables, x, strict=False):
                if var.fixed and abs(pyo.value(var) - given) > TOLERANCE:
                    return f"variable {var.name} is {given:g}, but fixed to {pyo.value(var):g}"
            for var in self.variables:
                if var.value is not None and not var.fixed and not _in_domain(var):
                    return f"variable {var.name} is {var.value:g}, outside its domain {var.domain.name} {var.bounds}"
        return "" if y is not None else "no values of the further variables meet the constraints"

    def __getstate__(self) -> dict[str, Any]:
        """Without model and variables: rules written as local functions cannot be pickled."""
        return {**self.__dict__, "model": None, "variables": ()}


def compile_pyomo(model: Any, costs: str) -> PyomoProblem:
    """Compile a linear model with the standard-form compiler of Pyomo.

    Args:
        model: ConcreteModel with linear constraints; its objective is kept beside, costs come with each instance.
        costs: name of the indexed Var that receives costs; x is in the order of its index set. Fixed entries become
            columns with lower == upper.

    Raises:
        InvalidInput: no ConcreteModel, no such indexed Var, a nonlinear term, an SOS or other unsupported component, a
            domain that is neither continuous nor a range of integers, bounds or coefficients that cannot be met; the
            message names the component.
    """
    if not isinstance(model, pyo.ConcreteModel):
        raise InvalidInput(
            f"a Pyomo ConcreteModel is needed, got {type(model).__name__}",
            hint="of an AbstractModel pass model.create_instance(data)",
        )
    first = _cost_variables(model, costs)
    try:
        form = LinearStandardFormCompiler().write(model, mixed_form=True)
    except InfeasibleConstraintException as error:
        raise InvalidInput(f"the model cannot be met: {error}", hint="free one of the variables it fixes") from error
    except (PyomoException, ValueError) as error:
        raise InvalidInput(
            f"the model cannot be compiled: {error}",
            hint="linear constraints over continuous and integer variables only",
        ) from error
    # Variables without a coefficient are columns too: their domains are part of the model.
    idle = (v for v in model.component_data_objects(pyo.Var, active=True) if not v.fixed)
    variables = list({id(v): v for v in (*first, *form.columns, *idle)}.values())
    place = {id(v): i for i, v in enumerate(variables)}
    columns = np.array([place[id(v)] for v in form.columns], np.int64)
    lower, upper, integer = (np.array(a) for a in zip(*(_column(v) for v in variables), strict=True))
    program = Milp(len(first), *_rows(form, columns), lower, upper, integer, row_names=_row_names(form))
    return PyomoProblem(model, tuple(variables), program, _objective(form, columns, len(first), len(variables)))


def load_model(build: str) -> Any:
    """The ConcreteModel that the function `"package.module:function"` returns.

    Raises:
        InvalidInput: not of that form, cannot be imported, is no function, raises, or returns something else.
    """
    module_name, _, name = build.partition(":")
    if not module_name or not name:
        raise InvalidInput(f"model {build!r} is not of the form package.module:function", hint="e.g. my_models:build")
    try:
        module = import_module(module_name)
    except Exception as error:
        raise InvalidInput(
            f"module {module_name!r} cannot be imported: {type(error).__name__}: {error}",
            hint="install it, or put its folder on PYTHONPATH",
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        found = "nothing" if function is None else f"a {type(function).__name__}"
        raise InvalidInput(f"{build!r} names {found}, not a function", where=str(getattr(module, "__file__", "")))
    try:
        model = function()
    except Exception as error:
        raise InvalidInput(
            f"{build!r} raised {type(error).__name__}: {error}", hint=f"call {name}() in Python to see where"
        ) from error
    if not isinstance(model, pyo.ConcreteModel):
        raise InvalidInput(f"{build!r} returned a {type(model).__name__}", hint="return a Pyomo ConcreteModel")
    return model


def _cost_variables(model: Any, costs: str) -> list[Any]:
    var = model.find_component(costs)
    if var is None or var.ctype is not pyo.Var or not var.is_indexed():
        found = "missing" if var is None else "scalar" if var.ctype is pyo.Var else f"a {var.ctype.__name__}"
        names = [v.name for v in model.component_objects(pyo.Var) if v.is_indexed()]
        raise InvalidInput(
            f"costs need an indexed Var; {costs!r} is {found}", hint=f"indexed: {', '.join(names) or 'none'}"
        )
    variables = [var[i] for i in var.index_set()]
    if not variables:
        raise InvalidInput(f"the Var {costs!r} has no entries", hint="check the set that indexes it")
    return variables


def _column(var: Any) -> tuple[float, float, bool]:
    """Bounds of a variable, and whether it is an integer."""
    if var.fixed:
        value = float(pyo.value(var))
        return value, value, False
    if not (var.is_continuous() or var.is_integer() or var.is_binary()):
        raise InvalidInput(
            f"variable {var.name} has the domain {var.domain.name}, neither continuous nor a range of integers",
            hint="write it with binary variables",
        )
    lower, upper = var.bounds
    lower, upper = -np.inf if lower is None else float(lower), np.inf if upper is None else float(upper)
    if not lower <= upper or lower == np.inf or upper == -np.inf:
        raise InvalidInput(
            f"variable {var.name} has the bounds {lower:g} to {upper:g}", hint="lower <= upper is needed"
        )
    return lower, upper, not var.is_continuous()


def _first_of_each(form: Any) -> list[int]:
    """The rows, each ranged constraint once: Pyomo gives it as two rows in a row, the upper one first."""
    return [k for k, r in enumerate(form.rows) if k == 0 or r.constraint is not form.rows[k - 1].constraint]


def _row_names(form: Any) -> tuple[str, ...]:
    return tuple(form.rows[k].constraint.name for k in _first_of_each(form))


def _rows(form: Any, columns: Any) -> tuple[Any, Any, Floats, Floats, Floats]:
    """Matrix (CSR: indptr, indices, values) and bounds of the rows."""
    keep = _first_of_each(form)
    matrix = form.A.tocsr()[keep]
    rhs = np.asarray(form.rhs, np.float64)
    kind = np.array([r.bound_type for r in form.rows], np.int64)
    lower = np.where(kind <= 0, rhs, -np.inf)
    upper = np.where(kind >= 0, rhs, np.inf)
    group = np.cumsum(np.isin(np.arange(len(kind)), keep)) - 1
    row_lower, row_upper = np.full(len(keep), -np.inf), np.full(len(keep), np.inf)
    np.maximum.at(row_lower, group, lower)
    np.minimum.at(row_upper, group, upper)
    bad = np.isnan(row_lower) | np.isnan(row_upper)
    bad[np.repeat(np.arange(len(keep)), np.diff(matrix.indptr))[~np.isfinite(matrix.data)]] = True
    if bad.any():
        name = _row_names(form)[int(np.flatnonzero(bad)[0])]
        raise InvalidInput(f"constraint {name} has a coefficient that is NaN or infinite", hint="check its parameters")
    indices = columns[matrix.indices] if len(matrix.indices) else np.zeros(0, np.int64)
    return matrix.indptr.astype(np.int64), indices, matrix.data.astype(np.float64), row_lower, row_upper


def _objective(form: Any, columns: Any, n: int, m: int) -> OwnObjective | None:
    """The model's objective over the cost columns, None when there is no such."""
    if len(form.objectives) != 1:
        return None
    cost = np.zeros(m)
    cost[columns] = form.c.toarray()[0]
    if cost[n:].any():
        return None
    return OwnObjective(cost[:n], float(form.c_offset[0]), int(form.objectives[0].sense))


@contextmanager
def _loaded(variables: Sequence[Any], values: Floats) -> Iterator[None]:
    """The variables with these values, fixed ones left alone; afterwards with those they had."""
    before = [(v, v.value, v.stale) for v in variables]
    try:
        for var, given in zip(variables, values, strict=False):
            if not var.fixed:
                var.set_value(float(given), skip_validation=True)
        for var in variables[len(values) :]:
            if not var.fixed:
                var.set_value(None, skip_validation=True)
        yield
    finally:
        for var, value, stale in before:
            var.set_value(value, skip_validation=True)
            var.stale = stale


def _in_domain(var: Any) -> bool:
    lower, upper = var.bounds
    value = var.value
    whole = var.is_continuous() or abs(value - round(value)) <= TOLERANCE
    return bool(
        whole and (lower is None or value >= lower - TOLERANCE) and (upper is None or value <= upper + TOLERANCE)
    )
