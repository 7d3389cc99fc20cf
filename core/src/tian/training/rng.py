"""Global generators as part of a checkpoint: what a step draws after a resume is what it would have drawn."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor


def generator_states() -> dict[str, Any]:
    """States of the global generators of python, numpy and torch (CPU and every CUDA device).

    Returns:
        Tensors and lists of tensors only, so that `torch.load(weights_only=True)` takes them: `python` int64 `[625]`
        and `python_gauss` float64 `[0 or 1]`; `numpy` int64 `[626]` and `numpy_gauss` float64 `[1]`; `torch` uint8;
        `cuda` a list of uint8.
    """
    _, words, gauss = random.getstate()
    _, keys, pos, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": torch.tensor(words, dtype=torch.int64),
        "python_gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
        "numpy": torch.tensor([*map(int, keys), pos, has_gauss], dtype=torch.int64),
        "numpy_gauss": torch.tensor([cached], dtype=torch.float64),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_generator_states(states: dict[str, Any]) -> None:
    """Put the states of `generator_states` back; CUDA devices beyond those of now are left out."""
    gauss: Tensor = states["python_gauss"]
    random.setstate((3, tuple(states["python"].tolist()), float(gauss[0]) if gauss.numel() else None))
    *keys, pos, has_gauss = states["numpy"].tolist()
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), pos, has_gauss, float(states["numpy_gauss"][0])))
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available():
        for device, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(state, device)


class RngState(Callback):
    """Keeps the generators' states in checkpoints.

    Setting up a trainer and its start hooks may draw numbers that the uninterrupted run drew only once, so the
    states are put back as late as possible: when the first batch is about to be made.
    """

    def __init__(self) -> None:
        self._loaded: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """The states at this moment, the end of a step when it is a checkpoint that asks."""
        return generator_states()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until `restore`."""
        self._loaded = state_dict

    def restore(self) -> None:
        """Put the loaded states back, once."""
        if self._loaded is not None:
            set_generator_states(self._loaded)
            self._loaded = None
