"""Data order that survives a restart: batch i is a pure function of the seed and i."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


class StepLoader:
    """Iterable over `steps` batches, `batch(i)` for i = 0, 1, ...; Lightning stores its position in checkpoints.

    Args:
        batch: pure function from the step number to a dict of tensors; draws its randomness from (seed, step).
        steps: how many batches there are.
    """

    def __init__(self, batch: Callable[[int], dict[str, Tensor]], *, steps: int) -> None:
        self._batch = batch
        self._steps = steps
        self._next = 0

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        while self._next < self._steps:
            i = self._next
            self._next += 1  # before the yield: a checkpoint taken in step i continues with i + 1
            yield self._batch(i)
        self._next = 0

    def state_dict(self) -> dict[str, Any]:
        """`{"next": step}`."""
        return {"next": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at `state["next"]`."""
        self._next = int(state["next"])
