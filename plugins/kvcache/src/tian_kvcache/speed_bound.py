"""What a step costs at least: bytes it must read and operations it must do, and how fast this machine does either.

With W bytes of weights, B rows, n cached tokens of kappa bytes each, one decoding step reads W + B n kappa bytes. A policy
that keeps C of n tokens can be faster by (W + B n kappa) / (W + B C kappa) and no more, on a machine that does nothing but
read. Source: ours (roofline).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from tian_kvcache.speed_timing import Clock

READ_BYTES = {"cpu": 2**28, "cuda": 2**32}  # larger than any last-level cache, and long enough to start a kernel for
SQUARE = {"cpu": 1024, "cuda": 8192}  # of the matrices whose product measures operations a second
TRIES = 5


@dataclass(frozen=True)
class Cost:
    """Bytes and operations of a model, from its real tensors.

    Attributes:
        weights: bytes read in each step: all but tables that are only looked up.
        resident: bytes of all weights.
        largest: bytes of the largest single weight.
        kappa: bytes of keys and values a token, all layers.
        products: weights that take part in a product, the head excluded.
        head: weights of the head.
        pair: operations of attention for each pair of query and key, all layers and heads.
        device: where the model is.
    """

    weights: int
    resident: int
    largest: int
    kappa: int
    products: int
    head: int
    pair: int
    device: torch.device

    @classmethod
    def of(cls, model: Any) -> Cost:
        """Read off a causal LM of transformers."""
        config = model.config
        heads = config.num_attention_heads
        size = head_size(config)
        head = model.get_output_embeddings().weight
        looked_up = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)} - {id(head)}
        used = [p for p in model.parameters() if id(p) not in looked_up]
        return cls(
            weights=sum(p.nbytes for p in used),
            resident=sum(p.nbytes for p in model.parameters()),
            largest=max(p.nbytes for p in model.parameters()),
            kappa=config.num_hidden_layers * 2 * kv_heads(config) * size * head.element_size(),
            products=sum(p.numel() for p in used if p.dim() > 1 and p is not head),
            head=head.numel(),
            pair=config.num_hidden_layers * heads * size * 4,
            device=head.device,
        )

    def step_bytes(self, batch: int, length: int) -> int:
        """Bytes one decoding step reads: W + B n kappa."""
        return self.weights + batch * length * self.kappa

    def step_flops(self, batch: int, length: int) -> int:
        """Operations of one decoding step of `batch` rows with `length` tokens each."""
        return batch * (2 * (self.products + self.head) + self.pair * length)

    def prompt_flops(self, length: int) -> int:
        """Operations of one causal pass over `length` tokens, logits of the last only."""
        return 2 * self.products * length + 2 * self.head + self.pair * length * (length + 1) // 2

    def best_ratio(self, batch: int, length: int, kept: int) -> float:
        """(W + B n kappa) / (W + B C kappa)."""
        return self.step_bytes(batch, length) / self.step_bytes(batch, kept)


@dataclass(frozen=True)
class Limits:
    """Bytes a second and operations a second this machine reaches with a plain product, on what a run uses of it."""

    bandwidth: float
    flops: float

    def seconds(self, bytes_: float, flops: float) -> float:
        """Least time for work that must read `bytes_` and do `flops`; reading and computing may overlap."""
        return max(bytes_ / self.bandwidth, flops / self.flops)


def head_size(config: Any) -> int:
    """D of a config."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def kv_heads(config: Any) -> int:
    """H_kv of a config."""
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


@torch.inference_mode()
def measure_limits(clock: Clock, *, dtype: torch.dtype, device: torch.device) -> Limits:
    """The fastest of a few tries: a matrix-vector product for reading, a matrix product for operations."""
    kind = "cuda" if device.type == "cuda" else "cpu"
    width, side = 4096, SQUARE[kind]
    wide = torch.ones(READ_BYTES[kind] // width // dtype.itemsize, width, dtype=dtype, device=device)
    vector = torch.ones(width, dtype=dtype, device=device)
    square = torch.ones(side, side, dtype=dtype, device=device)
    read = min(clock.time(lambda: wide @ vector) for _ in range(TRIES))
    compute = min(clock.time(lambda: square @ square) for _ in range(TRIES))
    return Limits(wide.nbytes / read, 2 * side**3 / compute)
