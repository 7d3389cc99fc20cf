"""Options of `genco/replication`; no torch, composing a config stays light."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from tian.errors import InvalidInput
from tian_genco.grad.options import GradName
from tian_genco.options import ZeldaOptions


class Arm(NamedTuple):
    """A way of training.

    Attributes:
        stage: what its second stage trains on; `none` has one long plain stage, `random` no training.
        grad: estimator.
        adversary: as in `train.adversary`.
        says: what it is, for reports.
    """

    stage: Literal["none", "random", "plain", "solver"]
    grad: GradName | None
    adversary: Literal["updated", "fixed"]
    says: str


ARMS: dict[str, Arm] = {
    "plain-long": Arm(
        "none", None, "updated", "one plain schedule as long in CPU time as both stages, repaired afterwards"
    ),
    "plain": Arm("plain", None, "updated", "the plain stage continued, repaired afterwards"),
    "random": Arm("random", None, "updated", "tiles drawn with the data's frequencies, repaired; no generator"),
    "penalty": Arm("plain", None, "updated", "continued with a penalty on tiles the solver would change, repaired"),
    "identity": Arm("solver", "identity", "updated", "through the solver, negative identity"),
    "blackbox": Arm("solver", "blackbox", "updated", "through the solver, black-box differences"),
    "imle": Arm("solver", "imle", "updated", "through the solver, implicit maximum likelihood"),
    "perturbed": Arm("solver", "perturbed", "updated", "through the solver, perturbed optimiser"),
    "blackbox-fixed": Arm("solver", "blackbox", "fixed", "through the solver against a fixed adversary"),
    "identity-fixed": Arm("solver", "identity", "fixed", "the same with negative identity"),
    "plain-fixed": Arm("plain", None, "fixed", "without the solver against a fixed adversary: the control of both"),
}


@dataclass
class ReplicationOptions(ZeldaOptions):
    """Options of `genco/replication`: those of `genco/zelda`, and what is compared."""

    method: str = "blackbox"  # the arm whose numbers are set against the baseline's
    baseline: str = "plain-long"  # the arm they are divided by
    compare: list[str] = field(default_factory=list)  # further arms
    plain_again: int = 520  # steps of the second stage without a solver, as long in CPU time as `train.through`
    plain_long: int = 1120  # steps of the one plain schedule of plain-long
    repeats: int = 1  # seeds, each with its own data, first weights and noise; arms of a repeat share all three

    def __post_init__(self) -> None:
        for name in (self.method, self.baseline, *self.compare):
            if name not in ARMS:
                raise InvalidInput(f"there is no arm {name!r}", hint=f"one of: {', '.join(ARMS)}")
        if self.method == self.baseline:
            raise InvalidInput(f"method and baseline are both {self.method!r}", hint="set baseline=plain-long")
        if self.repeats < 1 or self.plain_again < 1 or self.plain_long < 1:
            raise InvalidInput("repeats, plain_again and plain_long must be >= 1")
