"""Policies that several test files run on the host."""

from __future__ import annotations

from typing import ClassVar

import torch

from tian.spec import KVPolicy


class FirstAndLast(KVPolicy):
    """The first `first` and the last `last` tokens, by `select` alone; the host does not know that they are contiguous."""

    def __init__(self, first, last, positions="in_cache"):
        self.first, self.last, self.positions = first, last, positions

    def capacity(self, layer, n_layers, prompt_len):
        return self.first + self.last

    def select(self, score, token, capacity):
        n = token.shape[-1]
        index = torch.tensor([i for i in range(n) if i < self.first or i >= n - self.last])
        return index.expand(*token.shape[:2], -1)


class Contiguous(FirstAndLast):
    """The same, and the host knows it."""

    contiguous: ClassVar[bool] = True

    def victim_ranks(self, capacity):
        return self.first, self.first
