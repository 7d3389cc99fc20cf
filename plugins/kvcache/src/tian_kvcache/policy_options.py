"""Options of the policies that choose by score, of `random` and of `plan`; no torch, composing a config stays light."""

from __future__ import annotations

from dataclasses import dataclass

from tian.errors import InvalidInput
from tian_kvcache.budget import BudgetOptions


def _check_sizes(*, heavy: int, recent: int, sinks: int = 0) -> None:
    if recent < 1:
        raise InvalidInput(
            f"recent must be >= 1 (the newest token is never evicted), got {recent}", hint="set kv.recent=1 or more"
        )
    if heavy < 0:
        raise InvalidInput(f"heavy must be >= 0, got {heavy}", hint="set kv.heavy=0 for a plain window")
    if sinks < 0:
        raise InvalidInput(f"sinks must be >= 0, got {sinks}", hint="set kv.sinks=0 to keep no first tokens")


@dataclass
class H2OOptions(BudgetOptions):
    """Options of `h2o` and `h2o-global`."""

    heavy: int = 128  # older tokens kept for the attention they received; with a budget: their part of it
    recent: int = 128  # most recent tokens kept; with a budget: their part of it

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_sizes(heavy=self.heavy, recent=self.recent)


@dataclass
class H2ODecayOptions(H2OOptions):
    """Options of `h2o-decay`."""

    decay: float = 0.95  # factor on what was received so far, each step; 1: never forget

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.decay <= 1.0:
            raise InvalidInput(f"decay must be above 0 and at most 1, got {self.decay}", hint="set kv.decay=0.95")


@dataclass
class SinkH2OOptions(H2OOptions):
    """Options of `sink-h2o`."""

    sinks: int = 4  # first tokens of the stream that are always kept, whatever the budget

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_sizes(heavy=self.heavy, recent=self.recent, sinks=self.sinks)


@dataclass
class TovaOptions(BudgetOptions):
    """Options of `tova`."""

    budget: int | float = 256  # tokens kept, or with a dot the share of the prompt (0.2)


@dataclass
class SnapKVOptions(BudgetOptions):
    """Options of `snapkv`."""

    heavy: int = 128  # prompt tokens kept for good; with a budget: their part of it
    recent: int = 128  # most recent tokens kept; with a budget: their part of it
    window: int = 32  # last queries of the prompt that vote
    kernel: int = 7  # votes are spread to this many neighbours, by maximum; odd

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_sizes(heavy=self.heavy, recent=self.recent)
        if self.window < 1:
            raise InvalidInput(f"window must be >= 1 query, got {self.window}", hint="set kv.window=32")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise InvalidInput(f"kernel must be odd and >= 1, got {self.kernel}", hint="set kv.kernel=7, or 1 for none")


@dataclass
class RandomOptions(BudgetOptions):
    """Options of `random`."""

    budget: int | float = 256  # tokens kept, or with a dot the share of the prompt (0.2)
    sinks: int = 4  # first tokens of the stream that are always kept
    seed: int = 0  # which random choices

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_sizes(heavy=0, recent=1, sinks=self.sinks)


@dataclass
class PlanOptions:
    """Options of `plan`."""

    path: str  # file of the keep list, .npz or .json, as `kvcache/regret` writes it: <run>/plan.npz
