"""What a claim is: plain data a plugin registers; importing it imports nothing heavy.

A claim is a statement of a paper (or ours), and for each scale a check: which run to start, which of its measurements
to take, the bar it must meet, and a control that differs in one config group and must miss the bar. A check whose
control meets the bar as well proves nothing, and is reported as vacuous.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from tian.errors import InvalidInput

SCALES = ("tiny", "cpu", "gpu", "paper")
EXPECTED = ("holds", "fails", "inconclusive")


@dataclass(frozen=True)
class Between:
    """The bar `low <= value <= high`."""

    low: float
    high: float

    def __str__(self) -> str:
        if self.low == -math.inf:
            return f"<= {self.high:g}"
        return f">= {self.low:g}" if self.high == math.inf else f"{self.low:g} to {self.high:g}"


class Le(Between):
    """The bar `value <= high`: `Le(1.05)`."""

    def __init__(self, high: float) -> None:
        super().__init__(-math.inf, high)


class Ge(Between):
    """The bar `value >= low`: `Ge(1.3)`."""

    def __init__(self, low: float) -> None:
        super().__init__(low, math.inf)


@dataclass(frozen=True)
class World:
    """Something synthetic or embedded a result depends on: a generator, a shipped model, a stand-in environment.

    It is frozen before the first result: who changes its content raises its version, which voids stored results.

    Attributes:
        name: e.g. `shipped-lm`.
        version: 1, 2, ...
        content: `package:path` of a file or folder inside an installed package, hashed as a whole.
    """

    name: str
    version: int
    content: str


@dataclass(frozen=True)
class Check:
    """How a claim is tested at one scale.

    Attributes:
        config: the run to start, `plugin/run`.
        metric: name of the measurement that is judged.
        holds: the bar: `Le(x)`, `Ge(x)` or `Between(low, high)`.
        control: overrides that make the negative control; they change one config group (top-level key) only.
        overrides: overrides of both, the claim's run and the control's.
        by: picks the measurement among those of the same name, e.g. `{"policy": "window 0+32"}`.
        seeds: how many seeds; their values follow from the id of the claim.
        seeds_of: id of another claim of the plugin whose seeds are used, so that both can share runs.
        budget_s: seconds of CPU time all runs of this check may take together; beyond it they are stopped.
        stands_in: what takes the place of the paper's model or data; printed beside the verdict.
        worlds: what it depends on besides code and config.
    """

    config: str
    metric: str
    holds: Between
    control: tuple[str, ...]
    overrides: tuple[str, ...] = ()
    by: Mapping[str, str] = field(default_factory=dict)
    seeds: int = 3
    seeds_of: str = ""
    budget_s: float = 60.0
    stands_in: str = ""
    worlds: tuple[World, ...] = ()

    def __post_init__(self) -> None:
        if not self.control:
            raise InvalidInput(f"the check of {self.metric!r} has no control", hint="give overrides that must fail it")
        if any(isinstance(part, str) for part in (self.control, self.overrides)):  # would be read letter by letter
            raise InvalidInput("control and overrides are tuples of overrides", hint='write control=("kv=window",)')
        if self.seeds < 1 or self.budget_s <= 0:
            raise InvalidInput(f"need seeds >= 1 and budget_s > 0, got {self.seeds} and {self.budget_s}")
        if self.holds.low > self.holds.high:
            raise InvalidInput(f"no number is within {self.holds}", hint="exchange the two bounds")


@dataclass(frozen=True)
class Claim:
    """A statement and its checks.

    Attributes:
        id: `plugin/short-name`; also the source of its seeds.
        says: the statement in our words.
        where: the place in the paper, or `ours`.
        checks: scale (`tiny`, `cpu`, `gpu`, `paper`) -> check.
        paper: arXiv id, empty for ours.
        promises: ids of the list of promises (`tian/claims/promises.toml`) that it answers.
        expected: the recorded verdict; `tian claims` exits with 1 when another one comes out.
        because: why the recorded verdict is not `holds`.
    """

    id: str
    says: str
    where: str
    checks: Mapping[str, Check]
    paper: str = ""
    promises: tuple[str, ...] = ()
    expected: str = "holds"
    because: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9_-]+/[a-z0-9_-]+", self.id):
            raise InvalidInput(f"{self.id!r} is not the id of a claim", hint="write plugin/short-name")
        unknown = set(self.checks) - set(SCALES)
        if unknown or not self.checks:
            raise InvalidInput(
                f"the claim {self.id} has checks at {sorted(self.checks)}", hint=f"scales: {', '.join(SCALES)}"
            )
        if self.expected not in EXPECTED:
            raise InvalidInput(f"the claim {self.id} expects {self.expected!r}", hint=f"one of: {', '.join(EXPECTED)}")
        if self.expected != "holds" and not self.because:
            raise InvalidInput(f"the claim {self.id} is expected not to hold: say why", hint="set because=")
