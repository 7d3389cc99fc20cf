"""Every playable level of 5 x 5 cells, written down once; an independent minimum over them."""

from collections import deque
from functools import cache
from itertools import permutations, product

import numpy as np

INSIDE = [(r, c) for r in (1, 2, 3) for c in (1, 2, 3)]


def reach(walls, start, shut):
    seen, queue = {start}, deque([start])
    while queue:
        r, c = queue.popleft()
        for cell in ((r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)):
            if cell in INSIDE and cell not in seen and cell not in walls and cell != shut:
                seen.add(cell)
                queue.append(cell)
    return seen


@cache
def playable():
    """`walls [V, 9]` bool and `ends [V, 3]`: player, key and door as numbers of interior cells."""
    walls, ends = [], []
    for ends_now in permutations(range(9), 3):
        p, k, g = (INSIDE[i] for i in ends_now)
        others = [i for i in range(9) if i not in ends_now]
        for pattern in product((False, True), repeat=6):
            shut = {INSIDE[i] for i, w in zip(others, pattern, strict=True) if w}
            past = reach(shut, p, g)
            if k in past and g in reach(shut, p, None):
                walls.append([INSIDE[i] in shut for i in range(9)])
                ends.append(ends_now)
    return np.array(walls), np.array(ends)


def minimum(cost, share):
    """Least cost `[8*25]` of a playable level of 5 x 5 cells with at most `share` enemies per empty cell (inf: any)."""
    walls, ends = playable()
    cost = cost.reshape(8, 5, 5)
    border = cost[0].sum() - cost[0, 1:4, 1:4].sum()
    tile = cost[:, 1:4, 1:4].reshape(8, 9)
    free = ~walls
    np.put_along_axis(free, ends, False, axis=1)
    total = border + walls @ tile[0] + free @ tile[1]
    total = total + tile[7][ends[:, 0]] + tile[2][ends[:, 1]] + tile[3][ends[:, 2]]
    gain = np.sort(np.where(free, tile[4:7].min(axis=0) - tile[1], np.inf), axis=1)[:, :6]
    gain = np.where(np.isfinite(gain), gain, 1e9)  # such a cell is no floor; never worth it
    room = free.sum(axis=1)
    best = np.full(len(total), np.inf)
    for enemies in range(7):
        allowed = enemies <= room
        if np.isfinite(share):
            allowed &= enemies <= share * (room - enemies) + 1e-9
        best = np.where(allowed, np.minimum(best, total + gain[:, :enemies].sum(axis=1)), best)
    return float(best.min())
