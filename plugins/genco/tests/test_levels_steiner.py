"""The search answers as one that looks at every triple in order would, ties included."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tian_genco.levels import tiles
from tian_genco.levels.steiner import NOT_FINITE, OPTIMAL, _ranked, solve_rows


@given(values=st.lists(st.integers(0, 4), min_size=1, max_size=12), asked=st.lists(st.integers(0, 11), max_size=12))
def test_ranks_are_those_of_a_stable_sort_in_whatever_order_they_are_asked(values, asked):
    by = np.array(values, np.float64)
    order, done = np.arange(len(by)), np.zeros(1, np.int64)
    furthest = 0
    for rank in [a for a in asked if a < len(by)]:
        furthest = max(furthest, rank + 1)
        assert _ranked(rank, order, done, by) == np.argsort(by, kind="stable")[rank]
        assert done[0] == furthest


def distances(price, source, shut):
    """Cheapest sum of prices of the cells between, by relaxing until nothing changes; None is shut."""
    dist = dict.fromkeys(price, np.inf)
    dist[source] = 0.0
    for _ in price:
        for r, c in price:
            for u in ((r - 1, c), (r, c - 1), (r, c + 1), (r + 1, c)):
                if u in price and shut not in (u, (r, c)):
                    dist[r, c] = min(dist[r, c], dist[u] + (price[u] if u != source else 0.0))
    return dist


def first_best(cost):
    """Player, key and door of the first triple that no later one beats, in the order of their deltas, one by one."""
    rows, columns = cost.shape[1:]
    cells = [(r, c) for r in range(1, rows - 1) for c in range(1, columns - 1)]
    free = {v: min(cost[t][v] for t in (tiles.EMPTY, *tiles.ENEMIES)) for v in cells}
    base = {v: min(free[v], cost[tiles.WALL][v]) for v in cells}
    price = {v: free[v] - base[v] for v in cells}
    delta = {t: {v: cost[t][v] - base[v] for v in cells} for t in (tiles.PLAYER, tiles.KEY, tiles.DOOR)}
    players, keys, doors = (sorted(cells, key=delta[t].get) for t in (tiles.PLAYER, tiles.KEY, tiles.DOOR))
    ways = {(v, shut): distances(price, v, shut) for v in cells for shut in (None, *cells) if v != shut}
    best, found = np.inf, None
    for p in players:
        for k in keys:
            for g in doors:
                if len({p, k, g}) < 3:
                    continue
                meets = [v for v in cells if v != g]
                join = min(
                    ways[p, g][v] + ways[k, g][v] + ways[g, None][v] + (0 if v in (p, k) else price[v]) for v in meets
                )
                value = delta[tiles.PLAYER][p] + delta[tiles.KEY][k] + delta[tiles.DOOR][g] + join
                if value < best:
                    best, found = value, (p, k, g)
    return found


@pytest.mark.parametrize(("height", "width"), [(3, 7), (5, 5), (4, 6)])
def test_of_equal_triples_the_first_in_order_is_chosen(height, width):
    costs = np.random.default_rng(0).integers(0, 4, size=(12, 8 * height * width)).astype(np.float64)  # sums are exact
    x, _, verdict, _ = solve_rows(costs, height, width, np.inf, 10**6)
    assert (verdict == OPTIMAL).all()
    for cost, grid in zip(costs.reshape(-1, 8, height, width), tiles.to_grid(x, height, width), strict=True):
        for tile, cell in zip((tiles.PLAYER, tiles.KEY, tiles.DOOR), first_best(cost), strict=True):
            assert grid[cell] == tile


def test_a_row_that_is_not_finite_leaves_the_others_as_they_are():
    costs = np.random.default_rng(1).normal(size=(4, 200))
    whole = solve_rows(costs, 5, 5, np.inf, 10**6)
    for value in (np.nan, np.inf, -np.inf):
        broken = costs.copy()
        broken[2, 199] = value
        x, objective, verdict, other = solve_rows(broken, 5, 5, np.inf, 10**6)
        assert verdict.tolist() == [OPTIMAL, OPTIMAL, NOT_FINITE, OPTIMAL]
        assert other == 1
        keep = [0, 1, 3]
        assert (x[keep] == whole[0][keep]).all()
        assert (objective[keep] == whole[1][keep]).all()
