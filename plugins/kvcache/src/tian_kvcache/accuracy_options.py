"""Options of `kvcache/accuracy`; no torch, composing a config stays light."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from tian.errors import InvalidInput
from tian.hf.options import ModelSource, TextSource
from tian_kvcache.budget import check_budget
from tian_kvcache.study_options import check_nodes


@dataclass
class QuestionSource:
    """Where multiple-choice questions come from."""

    path: str | None = (
        None  # JSON lines {"context": ..., "choices": [...], "gold": 0}; null: cloze items made of the text
    )
    shots: int = 0  # the first questions of the file, solved and put in front of every other one

    def __post_init__(self) -> None:
        if self.shots < 0:
            raise InvalidInput(f"data.shots must be >= 0, got {self.shots}", hint="set data.shots=0 for none")
        if self.shots and self.path is None:
            raise InvalidInput("data.shots needs questions of a file", hint="set data.path=FILE, or data.shots=0")


@dataclass
class AccuracyOptions:
    """Options of `kvcache/accuracy`."""

    model: ModelSource = field(default_factory=ModelSource)
    data: QuestionSource = field(default_factory=QuestionSource)
    text: TextSource = field(default_factory=lambda: TextSource(packages=["networkx"]))
    kv: dict[str, Any] = field(  # the policy to study: kv=NAME; its sizes give proportions, `budget` the total
        default_factory=lambda: {"use": "h2o"}, metadata={"role": "kv_policy"}
    )
    compare: list[Any] = field(  # policies set beside it: {use: NAME, ...} nodes; full attention always is
        default_factory=list, metadata={"role": "kv_policy"}
    )
    budget: int | float = 0.2  # tokens kept by every policy, or with a dot the share of each prompt
    reading: Literal["whole", "stream"] = (
        "whole"  # whole: the prompt is attended in full, then cut once; stream: the policy evicts after every token
    )
    positions: Literal["in_cache", "original"] | None = (
        None  # for every policy: what positions count; null: as each says. OPT needs original
    )
    items: int = 200  # questions asked; of a file with more, a random part
    context: int = 64  # tokens before a cloze item's continuation, the first token included
    continuation: int = 16  # tokens of each continuation of a cloze item
    choices: int = 4  # continuations of a cloze item, the right one included
    batch: int = 128  # choices scored side by side
    device: str = "cpu"  # cpu, cuda or cuda:N
    threads: int | None = None  # CPU threads; null: torch's default

    def __post_init__(self) -> None:
        check_budget(self.budget)
        check_nodes(self.compare)
        for name, least in (("items", 2), ("context", 8), ("continuation", 1), ("choices", 2), ("batch", 1)):
            if getattr(self, name) < least:
                raise InvalidInput(f"{name} must be >= {least}, got {getattr(self, name)}")
