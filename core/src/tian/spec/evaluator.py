"""Role evaluator: samples in, measurements with intervals out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tian.types import Measurement


@dataclass(frozen=True)
class Sample:
    """One sample with an id that never changes, so that a resumed evaluation skips what it has."""

    id: str
    data: Any


class Evaluator(ABC):
    """Measures a subject sample by sample."""

    SPEC: ClassVar[int] = 1

    @abstractmethod
    def samples(self, data: Any, *, limit: int | None, seed: int) -> Iterable[Sample]:
        """The samples, in an order that depends on the seed alone; at most `limit`. Raises DataError."""

    @abstractmethod
    def measure(self, subject: Any, sample: Sample) -> Mapping[str, float]:
        """One sample's numbers, independent of the other samples."""

    @abstractmethod
    def aggregate(self, rows: Sequence[Mapping[str, float]]) -> list[Measurement]:
        """Measurements with intervals over all rows, whatever their order; a list for no rows too."""
