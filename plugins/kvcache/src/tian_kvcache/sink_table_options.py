"""Options of `kvcache/sink-pretraining`; no torch, composing a config stays light."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Literal, get_args

from tian.errors import InvalidInput
from tian.hf.options import TrainOptions

KEPT = (0, 1, 2, 4)  # first tokens the cache keeps: the columns of the table
Training = Literal["vanilla", "softmax1", "token", "scalar"]
TRAININGS: dict[str, tuple[Literal["token", "none"], Literal["none", "softmax1", "scalar"]]] = {  # lm.first, lm.sink
    "vanilla": ("none", "none"),
    "softmax1": ("none", "softmax1"),
    "token": ("token", "none"),
    "scalar": ("none", "scalar"),
}


@dataclass
class SinkTableOptions(TrainOptions):
    """Options of `kvcache/sink-pretraining`: those of `lm/train`, and what is compared."""

    training: Training = "token"  # studied: vanilla, softmax1 (zero sink), token (first token of its own), scalar
    compare: list[str] = field(
        default_factory=lambda: ["vanilla", "softmax1", "scalar"]
    )  # trainings set beside it, same data, order and seed
    models: str | None = (
        None  # folder of trained models, NAME/ each (models/ of other runs); those in it are not trained
    )
    watch_every: int = 0  # steps between looks at the attention on the first token, for metrics.jsonl; 0: none
    cache: int = 32  # tokens kept while reading, the first ones included
    tokens: int = 512  # length of each held-out stream
    streams: int = 24  # streams; the intervals are over them

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [name for name in self.compare if name not in get_args(Training)]
        if unknown:
            raise InvalidInput(
                f"compare holds {unknown[0]!r}, which is no training",
                hint=f"choose of: {', '.join(get_args(Training))}",
            )
        if (self.lm.first, self.lm.sink) != ("token", "none"):
            raise InvalidInput(
                f"lm.first={self.lm.first} and lm.sink={self.lm.sink} follow from the training here",
                hint="leave them out and set training=, compare=",
            )
        if self.watch_every < 0:
            raise InvalidInput(f"watch_every must be >= 0 steps, got {self.watch_every}")
        if self.cache <= max(KEPT):
            raise InvalidInput(f"cache must be > {max(KEPT)} tokens, got {self.cache}", hint="set cache=32")
        if self.tokens < self.cache + 16:
            raise InvalidInput(f"tokens must be >= cache + 16 = {self.cache + 16}, got {self.tokens}")
        if self.streams < 2:
            raise InvalidInput(f"streams must be >= 2, got {self.streams}")

    @property
    def names(self) -> list[str]:
        """The trainings, the studied one first, each once."""
        return list(dict.fromkeys([self.training, *self.compare]))

    def of(self, name: str) -> TrainOptions:
        """Options of `lm/train` for one training."""
        first, sink = TRAININGS[name]
        shared = {f.name: getattr(self, f.name) for f in fields(TrainOptions)}
        return TrainOptions(**{**shared, "lm": replace(self.lm, first=first, sink=sink)})
