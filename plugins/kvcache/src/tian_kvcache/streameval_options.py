"""Options of `kvcache/streameval`; no torch, composing a config stays light."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from tian.errors import InvalidInput
from tian.hf.options import ModelSource
from tian_kvcache.study_options import check_nodes


@dataclass
class StreamEvalOptions:
    """Options of `kvcache/streameval`."""

    reader: Literal["model", "constructed"] = (
        "constructed"  # constructed: one head in closed form that answers whatever it still sees; model: `model.path`
    )
    model: ModelSource = field(default_factory=ModelSource)
    kv: dict[str, Any] = field(  # the policy to study: kv=NAME, its options kv.KEY
        default_factory=lambda: {"use": "streaming"}, metadata={"role": "kv_policy"}
    )
    compare: list[Any] = field(  # policies set beside it: {use: NAME, ...} nodes
        default_factory=list, metadata={"role": "kv_policy"}
    )
    lines_back: list[int] = field(default_factory=lambda: [1, 2, 4, 6, 8, 12])  # how far back the answers lie, lines
    queries: int = 10  # questions a stream
    every: int = 10  # lines between two questions
    streams: int = 2  # streams at each distance, read side by side
    device: str = "cpu"  # cpu, cuda or cuda:N
    threads: int | None = None  # CPU threads; null: torch's default

    def __post_init__(self) -> None:
        if not self.lines_back or min(self.lines_back) < 1:
            raise InvalidInput(f"lines_back must be distances >= 1, got {self.lines_back}", hint="set lines_back=[20]")
        for name in ("queries", "every", "streams"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} must be >= 1, got {getattr(self, name)}")
        check_nodes(self.compare)
