"""Does the kit notice? Every role's fake, broken in one sentence of its contract at a time.

    from tian.testing.mutants import roles, survey

    for role in roles():
        print(survey(role))

A mutant is a subclass of an honest fake with one or two methods replaced. `survey` runs the role's conformance class
on each and tells which checks fail: a mutant without a failing check escaped, a check without a mutant is dead.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from tian.testing.conformance import checks_of, run_conformance

_ROLES = ("model", "planner", "kv_policy", "sparsity_predictor", "reward_model", "solver", "evaluator")


@dataclass(frozen=True)
class Mutant:
    """A broken component: the sentence it breaks, and the class (or factory) the kit is given."""

    name: str
    target: Any


@dataclass(frozen=True)
class Survey:
    """What a role's checks made of its mutants.

    Attributes:
        role: of the seven.
        checks: ids of the checks.
        caught: mutant name -> ids of the checks that failed; empty for one that escaped.
    """

    role: str
    checks: tuple[str, ...]
    caught: dict[str, tuple[str, ...]]

    @property
    def escaped(self) -> list[str]:
        """Mutants no check noticed."""
        return [name for name, ids in self.caught.items() if not ids]

    @property
    def dead(self) -> list[str]:
        """Checks that noticed no mutant; one that fails more than half of the checks proves nothing about one of them."""
        alive = {i for ids in self.caught.values() if len(ids) <= len(self.checks) / 2 for i in ids}
        return [c for c in self.checks if c not in alive]

    def row(self) -> str:
        """A row of the table in `docs/conformance.md`."""
        n, hit = len(self.caught), len(self.caught) - len(self.escaped)
        return f"| {self.role} | {len(self.checks)} | {n} | {hit} | {', '.join(self.dead) or 'none'} |"


def roles() -> tuple[str, ...]:
    """The roles in the order of the documentation."""
    return _ROLES


def mutant(name: str, fake: type, **members: Any) -> Mutant:
    """A subclass of the fake with `members` in place of its own."""
    return Mutant(name, type("".join(w.title() for w in name.split() if w.isalnum()), (fake,), members))


def mutants_of(role: str) -> list[Mutant]:
    """The mutants of a role's fake."""
    found: list[Mutant] = import_module(f"tian.testing.mutants.of_{role}").MUTANTS
    return found


def conformance_of(role: str, target: Any = None) -> type:
    """The conformance class of a role's fake, or of one of its mutants."""
    module = import_module(f"tian.testing.mutants.of_{role}")
    found: type = module.conform(module.FAKE if target is None else target)
    return found


def survey(role: str, *, only: int | None = None) -> Survey:
    """Run every check on every mutant of a role, or on `only` so many of them."""
    caught = {m.name: tuple(run_conformance(conformance_of(role, m.target))) for m in mutants_of(role)[:only]}
    return Survey(role, tuple(c.id for c in checks_of(conformance_of(role))), caught)


def check_tables() -> str:
    """Every check with its sentence, as Markdown: those of all roles, those of packaging, then role by role."""
    from tian.testing.conformance.common import CommonChecks
    from tian.testing.conformance.packaging import PackagingChecks

    groups = [("Every role", checks_of(CommonChecks)), ("The plugin of a registered name", checks_of(PackagingChecks))]
    own = {role: [c for c in checks_of(conformance_of(role)) if not c.id.startswith("all")] for role in _ROLES}
    groups += own.items()
    parts = []
    for title, checks in groups:
        rows = [f"| {c.id} | {c.sentence} |" for c in checks]
        parts.append("\n".join([f"### {title}\n", "| id | sentence |", "|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def table_head() -> str:
    """The first two lines of the table of mutants."""
    return "| role | checks | mutants | caught | checks without a mutant |\n|---|---|---|---|---|"


__all__ = [
    "Mutant",
    "Survey",
    "check_tables",
    "conformance_of",
    "mutant",
    "mutants_of",
    "roles",
    "survey",
    "table_head",
]
