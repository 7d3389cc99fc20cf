"""The cheapest playable level under tile costs, enemy limit apart: a Steiner tree whose three terminals are free.

Write base_i for the cheapest of wall, empty and enemies in cell i, price_i >= 0 for what opening the cell adds, and
delta_t,i for what the player, key or door there adds. For given cells p, k, g the optimum is the sum of the bases, the
three deltas, and the price of joining p, k and g with g a leaf: a meeting cell v and three cheapest paths to it. The
search goes through triples in order of their deltas and drops those whose deltas and pairwise distances already cost
as much as the best one found.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tian_genco.levels.tiles import DOOR, EMPTY, ENEMY1, ENEMY3, KEY, PLAYER, WALL

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

OPTIMAL, TOO_MANY_ENEMIES, OUT_OF_BUDGET, NOT_FINITE = range(4)
_TILES = 8


@njit(cache=True)
def solve_rows(
    costs: Floats, height: int, width: int, share: float, max_triples: int
) -> tuple[Floats, Floats, NDArray[np.uint8], int]:
    """Solve each row of `costs [B, 8*H*W]`, contiguous float64.

    Returns:
        x `[B, 8*H*W]` float64; its cost `[B]` float64, without the enemy limit the least (a lower bound with it);
        verdicts `[B]` (`OPTIMAL`; `TOO_MANY_ENEMIES`: x breaks the limit; `OUT_OF_BUDGET`: the search was cut off, and
        `NOT_FINITE`: there is NaN or infinity among the costs, x and cost then mean nothing); how many verdicts are
        another than `OPTIMAL`.
    """
    batch, cells = len(costs), height * width
    x, objective = np.zeros(costs.shape), np.zeros(batch)
    verdict, other = np.zeros(batch, np.uint8), batch
    inside = np.empty((height - 2) * (width - 2), np.int64)
    for i in range(len(inside)):
        inside[i] = (i // (width - 2) + 1) * width + i % (width - 2) + 1
    price = np.full(cells, np.inf)  # and infinite it stays on the border
    # A row for the ways from each cell, and two for those of player and key around the door.
    dist, back = np.empty((cells + 2, cells)), np.empty((cells + 2, cells), np.int64)
    level, opened, delta = np.zeros(cells, np.uint8), np.zeros(cells, np.uint8), np.zeros((3, cells))
    for b in range(batch):
        wrong = 0
        for i in range(costs.shape[1]):
            wrong += not abs(costs[b, i]) < np.inf
        if wrong:
            verdict[b] = NOT_FINITE
            continue
        cost = costs[b].reshape(_TILES, cells)
        _price(cost, inside, price, level, opened, delta)
        p, k, g, examined = _search(inside, width, price, delta, dist, back, max_triples)
        if examined > max_triples:
            verdict[b] = OUT_OF_BUDGET
            continue
        v = _join(p, k, g, inside, width, price, dist, back)[1]
        _open(v, p, back[cells], level, opened)
        _open(v, k, back[cells + 1], level, opened)
        _open(v, g, back[g], level, opened)
        level[p], level[k], level[g] = PLAYER, KEY, DOOR
        empty = enemies = 0
        for i in range(cells):
            x[b, level[i] * cells + i] = 1.0
            objective[b] += cost[level[i], i]
            empty += level[i] == EMPTY
            enemies += ENEMY1 <= level[i] <= ENEMY3
        if enemies > share * empty + 1e-9:
            verdict[b] = TOO_MANY_ENEMIES
        else:
            other -= 1
    return x, objective, verdict, other


@njit(cache=True)
def _open(cell: int, source: int, back: Ints, level: NDArray[np.uint8], opened: NDArray[np.uint8]) -> None:
    """Open the cells from `cell` back to `source`."""
    while cell != source:
        level[cell] = opened[cell]
        cell = back[cell]


@njit(cache=True)
def _price(
    cost: Floats, inside: Ints, price: Floats, level: NDArray[np.uint8], opened: NDArray[np.uint8], delta: Floats
) -> None:
    """Fill price, cheapest tile, tile when opened, and delta of player, key and door, for the interior cells."""
    for i in inside:
        free, lowest = EMPTY, cost[EMPTY, i]
        for t in range(ENEMY1, ENEMY3 + 1):
            if cost[t, i] < lowest:
                free, lowest = t, cost[t, i]
        opened[i] = free
        level[i] = free if lowest < cost[WALL, i] else WALL
        least = min(lowest, cost[WALL, i])
        price[i] = lowest - least
        delta[0, i] = cost[PLAYER, i] - least
        delta[1, i] = cost[KEY, i] - least
        delta[2, i] = cost[DOOR, i] - least


@njit(cache=True)
def _search(
    inside: Ints, width: int, price: Floats, delta: Floats, dist: Floats, back: Ints, max_triples: int
) -> tuple[int, int, int, int]:
    """The best player, key and door, and how many triples were examined; more than `max_triples` means cut off."""
    count = len(inside)
    order, done = np.empty((3, count), np.int64), np.zeros(3, np.int64)
    order[:] = inside
    least_key = delta[1, _ranked(0, order[1], done[1:2], delta[1])]
    least_door = delta[2, _ranked(0, order[2], done[2:3], delta[2])]
    known = np.zeros(len(price), np.bool_)  # cells whose distances are there
    best, player, key, door, examined = np.inf, -1, -1, -1, 0
    for i in range(count):
        p = _ranked(i, order[0], done[0:1], delta[0])
        if delta[0, p] + least_key + least_door >= best:
            break
        if not known[p]:
            known[p] = True
            _distances(p, -1, inside, width, price, dist[p], back[p])
        for j in range(count):
            k = _ranked(j, order[1], done[1:2], delta[1])
            two = delta[0, p] + delta[1, k]
            if two + least_door >= best:
                break
            if k == p or two + least_door + dist[p, k] >= best:
                continue
            if not known[k]:
                known[k] = True
                _distances(k, -1, inside, width, price, dist[k], back[k])
            for h in range(count):
                g = _ranked(h, order[2], done[2:3], delta[2])
                three = two + delta[2, g]
                if three + dist[p, k] >= best:
                    break
                if g in (p, k):
                    continue
                # A way to the door may lead through the other terminal, which is open already.
                by_player = min(dist[p, g], dist[p, k] + dist[k, g])
                by_key = min(dist[k, g], dist[p, k] + dist[p, g])
                if three + max(by_player, by_key) >= best:
                    continue
                examined += 1
                if examined > max_triples:
                    return player, key, door, examined
                if not known[g]:
                    known[g] = True
                    _distances(g, -1, inside, width, price, dist[g], back[g])
                # First as if the way could lead through the door: a lower bound, and exact when it does not.
                met, v = _meet(p, k, g, inside, price, dist[p], dist[k], dist[g])
                if three + met >= best:
                    continue
                if _leads_through(g, v, p, back[p]) or _leads_through(g, v, k, back[k]):
                    met = _join(p, k, g, inside, width, price, dist, back)[0]
                if three + met < best:
                    best, player, key, door = three + met, p, k, g
    return player, key, door, examined


@njit(cache=True)
def _ranked(rank: int, order: Ints, done: Ints, by: Floats) -> int:
    """The cell of `rank` by ascending value, equal ones by number; `order` is sorted as far as was asked, `done [1]`.

    The search rarely asks for more than the first few.
    """
    while done[0] <= rank:
        at = done[0]
        for i in range(at + 1, len(order)):
            lower = by[order[i]] < by[order[at]]
            if lower or (by[order[i]] == by[order[at]] and order[i] < order[at]):
                at = i
        order[done[0]], order[at] = order[at], order[done[0]]
        done[0] += 1
    return int(order[rank])


@njit(cache=True)
def _leads_through(shut: int, cell: int, source: int, back: Ints) -> bool:
    """Whether the way from `cell` back to `source` meets the cell `shut`."""
    while cell not in (source, shut):
        cell = back[cell]
    return cell == shut


@njit(cache=True)
def _join(
    p: int, k: int, g: int, inside: Ints, width: int, price: Floats, dist: Floats, back: Ints
) -> tuple[float, int]:
    """Price of joining p, k and g with g a leaf, and the meeting cell; leaves the paths in the last two rows and g."""
    cells = len(price)
    _distances(p, g, inside, width, price, dist[cells], back[cells])
    _distances(k, g, inside, width, price, dist[cells + 1], back[cells + 1])
    met: tuple[float, int] = _meet(p, k, g, inside, price, dist[cells], dist[cells + 1], dist[g])
    return met


@njit(cache=True)
def _meet(
    p: int, k: int, g: int, inside: Ints, price: Floats, from_p: Floats, from_k: Floats, from_g: Floats
) -> tuple[float, int]:
    """Least price of three paths to one cell other than g, and that cell."""
    least, cell = from_k[p] + from_g[p], p
    if from_p[k] + from_g[k] < least:
        least, cell = from_p[k] + from_g[k], k
    for v in inside:
        value = from_p[v] + from_k[v] + from_g[v] + price[v]
        if value < least and v != g:
            least, cell = value, v
    return least, cell


@njit(cache=True)
def _distances(source: int, shut: int, inside: Ints, width: int, price: Floats, dist: Floats, back: Ints) -> None:
    """Cheapest sum of prices between `source` and each cell, both ends free of charge, never through `shut`.

    Sweeps to and fro until nothing changes; `back[v]` is the cell before v. It is written only when the distance
    falls, so that following it ends at the source even along cells without a price.
    """
    leave = np.empty_like(price)  # distance plus the price of the cell itself
    leave[:] = np.inf
    dist[:] = np.inf
    back[:] = -1
    dist[source] = leave[source] = 0.0
    changed, forward = True, True
    while changed:
        changed = False
        for j in range(len(inside)):
            v = inside[j] if forward else inside[len(inside) - 1 - j]
            if v == shut:
                continue
            # Minima first: which neighbour it was matters only where the distance falls, and branches are dear here.
            least = min(min(leave[v - width], leave[v - 1]), min(leave[v + 1], leave[v + width]))  # noqa: PLW3301 - no chain
            if least < dist[v]:
                dist[v] = least
                leave[v] = least + price[v]
                for u in (v - width, v - 1, v + 1, v + width):
                    if leave[u] == least:
                        back[v] = u
                        break
                changed = True
        forward = not forward
