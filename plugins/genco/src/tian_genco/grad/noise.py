"""Noise that a resumed training draws again: every draw depends on a seed and on a counted step, on nothing else."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

NoiseName = Literal["normal", "gumbel"]


def generator(seed: int, step: int) -> np.random.Generator:
    """A generator of its own for step `step` of the stream `seed`; both >= 0."""
    return np.random.default_rng([seed, step])


def draw(name: NoiseName, shape: tuple[int, ...], source: np.random.Generator) -> Tensor:
    """float64 noise z to be added to costs: standard normal, or *minus* standard Gumbel.

    With minus Gumbel noise the cheapest of n items is drawn from softmax(-c) (the Gumbel trick, minimising).
    """
    if name == "normal":
        return torch.from_numpy(source.standard_normal(shape))
    return torch.from_numpy(np.log(source.standard_exponential(shape)))


def score(name: NoiseName, z: Tensor) -> Tensor:
    """-d log p(z) / dz by entry: z for the normal, exp(z) - 1 for minus Gumbel; of mean 0."""
    return z if name == "normal" else z.exp() - 1


def sum_of_gamma(shape: tuple[int, ...], source: np.random.Generator, *, k: int, terms: int = 10) -> Tensor:
    """float64 noise g whose sums over k entries are nearly standard Gumbel.

    g = (sum_{i=1..s} Gamma(1/k, k/i) - log s) / k, shape and scale (Niepert, Minervini, Franceschi 2021, section 4).
    """
    total = np.zeros(shape)
    for i in range(1, terms + 1):
        total += source.standard_gamma(1.0 / k, shape) * (k / i)
    return torch.from_numpy((total - math.log(terms)) / k)
