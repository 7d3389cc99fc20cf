"""Options of `genco/replication`; no torch, composing a config stays light."""

from __future__ import annotations

from dataclasses import dataclass, field

from tian.errors import InvalidInput
from tian_genco.options import ZeldaOptions

# name -> (what its second stage trains on, estimator, adversary, what is new about it)
ARMS: dict[str, tuple[str, str, str, str]] = {
    "plain-long": ("none", "", "updated", "one plain schedule as long in CPU time as both stages, repaired afterwards"),
    "plain": ("plain", "", "updated", "the plain stage continued, repaired afterwards"),
    "random": ("random", "", "updated", "tiles drawn with the data's frequencies, repaired; no generator"),
    "penalty": ("plain", "", "updated", "continued with a penalty on tiles the solver would change, repaired"),
    "identity": ("solver", "identity", "updated", "through the solver, negative identity"),
    "blackbox": ("solver", "blackbox", "updated", "through the solver, black-box differences"),
    "imle": ("solver", "imle", "updated", "through the solver, implicit maximum likelihood"),
    "perturbed": ("solver", "perturbed", "updated", "through the solver, perturbed optimiser"),
    "blackbox-fixed": ("solver", "blackbox", "fixed", "through the solver against a fixed adversary"),
    "identity-fixed": ("solver", "identity", "fixed", "the same with negative identity"),
    "plain-fixed": ("plain", "", "fixed", "without the solver against a fixed adversary: the control of both"),
}


@dataclass
class ReplicationOptions(ZeldaOptions):
    """Options of `genco/replication`: those of `genco/zelda`, and what is compared."""

    method: str = "blackbox"  # the arm whose numbers are set against the baseline's
    baseline: str = "plain-long"  # the arm they are divided by
    compare: list[str] = field(default_factory=list)  # further arms
    plain_again: int = 390  # steps of the second stage without a solver, as long in CPU time as `train.through`
    plain_long: int = 990  # steps of the one plain schedule of plain-long
    repeats: int = 1  # seeds, each with its own data, first weights and noise; arms of a repeat share all three

    def __post_init__(self) -> None:
        for name in (self.method, self.baseline, *self.compare):
            if name not in ARMS:
                raise InvalidInput(f"there is no arm {name!r}", hint=f"one of: {', '.join(ARMS)}")
        if self.method == self.baseline:
            raise InvalidInput(f"method and baseline are both {self.method!r}", hint="set baseline=plain-long")
        if self.repeats < 1 or self.plain_again < 1 or self.plain_long < 1:
            raise InvalidInput("repeats, plain_again and plain_long must be >= 1")
