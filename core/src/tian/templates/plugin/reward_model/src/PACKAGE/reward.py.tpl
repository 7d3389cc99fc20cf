"""The reward model: how varied the words of a text are, and how long it is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

import torch

from tian.errors import InvalidInput
from tian.spec import RewardModel, TextItem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from tian.spec.reward_model import Item
    from @@package@@.options import @@Class@@Options


class @@Class@@(RewardModel):
    """Two aspects, both within 0..1.

    `diversity` is the share of words that are not a repetition; `length` the number of words relative to
    `target_words`, at most 1. A text without words scores 0 in both.
    """

    aspects: tuple[str, ...] = ("diversity", "length")
    order_sensitive: ClassVar[bool] = False

    def __init__(self, options: @@Class@@Options) -> None:
        self.options = options

    def score(self, items: Sequence[Item]) -> Tensor:
        """`[N, 2]` float32.

        Raises:
            InvalidInput: an item is not a text.
        """
        rows = [self._row(item) for item in items]
        return torch.tensor(rows, dtype=torch.float32).reshape(len(rows), len(self.aspects))

    def _row(self, item: Item) -> tuple[float, float]:
        words = _words(item)
        return len(set(words)) / max(1, len(words)), min(1.0, len(words) / self.options.target_words)

    def explain(self, item: Item) -> str | None:
        """The counts behind the scores."""
        words = _words(item)
        return f"{len(set(words))} different words of {len(words)}; {self.options.target_words} words are enough"


def _words(item: Item) -> list[str]:
    if not isinstance(item, TextItem):
        raise InvalidInput(f"only texts are scored, got a {type(item).__name__}", hint="pass tian.spec.TextItem")
    return re.findall(r"\w+", item.response.lower())
