"""The cache policies of StreamingLLM and its two baselines, arXiv 2309.17453."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from tian.spec import KVPolicy

if TYPE_CHECKING:
    from torch import Tensor

    from tian_kvcache.options import StreamingOptions, WindowOptions


def keep_first_and_recent(length: int, *, sinks: int, capacity: int, like: Tensor) -> Tensor:
    """Indices of the first `sinks` and the last `capacity - sinks` of `length` tokens.

    Args:
        length: tokens at hand, >= 1.
        sinks: first tokens to keep, < capacity.
        capacity: tokens to keep in all.
        like: `[B, H_kv, length]`; gives the leading shape and the device.

    Returns:
        `[B, H_kv, min(length, capacity)]` int64, ascending.

    Source: arXiv 2309.17453, section 3.2, figure 4.

    Example:
        >>> keep_first_and_recent(6, sinks=1, capacity=3, like=torch.zeros(1, 1, 6)).tolist()
        [[[0, 4, 5]]]
    """
    if length <= capacity:
        index = torch.arange(length, device=like.device)
    else:
        first = torch.arange(sinks, device=like.device)
        last = torch.arange(length - (capacity - sinks), length, device=like.device)
        index = torch.cat([first, last])
    return index.expand(*like.shape[:2], -1)


class Full(KVPolicy):
    """Keep everything: dense attention. Source: baseline (a) of arXiv 2309.17453, figure 1."""

    needs: ClassVar[frozenset[str]] = frozenset()
    positions: Literal["original", "in_cache"] = "in_cache"  # nothing leaves, so both agree

    def capacity(self, layer: int, n_layers: int, prompt_len: int | None) -> int | None:
        """None: unbounded."""
        return None

    def select(self, score: Tensor | None, token: Tensor, capacity: int) -> Tensor:
        """All of them."""
        return torch.arange(token.shape[-1], device=token.device).expand_as(token)


class Streaming(KVPolicy):
    """First `sinks` and last `recent` tokens.

    A chunk of several tokens is attended in full before anything is dropped, as in the paper's code, so its outputs
    differ from feeding the same tokens one by one once the cache is full; the kept tokens do not.
    Source: arXiv 2309.17453, section 3.2.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    positions: Literal["original", "in_cache"] = "in_cache"
    chunk_invariant: ClassVar[bool] = False
    contiguous: ClassVar[bool] = True

    def __init__(self, options: StreamingOptions) -> None:
        self.sinks = options.sinks
        self.recent = options.recent
        self.positions = options.positions

    def capacity(self, layer: int, n_layers: int, prompt_len: int | None) -> int | None:
        """Sinks + recent, in every layer."""
        return self.sinks + self.recent

    def select(self, score: Tensor | None, token: Tensor, capacity: int) -> Tensor:
        """The first `sinks` and the newest others."""
        return keep_first_and_recent(token.shape[-1], sinks=self.sinks, capacity=capacity, like=token)

    def victim_ranks(self, capacity: int) -> tuple[int, int]:
        """The oldest token behind the sinks."""
        return self.sinks, self.sinks


class Window(Streaming):
    """Last `recent` tokens only. Source: baseline (b) of arXiv 2309.17453, figure 1."""

    def __init__(self, options: WindowOptions) -> None:
        self.sinks = 0
        self.recent = options.recent
        self.positions = options.positions
