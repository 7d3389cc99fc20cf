"""Role reward_model: scores of texts or trajectories, in named aspects, higher always better."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@dataclass(frozen=True)
class TextItem:
    """A response to a prompt, with optional context (e.g. a reader's earlier reviews)."""

    prompt: str
    response: str
    context: str = ""


@dataclass(frozen=True)
class TrajectoryItem:
    """One trajectory: `states [T, S]` and `actions [T, A]`, float32."""

    states: Tensor
    actions: Tensor


Item = TextItem | TrajectoryItem


class RewardModel(ABC):
    """Scores items. Scores do not depend on the batch (1e-5); an empty response is scored like any other.

    Attributes:
        aspects: names of the A columns.
        order_sensitive: True when `compare(a, b) + compare(b, a)` may differ from 1; the host then asks both orders.
    """

    SPEC: ClassVar[int] = 1
    aspects: tuple[str, ...] = ()
    order_sensitive: ClassVar[bool] = False

    @abstractmethod
    def score(self, items: Sequence[Item]) -> Tensor:
        """`[N, A]` float32, finite; `[0, A]` for no items. Raises InvalidInput for an item of the wrong kind."""

    def compare(self, pairs: Sequence[tuple[Item, Item]]) -> Tensor:
        """`[N, A]` float32, probability that the first wins. Default: logistic of the score gap (Bradley-Terry)."""
        first = self.score([a for a, _ in pairs])
        second = self.score([b for _, b in pairs])
        return (first - second).sigmoid()

    def explain(self, item: Item) -> str | None:
        """Why, in words, or None."""
        return None
