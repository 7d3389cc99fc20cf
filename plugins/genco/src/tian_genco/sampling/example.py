"""A model to try `genco/custom` with: a rota of nurses, small enough to read at a glance."""

from __future__ import annotations

from typing import Any

import pyomo.environ as pyo

NURSES = ("Ada", "Ben", "Cem", "Dot")
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def build() -> Any:
    """Who works on which day: two nurses each day, three to four days each, never three days in a row, Ben off on Sunday."""
    m = pyo.ConcreteModel("rota")
    m.works = pyo.Var(NURSES, DAYS, domain=pyo.Binary)
    m.two_a_day = pyo.Constraint(DAYS, rule=lambda m, d: sum(m.works[n, d] for n in NURSES) == 2)
    m.days_each = pyo.Constraint(NURSES, rule=lambda m, n: (3, sum(m.works[n, d] for d in DAYS), 4))
    m.rest = pyo.Constraint(NURSES, range(5), rule=lambda m, n, i: sum(m.works[n, d] for d in DAYS[i : i + 3]) <= 2)
    m.ben_off = pyo.Constraint(expr=m.works["Ben", "Sun"] == 0)
    return m
