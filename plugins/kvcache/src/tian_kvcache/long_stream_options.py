"""Options of `kvcache/long-stream`; no torch, so that composing a config stays light."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tian.errors import InvalidInput
from tian.hf.options import ModelSource, TextSource


@dataclass
class LongStreamOptions:
    """Options of `kvcache/long-stream`."""

    model: ModelSource = field(default_factory=ModelSource)
    text: TextSource = field(default_factory=lambda: TextSource(packages=["sympy"]))
    kv: dict[str, Any] = field(  # a contiguous policy, streaming or window: kv=NAME, its options kv.KEY
        default_factory=lambda: {"use": "streaming"}, metadata={"role": "kv_policy"}
    )
    tokens: int = 4_194_304  # length of the stream; a text shorter than that starts over
    chunk: int = 128  # tokens read at once, with the result of single steps
    single: int = 32  # tokens read one by one before each check
    first_check: int = 1024  # checks come at this length and at every doubling
    save_every: float = 60.0  # seconds between saves of the unfinished stream
    device: str = "cpu"  # cpu, cuda or cuda:N
    threads: int | None = None  # CPU threads; null: torch's default

    def __post_init__(self) -> None:
        if self.chunk < 1 or self.single < 0:
            raise InvalidInput(f"need chunk >= 1 and single >= 0, got {self.chunk} and {self.single}")
        if not self.single < self.first_check <= self.tokens:
            raise InvalidInput(
                f"need single < first_check <= tokens, got {self.single}, {self.first_check}, {self.tokens}"
            )
        if self.save_every <= 0:
            raise InvalidInput(f"save_every must be > 0 seconds, got {self.save_every}")
