"""Options of the policies and of `kvcache/stream`; no torch, so that composing a config stays light."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from tian.errors import InvalidInput
from tian.hf.options import ModelSource, TextSource

RECOMPUTE = re.compile(r"recompute (\d+)\+([1-9]\d*)")  # recomputation of a size of its own: recompute 1+31


def _check_recent(recent: int) -> None:
    if recent < 1:
        raise InvalidInput(
            f"recent must be >= 1 (the newest token is never evicted), got {recent}", hint="set kv.recent=1 or more"
        )


@dataclass
class WindowOptions:
    """Options of `window`."""

    recent: int = 32  # most recent tokens kept, per layer and head
    positions: Literal["in_cache", "original"] = (
        "in_cache"  # what rotary angles count: places in_cache, or indices in the original stream
    )

    def __post_init__(self) -> None:
        _check_recent(self.recent)


@dataclass
class StreamingOptions:
    """Options of `streaming`."""

    sinks: int = 4  # first tokens of the stream that are always kept
    recent: int = 252  # most recent tokens kept, per layer and head
    positions: Literal["in_cache", "original"] = (
        "in_cache"  # what rotary angles count: places in_cache, or indices in the original stream
    )

    def __post_init__(self) -> None:
        _check_recent(self.recent)
        if self.sinks < 0:
            raise InvalidInput(f"sinks must be >= 0, got {self.sinks}", hint="set kv.sinks=0 for a plain window")


@dataclass
class StreamOptions:
    """Options of `kvcache/stream`."""

    model: ModelSource = field(default_factory=ModelSource)
    text: TextSource = field(default_factory=lambda: TextSource(packages=["networkx"]))
    kv: dict[str, Any] = field(  # the policy to study: kv=NAME, its options kv.KEY
        default_factory=lambda: {"use": "streaming"}, metadata={"role": "kv_policy"}
    )
    compare: list[Any] = (
        field(  # set beside it: full, window, recompute (size of kv), recompute S+R, or {use: NAME, ...} nodes
            default_factory=list, metadata={"role": "kv_policy"}
        )
    )
    tokens: int = 1024  # length of each stream, tokens
    streams: int = 16  # streams read side by side; seed=0 spreads them evenly over the text, another seed at random
    full_limit: int | None = None  # tokens after which `full` stops, its cache would grow without bound; null: never
    checks: bool = True  # ask whether the model has an attention sink or merely depends on its first token
    save_every: float = 30.0  # seconds between saves of an unfinished stream
    device: str = "cpu"  # cpu, cuda or cuda:N
    kernel: str = "auto"  # of decoding steps: auto (triton on a CUDA device), triton or torch
    threads: int | None = None  # CPU threads; null: torch's default

    def __post_init__(self) -> None:
        if self.tokens < 16:
            raise InvalidInput(f"tokens must be >= 16, got {self.tokens}")
        if self.streams < 1:
            raise InvalidInput(f"streams must be >= 1, got {self.streams}")
        if self.full_limit is not None and self.full_limit < 1:
            raise InvalidInput(f"full_limit must be >= 1 or null, got {self.full_limit}")
        if self.save_every <= 0:
            raise InvalidInput(f"save_every must be > 0 seconds, got {self.save_every}")
        for entry in self.compare:
            if not isinstance(entry, str) or entry in ("full", "window", "recompute"):
                continue
            if not RECOMPUTE.fullmatch(entry):
                raise InvalidInput(
                    f"compare holds {entry!r}; a bare name must be full, window, recompute or recompute S+R",
                    hint="write another policy as {use: NAME, option: value}",
                )
