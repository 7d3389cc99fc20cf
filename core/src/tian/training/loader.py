"""Data order that survives a restart: batch i is a pure function of the seed and i."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from tian.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor

Batch = dict[str, Any]


class StepLoader:
    """Iterable over `steps` batches, `batch(i)` for i = 0, 1, ...; Lightning stores its position in checkpoints.

    Args:
        batch: pure function from the step number to a dict of tensors `[B, ...]`; draws its randomness from
            (seed, step). It may also read the module that is trained (rollouts of a policy), as long as all it reads
            is in the module's `state_dict` or in the global generators of python, numpy and torch.
        steps: how many batches there are.
    """

    def __init__(self, batch: Callable[[int], Batch], *, steps: int) -> None:
        self._batch = batch
        self._steps = steps
        self._next = 0

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[Batch]:
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

    def for_rank(self, rank: int, world: int, *, before: Callable[[], None]) -> StepLoader:
        """A loader of its own, from batch 0, of this process's rows.

        Args:
            rank: number of this process.
            world: number of processes; each takes the rows `rank, rank + world, ...` of the global batch, so that
                their averaged gradient is the gradient of the whole batch.
            before: called before every batch is made.
        """

        def make(i: int) -> Batch:
            before()
            batch = self._batch(i)
            return batch if world == 1 else _rows(batch, rank, world)

        return StepLoader(make, steps=self._steps)


def _rows(batch: Batch, rank: int, world: int) -> Batch:
    """Every `world`-th row of each tensor that has rows, from row `rank`."""

    def part(name: str, value: Tensor) -> Tensor:
        if value.shape[0] % world:
            raise InvalidInput(
                f"{name!r} has {value.shape[0]} rows, which {world} processes cannot share equally",
                where="trainer.devices",
                hint=f"make the batch a multiple of {world}, or change trainer.devices",
            )
        return value[rank::world]

    return {k: part(k, v) if getattr(v, "ndim", 0) else v for k, v in batch.items()}
