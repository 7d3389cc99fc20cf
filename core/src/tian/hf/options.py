"""Options of `lm/train` and the places that name a model or a text; imported at compose time, hence no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tian.errors import InvalidInput
from tian.training.options import OptimOptions, TrainerOptions


@dataclass
class ModelSource:
    """Which causal LM to use."""

    path: str | None = (
        None  # local Hugging Face folder (config, safetensors, tokenizer); null: the small LM that ships with tian
    )


@dataclass
class TextSource:
    """Which text to read: a file of the user's, or the sources of installed packages."""

    path: str | None = None  # UTF-8 text file, or a folder of .txt books; null: the Python sources of `packages`
    packages: list[str] = field(
        default_factory=list
    )  # installed packages (or pkg.sub) whose .py files are the text, in this order

    def __post_init__(self) -> None:
        if self.path is None and not self.packages:
            raise InvalidInput(
                "text.path is null and text.packages is empty: no text to read", hint="set text.path=FILE"
            )


@dataclass
class LMOptions:
    """Shape of the model: Llama architecture (RMSNorm, rotary positions, SwiGLU), tied embeddings."""

    vocab_size: int = 1024  # byte-level BPE vocabulary, the dedicated first token included
    d_model: int = 128  # residual width
    layers: int = 4  # decoder layers
    heads: int = 4  # query heads
    kv_heads: int = 4  # key/value heads; fewer than `heads` gives grouped-query attention
    ffn: int = 384  # width of the gated MLP
    context: int = 128  # training length in tokens, the first token included
    first: Literal["token", "none"] = "token"  # what every text begins with: a dedicated token that is kept, or nothing
    sink: Literal["none", "softmax1", "scalar"] = (
        "none"  # logit without a value in each softmax: none, fixed at 0 (softmax1), or one trained per head (scalar)
    )

    def __post_init__(self) -> None:
        if self.d_model % self.heads or self.heads % self.kv_heads:
            raise InvalidInput(
                f"need heads to divide d_model and kv_heads to divide heads, got d_model={self.d_model}, "
                f"heads={self.heads}, kv_heads={self.kv_heads}"
            )
        if (self.d_model // self.heads) % 2:
            raise InvalidInput(f"rotary positions need an even head size, got {self.d_model // self.heads}")
        if self.vocab_size < 257:
            raise InvalidInput(f"vocab_size must hold 256 bytes and the first token (>= 257), got {self.vocab_size}")


@dataclass
class TrainOptions:
    """Options of `lm/train`."""

    lm: LMOptions = field(default_factory=LMOptions)
    text: TextSource = field(default_factory=lambda: TextSource(packages=["rich"]))
    held_out: TextSource = field(default_factory=lambda: TextSource(packages=["networkx"]))
    optim: OptimOptions = field(default_factory=OptimOptions)
    trainer: TrainerOptions = field(default_factory=TrainerOptions)
    batch: int = 16  # sequences per step
    copy_share: float = 0.3  # share of sequences in which a segment is overwritten by an earlier one
    tokenizer_bytes: int = 3_000_000  # how much of the text the BPE merges are learned from, bytes
    eval_tokens: int = 32_768  # held-out tokens scored at the end
    threads: int = 1  # CPU threads; the order of sums, and with it every later digit, depends on them

    def __post_init__(self) -> None:
        if not 0.0 <= self.copy_share <= 1.0:
            raise InvalidInput(f"copy_share must be within 0..1, got {self.copy_share}")
        if self.threads < 1:
            raise InvalidInput(f"threads must be >= 1, got {self.threads}")
        if self.batch < 1:
            raise InvalidInput(f"batch must be >= 1, got {self.batch}")
