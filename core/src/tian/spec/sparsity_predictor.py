"""Role sparsity_predictor: which heads or neurons matter for this input."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

    from tian.spec.model import Site


@dataclass(frozen=True)
class Trace:
    """Observations at a site: inputs `x [N, d]` and magnitudes `[N, M]`, float32; N tokens, M heads or neurons."""

    site: Site
    x: Tensor
    magnitude: Tensor


@dataclass(frozen=True)
class FitReport:
    """Held-out recall of the large units per site, 0..1."""

    recall: Mapping[str, float]


@dataclass(frozen=True)
class Cost:
    """What the predictor itself costs per call: bytes moved and floating-point operations."""

    bytes_: int
    flops: int


class SparsityPredictor(ABC):
    """Predicts the k largest units of a site from an earlier stream.

    Attributes:
        site_kinds: of {`neuron`, `head`}.
        source: stream it reads: `mlp_in`, `attn_in`, `prev_mlp_in` or `prev_attn_in`; serving on another is refused.
    """

    SPEC: ClassVar[int] = 1
    site_kinds: ClassVar[frozenset[str]] = frozenset()
    source: str = "mlp_in"

    @abstractmethod
    def fit(self, traces: Iterable[Trace], *, seed: int) -> FitReport:
        """Learn from traces."""

    @abstractmethod
    def select(self, site: Site, x: Tensor, k: int) -> Tensor:
        """`x [N, d]` -> `[N, k]` int32 unit indices, ascending, -1 padding at the end; no host sync.

        Raises:
            NotFitted: before `fit`, or for a site that was not fitted.
            InvalidInput: k < 1.
        """

    @abstractmethod
    def cost(self, site: Site, n: int) -> Cost:
        """Cost of `select` for n tokens; part of every speed-up that is quoted."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Weights, with the base model's fingerprint, the source and the layers."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore. Raises InvalidInput when fingerprint, source or layers differ."""
