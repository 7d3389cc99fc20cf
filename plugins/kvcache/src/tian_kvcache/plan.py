"""Replay a keep list, e.g. the offline optimum, in a running cache: which rank goes at which token, by layer and head.

The file holds `capacity` (C) and `victim_rank`, `[L, H_kv, T]` int32: the rank evicted after token t, -1 while the cache
is not yet full. H_kv may be 1: one list for all heads.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch

from tian.errors import DataError, InvalidInput
from tian.spec import KVPolicy
from tian_kvcache.ranking import keep_all

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from tian_kvcache.policy_options import PlanOptions


def victims_of(end: NDArray[np.int64], capacity: int) -> NDArray[np.int32]:
    """Ranks to evict so that every token stays until its last row.

    Args:
        end: `[T]` the last row at which each token must be visible; at most `capacity` older tokens a row.
        capacity: C.

    Returns:
        `[T]` int32, -1 while at most C tokens are there.

    Raises:
        InvalidInput: more than C tokens must stay at some row.

    Example:
        >>> victims_of(np.array([3, 2, 3, 3]), 2).tolist()
        [-1, -1, 1, 0]
    """
    kept: list[int] = []
    out = np.full(len(end), -1, dtype=np.int32)
    for t in range(len(end)):
        kept.append(t)
        if len(kept) <= capacity:
            continue
        rank = next((r for r, j in enumerate(kept) if end[j] <= t), None)
        if rank is None:
            raise InvalidInput(f"the plan keeps more than {capacity} tokens after token {t}")
        out[t] = rank
        kept.pop(rank)
    return out


def save_plan(path: Path, victim_rank: NDArray[np.int32], capacity: int) -> None:
    """Write a keep list, `[L, H_kv, T]`, as .npz."""
    with path.open("wb") as file:
        np.savez_compressed(file, victim_rank=victim_rank.astype(np.int32), capacity=np.int64(capacity))


def load_plan(path: Path) -> tuple[NDArray[np.int32], int]:
    """Read what `save_plan` wrote, or the same as JSON.

    Raises:
        DataError: missing, unreadable, or not a keep list.
    """
    hint = "make one: tian run kvcache/regret, then kv.path=<run>/plan.npz"
    if not path.is_file():
        raise DataError(f"the plan {path} does not exist", where="kv.path", hint=hint)
    try:
        if path.suffix == ".json":
            found: Any = json.loads(path.read_text(encoding="utf-8"))
        else:
            with np.load(path, allow_pickle=False) as archive:
                found = {name: archive[name] for name in archive.files}
        rank = np.asarray(found["victim_rank"], dtype=np.int32)
        capacity = int(found["capacity"])
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise DataError(
            f"the plan {path} cannot be read: {type(error).__name__}: {error}", where="kv.path", hint=hint
        ) from None
    if rank.ndim != 3 or capacity < 1 or rank.shape[-1] < 1 or rank.min() < -1 or rank.max() > capacity:
        raise DataError(
            f"the plan {path} holds ranks of shape {list(rank.shape)} for capacity {capacity}; expected [L, H_kv, T] "
            f"within -1..{capacity}",
            where="kv.path",
            hint=hint,
        )
    return rank, capacity


class Cursor(int):
    """A capacity that knows its layer and how far the replay is: the host keeps it with the layer and hands it back.

    So the policy stays without state, and a fresh or reset cache starts over.
    """

    layer: int
    time: int | None  # token whose arrival causes the next
    home: Tensor | None  # the slots that are being replayed into

    def __new__(cls, capacity: int, *, layer: int) -> Cursor:
        """A cursor at the start."""
        made = super().__new__(cls, capacity)
        made.layer = layer
        made.time = made.home = None
        return made


class Plan(KVPolicy):
    """Evicts what a keep list says, token by token from the start of the stream. Source: ours.

    A run that was interrupted cannot go on under a plan; it starts over.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"colsum"})  # for bookkeeping by head
    positions: Literal["original", "in_cache"] = "in_cache"
    chunk_invariant: ClassVar[bool] = False

    def __init__(self, options: PlanOptions) -> None:
        self.path = Path(options.path)
        self._rank: Tensor | None = None
        self._capacity = 0

    def ranks(self, device: torch.device) -> Tensor:
        """The keep list, `[L, H_kv, T]` int32, read at first use."""
        if self._rank is None:
            found, self._capacity = load_plan(self.path)
            self._rank = torch.from_numpy(found)
        if self._rank.device != device:
            self._rank = self._rank.to(device)
        return self._rank

    def capacity(self, layer: int, n_layers: int, prompt_len: int | None) -> int | None:
        """The plan's, in every layer.

        Raises:
            DataError: the file cannot be read, or was made for another number of layers.
        """
        made_for = self.ranks(torch.device("cpu") if self._rank is None else self._rank.device).shape[0]
        if made_for not in (1, n_layers) and n_layers != 1:
            raise DataError(
                f"the plan {self.path} is for {made_for} layers, the model has {n_layers}",
                where="kv.path",
                hint="make the plan with this model",
            )
        return Cursor(self._capacity, layer=min(layer, made_for - 1))

    def _row(self, layer: int, time: int, device: torch.device) -> Tensor:
        """`[H_kv]` ranks to evict after token `time`."""
        ranks = self.ranks(device)
        if time >= ranks.shape[-1]:
            raise InvalidInput(
                f"the plan covers {ranks.shape[-1]} tokens, and the stream goes on",
                where=str(self.path),
                hint=f"read at most {ranks.shape[-1]} tokens, or make a longer plan",
            )
        return ranks[layer, :, time]

    def _check_fresh(self, rank: Tensor) -> None:
        """Asks the device, once a stream: slots that never lost a token hold rank s in slot s."""
        if not bool((rank == torch.arange(rank.shape[-1], device=rank.device)).all()):
            raise InvalidInput(
                "a plan replays from the start of a stream; this cache has been read further already",
                where=str(self.path),
                hint="start a new run instead of resuming",
            )

    def select(self, score: Tensor | None, token: Tensor, capacity: int) -> Tensor:
        """What the plan holds after the newest of `token`."""
        if token.shape[-1] <= capacity:
            return keep_all(token)
        cursor = _cursor(capacity)
        newest = int(token[0, 0, -1])
        rows = [self._row(cursor.layer, t, token.device).tolist() for t in range(capacity, newest + 1)]
        kept = []
        for head in range(len(rows[0])):
            held = list(range(capacity))
            for t, row in enumerate(rows, start=capacity):
                held.append(t)
                held.pop(row[head])
            kept.append(held)
        wanted = torch.tensor(kept, device=token.device).expand(*token.shape[:2], capacity)
        cursor.time, cursor.home = newest + 1, None
        return torch.searchsorted(token.contiguous(), wanted.contiguous())

    def victim(self, score: Tensor | None, rank: Tensor, capacity: int) -> Tensor:
        """The slot whose rank the plan names for this token."""
        cursor = _cursor(capacity)
        if cursor.home is not rank:  # other slots than last time: after a chunk, or where a stream begins
            if cursor.home is not None or cursor.time is None:
                self._check_fresh(rank)
                cursor.time = int(capacity)  # read one by one, token C is the first that makes one leave
            cursor.home = rank
        assert cursor.time is not None  # noqa: S101 - set just now or by the last call
        named = self._row(cursor.layer, cursor.time, rank.device)
        cursor.time += 1
        return (rank == named[None, :, None]).int().argmax(dim=-1)


def _cursor(capacity: int) -> Cursor:
    if not isinstance(capacity, Cursor):
        raise InvalidInput(
            "a plan needs the capacity it gave to the cache", hint="ask policy.capacity(layer, n_layers, None)"
        )
    return capacity
