"""Dynamic program over the cells a brush has covered near its present place; compiled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tian_genco.problem import Floats

Ints = NDArray[np.int64]
_BITS = 63


@dataclass(frozen=True)
class Profile:
    """Transitions between states, alike in every column of places.

    A state is the set of covered cells that later stamps could cover again: all the past matters for. At place r of a
    column the stamp is left out or set, which covers its cells not yet covered, bits of `fresh`.

    Attributes:
        skip: `[A, S]` int32 state after leaving out, -1 beyond the last state.
        stamp: `[A, S]` int32 state after setting.
        fresh: `[A, S]` int32 bit k: the k-th cell of the brush is not yet covered.
        painted: `[K, 2]` int64 cells of the brush from its upper left corner.
    """

    skip: NDArray[np.int32]
    stamp: NDArray[np.int32]
    fresh: NDArray[np.int32]
    painted: Ints


def compile_profile(height: int, painted: Ints, *, max_states: int) -> Profile | None:
    """The transitions for columns of `height` cells; None when a place has more than `max_states` states.

    Cells of the window, as wide as the brush, are bits `column*height + row` of an integer.
    """
    tall, wide = (int(v) + 1 for v in painted.max(axis=0))
    if wide * height > _BITS:
        return None
    places = height - tall + 1
    stamp_bits = np.array([[1 << (c * height + r + p) for r, c in painted.tolist()] for p in range(places)], np.int64)
    stamps = stamp_bits.sum(axis=1)
    all_places = int(np.bitwise_or.reduce(stamps))
    # What later places reach: those further down the column, and every place of the columns to come.
    coming = 0
    for column in range(1, wide):
        coming |= (all_places << (column * height)) & ((1 << (wide * height)) - 1)
    live = np.array([int(np.bitwise_or.reduce(stamps[p + 1 :], initial=0)) | coming for p in range(places)], np.int64)

    def step(states: Ints, p: int) -> tuple[Ints, Ints]:
        left, put = states & live[p], (states | stamps[p]) & live[p]
        return (left >> height, put >> height) if p == places - 1 else (left, put)

    states = [np.zeros(1, np.int64)] + [np.zeros(0, np.int64)] * (places - 1)
    grown = True
    while grown:
        grown = False
        for p in range(places):
            after = (p + 1) % places
            more = np.unique(np.concatenate([states[after], *step(states[p], p)]))
            grown |= len(more) > len(states[after])
            states[after] = more
            if len(more) > max_states:
                return None
    size = max(map(len, states))
    skip, stamp, fresh = (np.full((places, size), -1, np.int32) for _ in range(3))
    for p, found in enumerate(states):
        known = states[(p + 1) % places]
        left, put = step(found, p)
        skip[p, : len(found)], stamp[p, : len(found)] = np.searchsorted(known, left), np.searchsorted(known, put)
        new = (found[:, None] & stamp_bits[p]) == 0
        fresh[p, : len(found)] = new @ (1 << np.arange(len(painted)))
    return Profile(skip, stamp, fresh, painted)


@njit(cache=True)
def best_designs(
    costs: Floats,
    skip: NDArray[np.int32],
    stamp: NDArray[np.int32],
    fresh: NDArray[np.int32],
    painted: Ints,
) -> NDArray[np.uint8]:
    """Cheapest union of stamps `[B, H, W]` uint8 for `costs [B, H, W]`; of equal ones always the same.

    All states are gone through at every place: keeping only those below a rising limit on what is lost was measured
    to be slower, because few can be dropped and lists are walked less quickly than arrays.
    """
    places, size = skip.shape
    layers = places * (costs.shape[2] - painted[:, 1].max())
    count = len(painted)
    price = np.zeros(1 << count)  # of the cells that a stamp covers anew
    value, following = np.empty(size), np.empty(size)
    came = np.empty((layers, size), np.int32)  # state before, times 2, plus 1 when stamped
    designs = np.zeros(costs.shape, np.uint8)
    for b in range(len(costs)):
        value[:] = np.inf
        value[0] = 0.0
        for layer in range(layers):
            column, p = layer // places, layer % places
            for k in range(count):
                cost = costs[b, p + painted[k, 0], column + painted[k, 1]]
                for low in range(1 << k):
                    price[low | (1 << k)] = price[low] + cost
            following[:] = np.inf
            back = came[layer]
            for i in range(size):
                v = value[i]
                if v == np.inf:
                    continue
                j = skip[p, i]
                if v < following[j]:
                    following[j], back[j] = v, 2 * i
                j = stamp[p, i]
                v += price[fresh[p, i]]
                if v < following[j]:
                    following[j], back[j] = v, 2 * i + 1
            value, following = following, value
        state = int(value.argmin())
        for layer in range(layers - 1, -1, -1):
            step = came[layer, state]
            if step & 1:
                for k in range(count):
                    designs[b, layer % places + painted[k, 0], layer // places + painted[k, 1]] = 1
            state = step >> 1
    return designs
