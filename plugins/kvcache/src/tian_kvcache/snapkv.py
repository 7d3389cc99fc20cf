"""SnapKV: the last queries of the prompt vote once which prompt tokens stay for good."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch.nn.functional import max_pool1d

from tian_kvcache.heavy import H2O, given
from tian_kvcache.ranking import drop_one, keep_all, keep_highest, with_recent

if TYPE_CHECKING:
    from torch import Tensor

    from tian_kvcache.policy_options import SnapKVOptions


class SnapKV(H2O):
    """The `heavy` prompt tokens the last `window` queries look at stay; later tokens roll through the recent part.

    A prompt of at most capacity + 1 tokens casts no vote: its first `heavy` tokens stay, as in single steps.
    Source: SnapKV, arXiv 2404.14469, section 4 (votes of a window, spread by maximum pooling).

    Attributes:
        window: last queries of the prompt whose attention the host adds up.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"window_sum"})

    def __init__(self, options: SnapKVOptions) -> None:
        super().__init__(options)
        self.window = options.window
        self.kernel = options.kernel

    def select(self, score: Tensor | None, token: Tensor, capacity: int) -> Tensor:
        """The elected and the recent; after the prompt: what was elected, and the recent."""
        score, length = given(score, self), token.shape[-1]
        if length <= capacity:
            return keep_all(token)
        recent = self.recent_of(capacity)
        heavy = capacity - recent
        if length == capacity + 1:
            return drop_one(token, heavy)
        votes = max_pool1d(
            torch.nan_to_num(score[..., : length - recent], nan=0.0), self.kernel, stride=1, padding=self.kernel // 2
        )
        elected = keep_highest(votes, sinks=0, heavy=heavy)
        before = torch.arange(heavy, device=token.device).expand_as(elected)
        in_prompt = token[..., -1:] == length - 1  # nothing has been dropped yet
        return with_recent(torch.where(in_prompt, elected, before), length=length, recent=recent)

    def victim_ranks(self, capacity: int) -> tuple[int, int]:
        """The oldest of the recent part."""
        return (capacity - self.recent_of(capacity),) * 2
