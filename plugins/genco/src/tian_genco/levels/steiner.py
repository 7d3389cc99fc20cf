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

OPTIMAL, TOO_MANY_ENEMIES, OUT_OF_BUDGET = range(3)
_TILES = 8


def solve_rows(
    costs: Floats, height: int, width: int, share: float, max_triples: int
) -> tuple[NDArray[np.uint8], Floats, NDArray[np.uint8], Ints]:
    """Solve each row of `costs [B, 8*H*W]` float64.

    Returns:
        tiles `[B, H*W]` uint8; their cost `[B]` float64, without the enemy limit the least (a lower bound with it);
        verdicts `[B]` (`OPTIMAL`; `TOO_MANY_ENEMIES`: the tiles break the limit; `OUT_OF_BUDGET`: the search was cut
        off, tiles and cost mean nothing); triples examined `[B]`.
    """
    batch, cells = costs.shape[0], height * width
    inside = np.arange(cells).reshape(height, width)[1:-1, 1:-1].flatten()
    tiles, objective = np.zeros((batch, cells), np.uint8), np.zeros(batch)
    verdict, examined = np.zeros(batch, np.uint8), np.zeros(batch, np.int64)
    price, dist = np.full(cells, np.inf), np.empty((cells + 2, cells))
    back = np.empty((cells + 2, cells), np.int64)
    _solve_rows(costs, inside, width, share, max_triples, price, dist, back, tiles, objective, verdict, examined)
    return tiles, objective, verdict, examined


@njit(cache=True)
def _solve_rows(
    costs: Floats,
    inside: Ints,
    width: int,
    share: float,
    max_triples: int,
    price: Floats,
    dist: Floats,
    back: Ints,
    tiles: NDArray[np.uint8],
    objective: Floats,
    verdict: NDArray[np.uint8],
    examined: Ints,
) -> None:
    """Fill the last four.

    Scratch: `price [H*W]`, infinite on the border; `dist` and `back` `[H*W + 2, H*W]`, a row for the ways from each
    cell, and two for those of player and key around the door.
    """
    cells = len(price)
    opened, delta = np.zeros(cells, np.uint8), np.zeros((3, cells))
    for b in range(len(costs)):
        cost, level = costs[b].reshape(_TILES, cells), tiles[b]
        _price(cost, inside, price, level, opened, delta)
        p, k, g, examined[b] = _search(inside, width, price, delta, dist, back, max_triples)
        if examined[b] > max_triples:
            verdict[b] = OUT_OF_BUDGET
            continue
        v = _join(p, k, g, inside, width, price, dist, back)[1]
        _open(v, p, back[cells], level, opened)
        _open(v, k, back[cells + 1], level, opened)
        _open(v, g, back[g], level, opened)
        level[p], level[k], level[g] = PLAYER, KEY, DOOR
        empty = enemies = 0
        for i in range(cells):
            objective[b] += cost[level[i], i]
            empty += level[i] == EMPTY
            enemies += ENEMY1 <= level[i] <= ENEMY3
        verdict[b] = TOO_MANY_ENEMIES if enemies > share * empty + 1e-9 else OPTIMAL


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
        free = EMPTY
        for t in range(ENEMY1, ENEMY3 + 1):
            if cost[t, i] < cost[free, i]:
                free = t
        opened[i] = free
        level[i] = free if cost[free, i] < cost[WALL, i] else WALL
        least = cost[level[i], i]
        price[i] = cost[free, i] - least
        delta[0, i] = cost[PLAYER, i] - least
        delta[1, i] = cost[KEY, i] - least
        delta[2, i] = cost[DOOR, i] - least


@njit(cache=True)
def _search(
    inside: Ints, width: int, price: Floats, delta: Floats, dist: Floats, back: Ints, max_triples: int
) -> tuple[int, int, int, int]:
    """The best player, key and door, and how many triples were examined; more than `max_triples` means cut off."""
    players, keys, doors = _sorted(inside, delta[0]), _sorted(inside, delta[1]), _sorted(inside, delta[2])
    least_key, least_door = delta[1, keys[0]], delta[2, doors[0]]
    known = np.zeros(len(price), np.bool_)  # cells whose distances are there
    best, player, key, door, examined = np.inf, -1, -1, -1, 0
    for p in players:
        if delta[0, p] + least_key + least_door >= best:
            break
        if not known[p]:
            known[p] = True
            _distances(p, -1, inside, width, price, dist[p], back[p])
        for k in keys:
            two = delta[0, p] + delta[1, k]
            if two + least_door >= best:
                break
            if k == p or two + least_door + dist[p, k] >= best:
                continue
            if not known[k]:
                known[k] = True
                _distances(k, -1, inside, width, price, dist[k], back[k])
            for g in doors:
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
                # First as if the way could lead through the door: a lower bound.
                if three + _meet(p, k, g, inside, price, dist[p], dist[k], dist[g])[0] >= best:
                    continue
                value = three + _join(p, k, g, inside, width, price, dist, back)[0]
                if value < best:
                    best, player, key, door = value, p, k, g
    return player, key, door, examined


@njit(cache=True)
def _sorted(cells: Ints, by: Floats) -> Ints:
    """The cells by ascending value, equal ones in their order; far quicker to compile than a library sort."""
    out = cells.copy()
    for i in range(1, len(out)):
        cell, j = out[i], i
        while j > 0 and by[out[j - 1]] > by[cell]:
            out[j] = out[j - 1]
            j -= 1
        out[j] = cell
    return out


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
            before = v - width
            for u in (v - 1, v + 1, v + width):
                if leave[u] < leave[before]:
                    before = u
            if leave[before] < dist[v]:
                dist[v] = leave[before]
                leave[v] = dist[v] + price[v]
                back[v] = before
                changed = True
        forward = not forward
