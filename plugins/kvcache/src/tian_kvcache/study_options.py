"""Options of `kvcache/recall`, `kvcache/regret` and `kvcache/heavy-hitters`; no torch, composing a config stays light."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from tian.errors import InvalidInput
from tian.hf.options import ModelSource, TextSource
from tian_kvcache.budget import check_budget

STREAMS = ("zipf", "drift", "one-shot")


def check_nodes(compare: list[Any]) -> None:
    """Refuse bare names among policies to compare with.

    Raises:
        InvalidInput: naming the first.
    """
    for entry in compare:
        if isinstance(entry, str):
            raise InvalidInput(
                f"compare holds {entry!r}; each entry is a policy with its options",
                hint=f"write {{use: {entry}}}",
            )


@dataclass
class RecallOptions:
    """Options of `kvcache/recall`."""

    kv: dict[str, Any] = field(  # the policy to study: kv=NAME; its sizes give proportions, `capacity` the total
        default_factory=lambda: {"use": "h2o"}, metadata={"role": "kv_policy"}
    )
    compare: list[Any] = field(  # policies set beside it: {use: NAME, ...} nodes
        default_factory=list, metadata={"role": "kv_policy"}
    )
    capacity: int = 16  # tokens kept by every bounded policy
    tokens: int = 384  # length of each stream
    streams: int = 8  # streams of each kind
    kinds: list[str] = field(default_factory=lambda: list(STREAMS))  # of zipf, drift, one-shot

    def __post_init__(self) -> None:
        check_nodes(self.compare)
        if self.capacity < 2:
            raise InvalidInput(f"capacity must be >= 2 tokens, got {self.capacity}")
        if self.tokens < 192:
            raise InvalidInput(f"tokens must be >= 192, for 32 pairs to be planted twice, got {self.tokens}")
        if self.streams < 1:
            raise InvalidInput(f"streams must be >= 1, got {self.streams}")
        unknown = sorted(set(self.kinds) - set(STREAMS))
        if unknown or not self.kinds:
            raise InvalidInput(f"kinds holds {unknown or 'nothing'}", hint=f"choose of: {', '.join(STREAMS)}")


@dataclass
class RegretOptions:
    """Options of `kvcache/regret`."""

    model: ModelSource = field(default_factory=ModelSource)
    text: TextSource = field(default_factory=lambda: TextSource(packages=["networkx"]))
    kv: dict[str, Any] = field(  # the policy to study: kv=NAME; its sizes give proportions, `budget` the total
        default_factory=lambda: {"use": "h2o"}, metadata={"role": "kv_policy"}
    )
    compare: list[Any] = field(  # policies set beside it: {use: NAME, ...} nodes
        default_factory=list, metadata={"role": "kv_policy"}
    )
    budget: int | float = 0.25  # tokens kept by every policy and by the optimum, or with a dot the share of `tokens`
    curve: list[float] = field(default_factory=list)  # further budgets for the curve, as shares of `tokens`
    tokens: int = 128  # length of each stream; a model is itself only up to its training length
    streams: int = 4  # streams; the intervals are over them
    heads: int | None = None  # heads looked at, spread evenly over layers; null: all

    def __post_init__(self) -> None:
        check_nodes(self.compare)
        check_budget(self.budget)
        for share in self.curve:
            check_budget(float(share))
        if self.tokens < 16:
            raise InvalidInput(f"tokens must be >= 16, got {self.tokens}")
        if self.streams < 1:
            raise InvalidInput(f"streams must be >= 1, got {self.streams}")
        if self.heads is not None and self.heads < 1:
            raise InvalidInput(f"heads must be >= 1 or null, got {self.heads}")


@dataclass
class HeavyHittersOptions:
    """Options of `kvcache/heavy-hitters`."""

    model: ModelSource = field(default_factory=ModelSource)
    text: TextSource = field(default_factory=lambda: TextSource(packages=["networkx"]))
    tokens: int = 128  # length of each stream; a model is itself only up to its training length
    streams: int = 16  # streams; the intervals are over them
    share: float = 0.1  # share of the tokens that counts as heavy
    rank_by: Literal["attention", "uniform", "random"] = "attention"  # what makes a token heavy; others: controls
    window: int = 8  # tokens on either side that count as occurring together
    permutations: int = 200  # random pairings behind the control of the correlation

    def __post_init__(self) -> None:
        if self.tokens < 32:
            raise InvalidInput(f"tokens must be >= 32, got {self.tokens}")
        if self.streams < 2:
            raise InvalidInput(f"streams must be >= 2, got {self.streams}")
        if not 0.0 < self.share < 1.0:
            raise InvalidInput(f"share must be between 0 and 1, got {self.share}", hint="set share=0.1")
        if self.window < 1 or self.permutations < 20:
            raise InvalidInput(f"need window >= 1 and permutations >= 20, got {self.window} and {self.permutations}")
