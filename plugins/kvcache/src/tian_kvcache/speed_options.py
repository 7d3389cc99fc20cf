"""Options of `kvcache/speed`; no torch, so that composing a config stays light."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from tian.errors import InvalidInput

STUDIES = ("recompute", "batch", "memory")


@dataclass
class Shape:
    """Shape of a model with random weights: time does not depend on what the weights are."""

    kind: Literal["llama", "opt"] = "llama"  # rotary positions and a gated MLP, or learned positions and ReLU
    vocab_size: int = 4096  # tokens the head scores
    d_model: int = 512  # residual width
    layers: int = 8  # decoder layers
    heads: int = 8  # query heads
    kv_heads: int = 8  # key/value heads; opt has as many as query heads
    ffn: int = 1376  # width of the MLP
    context: int = 8192  # longest stream, tokens; opt: rows of its position table
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"  # of weights and cache

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model", "layers", "heads", "kv_heads", "ffn", "context"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"shape.{name} must be >= 1, got {getattr(self, name)}")
        if self.d_model % self.heads or self.heads % self.kv_heads or (self.d_model // self.heads) % 2:
            raise InvalidInput(
                f"need heads to divide d_model into even parts and kv_heads to divide heads, got "
                f"d_model={self.d_model}, heads={self.heads}, kv_heads={self.kv_heads}"
            )
        if self.kind == "opt" and self.kv_heads != self.heads:
            raise InvalidInput(
                f"opt has no grouped heads, got heads={self.heads} and kv_heads={self.kv_heads}",
                hint=f"set shape.kv_heads={self.heads}",
            )


@dataclass
class TimedModel:
    """Which model is timed."""

    path: str | None = None  # local Hugging Face folder; null: random weights of `shape`


@dataclass
class SpeedOptions:
    """Options of `kvcache/speed`."""

    model: TimedModel = field(default_factory=TimedModel)
    shape: Shape = field(default_factory=Shape)
    kv: dict[str, Any] = field(  # the policy of `batch` and `memory`: kv=NAME; its sizes give proportions
        default_factory=lambda: {"use": "h2o"}, metadata={"role": "kv_policy"}
    )
    studies: list[str] = field(default_factory=lambda: list(STUDIES))  # of recompute, batch, memory
    sizes: list[int] = field(default_factory=lambda: [256, 1024, 4096])  # cache sizes of `recompute`, tokens
    length: int = 2048  # tokens the full cache holds in `batch` and `memory`
    budget: float = 0.2  # share of `length` that kv keeps
    batch: int = 8  # rows of the full cache, and of kv in `batch`
    memory_mib: float | None = None  # weights and cache in `memory`; null: what the full cache takes at `batch`
    disk: bool = False  # in `memory` also: weights on disk by accelerate (on cuda: in CPU memory), a full cache
    recorded: bool = False  # steps as CUDA graphs, no Python between their kernels (not full dynamic, which grows)
    rounds: int = 9  # times each is measured, in turns
    steps: int = 4  # decoding steps a turn
    device: str = "cpu"  # cpu, cuda or cuda:N
    threads: int = 1  # CPU threads; with one, CPU time is measured, else the clock on the wall

    def __post_init__(self) -> None:
        unknown = sorted(set(self.studies) - set(STUDIES))
        if unknown or not self.studies:
            raise InvalidInput(f"studies holds {unknown or 'nothing'}", hint=f"choose of: {', '.join(STUDIES)}")
        if any(size < 8 for size in self.sizes) or not self.sizes:
            raise InvalidInput(f"sizes must be cache sizes of 8 tokens or more, got {self.sizes}")
        if not 0.0 < self.budget <= 1.0:
            raise InvalidInput(f"budget is a share of length, above 0 and at most 1, got {self.budget}")
        for name in ("batch", "rounds", "steps", "threads"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} must be >= 1, got {getattr(self, name)}")
        least = max(16, 2 * (self.rounds * self.steps + 1))
        if self.length < least:
            raise InvalidInput(
                f"length must be >= {least}, twice the {self.rounds} x {self.steps} steps that are timed, "
                f"got {self.length}",
                hint=f"set length={least}, or fewer rounds or steps",
            )
        if self.budget * self.length < 8:
            raise InvalidInput(f"budget {self.budget} of {self.length} tokens is below 8", hint="set a larger length")
        if self.memory_mib is not None and self.memory_mib <= 0:
            raise InvalidInput(f"memory_mib must be > 0 or null, got {self.memory_mib}")
