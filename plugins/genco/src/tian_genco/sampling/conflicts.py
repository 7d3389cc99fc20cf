"""Which of the user's rules cannot be met together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tian.errors import InvalidInput
from tian_genco.levels.language import parse_rules
from tian_genco.solving.diverse import Extended

if TYPE_CHECKING:
    from tian.spec import Solver
    from tian_genco.levels.rules import LevelRules


def conflicting(
    lines: Sequence[str], base: LevelRules, *, solver: Solver, time_limit_s: float
) -> tuple[list[str], bool]:
    """Rules without a common level, as few as leaving out one after the other gives.

    Whole rules are left out, not rows of them: the rules to which a minimal set of rows belongs need not be minimal.

    Args:
        lines: rules that no level meets together.
        base: rules that are given.
        solver: takes kind `milp`.
        time_limit_s: seconds in all.

    Returns:
        The rules, and whether each of them was proven needed.
    """
    deadline = time.perf_counter() + time_limit_s
    needed, proven = list(lines), True
    for line in lines:
        rest = [other for other in needed if other is not line]
        problem = Extended.of(parse_rules(rest, base).level)
        answer = solver.solve(problem.instance(), time_limit_s=max(deadline - time.perf_counter(), 0.0))
        if answer.status == "infeasible":
            needed = rest
        proven &= answer.status != "timeout"
    return needed, proven


def refuse(lines: Sequence[str], base: LevelRules, *, solver: Solver, time_limit_s: float) -> None:
    """Raise the InvalidInput that names rules no level meets together; arguments as above."""
    needed, proven = conflicting(lines, base, solver=solver, time_limit_s=time_limit_s)
    named = " and ".join(repr(line) for line in needed)
    if len(needed) == 1:
        text, hint = f"no level of {base.height} x {base.width} cells meets the rule {named}", "loosen it"
    else:
        text, hint = f"no level meets these rules together: {named}", "leave one of them out, or loosen it"
    unsure = "" if proven else "; the time limit was reached, perhaps fewer of them are in conflict"
    raise InvalidInput(text + unsure, where="constraint", hint=hint)
