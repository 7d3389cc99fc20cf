"""Role model: a name, a config, a fingerprint; what it can do is the set of Protocols it satisfies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from tian.spec.solver import Instance


class Model(ABC):
    """Anything with a fingerprint.

    Construction touches no device, file or network.
    """

    SPEC: ClassVar[int] = 1

    @abstractmethod
    def fingerprint(self) -> str:
        """Hex digest of config and weights: equal exactly for models that compute the same."""


@dataclass(frozen=True)
class Site:
    """A place inside a model others can observe: kind `attention` or `mlp`, layer (0-based), width (heads or neurons)."""

    kind: str
    layer: int
    width: int


@runtime_checkable
class TorchModel(Protocol):
    """A model with weights."""

    def module(self) -> nn.Module:
        """The torch module."""

    def forward(self, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Outputs for a batch; holds `loss` (scalar) when the batch holds targets."""

    def sites(self) -> Sequence[Site]:
        """Observable places; empty when there are none."""

    def save_weights(self, folder: Path) -> None:
        """Write safetensors and a config into `folder`."""

    @classmethod
    def load_weights(cls, folder: Path) -> Self:
        """Read what `save_weights` wrote. Raises DataError when it is damaged."""


@runtime_checkable
class TextGenerator(Protocol):
    """Completes prompts, in process or over HTTP."""

    def complete(self, prompts: Sequence[str], sampling: Mapping[str, Any]) -> list[str]:
        """One completion a prompt, in order."""


@dataclass(frozen=True)
class Generation:
    """Result of `CausalLM.generate`.

    Attributes:
        ids: `[B, T+N]` int64, prompt included.
        lengths: `[B]` int64 valid tokens.
        finish: per row `eos`, `length` or `stop`.
        seconds_prefill: wall clock, s.
        seconds_decode: wall clock, s.
        kv_bytes_peak: largest cache, bytes.
        flops: estimate of the whole call.
    """

    ids: Tensor
    lengths: Tensor
    finish: tuple[str, ...]
    seconds_prefill: float
    seconds_decode: float
    kv_bytes_peak: int
    flops: float


@runtime_checkable
class CausalLM(Protocol):
    """Generates tokens under an optional cache policy."""

    def generate(
        self, ids: Tensor, *, max_new_tokens: int, kv: Any, sampling: Mapping[str, Any], seed: int
    ) -> Generation:
        """Continue `ids [B, T]` int64. Raises InvalidInput for an empty prompt or one beyond the context."""


@runtime_checkable
class TrajectoryModel(Protocol):
    """Codes of state-action trajectories. B batch, T steps, S state, A action, L codes, K codebook size."""

    def encode(self, states: Tensor, actions: Tensor) -> Tensor:
        """`states [B,T,S]`, `actions [B,T,A]` f32 -> codes `[B,L]` i64."""

    def decode(self, codes: Tensor, s0: Tensor) -> tuple[Tensor, Tensor]:
        """Codes `[B,L]` and start states `[B,S]` -> states `[B,T,S]`, actions `[B,T,A]`."""

    def prior(self, codes: Tensor, s0: Tensor) -> Tensor:
        """Logits `[B,L,K]` f32 of each code given those before it."""


@runtime_checkable
class InstanceGenerator(Protocol):
    """Maps noise to optimisation problems."""

    def instances(self, z: Tensor) -> list[Instance]:
        """`z [B,Z]` f32 -> B instances."""
