"""Options of `kvcache/answers`; no torch, composing a config stays light."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from tian.errors import InvalidInput
from tian.hf.options import ModelSource, TextSource
from tian_kvcache.budget import check_budget
from tian_kvcache.study_options import check_nodes


@dataclass
class LongSource:
    """Where questions about long contexts come from."""

    path: str | None = (
        None  # JSON lines {"input": ..., "context": ..., "answers": [...]}; null: constructed, which line follows a line?
    )


@dataclass
class AnswersOptions:
    """Options of `kvcache/answers`."""

    model: ModelSource = field(default_factory=ModelSource)
    data: LongSource = field(default_factory=LongSource)
    text: TextSource = field(default_factory=lambda: TextSource(packages=["networkx"]))
    kv: dict[str, Any] = field(  # the policy to study: kv=NAME; its sizes give proportions, `budget` the total
        default_factory=lambda: {"use": "h2o"}, metadata={"role": "kv_policy"}
    )
    compare: list[Any] = field(  # policies set beside it: {use: NAME, ...} nodes; kvcache/full gives the differences
        default_factory=list, metadata={"role": "kv_policy"}
    )
    budget: int | float = 0.2  # tokens kept by every policy, or with a dot the share of each prompt
    positions: Literal["in_cache", "original"] | None = (
        None  # for every policy: what positions count; null: as each says. OPT needs original
    )
    items: int = 24  # questions asked; of a file with more, a random part
    lines: int = 3  # lines of text in a constructed question; more pass what the shipped model was trained on
    max_prompt: int | None = None  # longer prompts lose their middle, tokens; null: none is cut
    max_new: int = 32  # an answer ends after so many tokens, if not before at a newline or the end token
    chunk: int = 2048  # the prompt is read in pieces of so many tokens; the policy evicts after each
    device: str = "cpu"  # cpu, cuda or cuda:N
    threads: int | None = None  # CPU threads; null: torch's default

    def __post_init__(self) -> None:
        check_budget(self.budget)
        check_nodes(self.compare)
        for name, least in (("items", 2), ("lines", 2), ("max_prompt", 8), ("max_new", 1), ("chunk", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InvalidInput(f"{name} must be >= {least}, got {value}", hint=f"set {name}={least} or more")
