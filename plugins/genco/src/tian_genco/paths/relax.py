"""Distances and paths of a batch of grids in torch, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from tian.errors import InvalidInput

INF = float("inf")


@torch.no_grad()
def shortest_paths(costs: Tensor) -> Tensor:
    """The cheapest path from the top left to the bottom right cell of each map, on the device of the costs.

    For use inside training. The path carries no gradient, and none is needed for the path's cost, whose gradient is
    the path itself (Danskin): the loss is `(costs * shortest_paths(costs)).sum()`.

    Args:
        costs: `[B, H, W]` floating point, >= 0 and finite. Cells below `least_cost` count as that much.

    Returns:
        `[B, H, W]` zeros and ones, device and type of `costs`.

    Raises:
        InvalidInput: a cost is negative or not finite.

    Example:
        >>> shortest_paths(torch.tensor([[[1.0, 9.0, 9.0], [9.0, 2.0, 1.0]]])).tolist()
        [[[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]]
    """
    _check(costs)
    return trace(min_plus(torch.maximum(costs, least_cost(costs)[:, None, None])))


def least_cost(costs: Tensor) -> Tensor:
    """What a cell must cost to show in every distance of its map, despite rounding.

    No distance is above max(H, W) cells of the dearest kind, so half an ulp of it is below eps/2 * max(H, W) * dearest.

    Args:
        costs: `[B, H, W]` floating point, >= 0 and finite.

    Returns:
        `[B]`, device and type of `costs`; at most some 1e-13 (float64) or 1e-4 (float32) of the dearest cell.
    """
    info = torch.finfo(costs.dtype)
    return (costs.amax(dim=(1, 2)) * (2 * info.eps * max(costs.shape[1:]))).clamp_min(info.tiny)


@torch.no_grad()
def min_plus(costs: Tensor) -> Tensor:
    """Cost of the cheapest path from the top left cell to each cell, both ends included.

    Every step relaxes all cells of all maps at once: `d(v) = min(d(v), min over the 8 neighbours d(u) + c(v))`, until
    nothing changes. Rounding included, the result is the least sum over all paths, added from the start on: the same
    number in whatever order cells are relaxed.

    Args:
        costs: `[B, H, W]` floating point, >= 0 and finite.

    Returns:
        `[B, H, W]`, device and type of `costs`.

    Raises:
        InvalidInput: a cost is negative or not finite.
    """
    _check(costs)
    B, H, W = costs.shape
    c = costs.permute(1, 2, 0).contiguous()  # maps innermost, for the long contiguous runs
    padded = c.new_full((H + 2, W + 2, B), INF)
    d = padded[1:-1, 1:-1]
    if B:
        d[0, 0] = c[0, 0]
    steps = 0
    while True:
        rows = torch.minimum(torch.minimum(padded[:-2], padded[2:]), padded[1:-1])
        best = torch.minimum(torch.minimum(rows[:, :-2], rows[:, 2:]), rows[:, 1:-1])
        new = torch.minimum(best.add_(c), d)
        steps += 1
        # The far corner takes so many steps at least; earlier there is no need to wait for the device.
        if steps >= max(H, W) and torch.equal(new, d):
            return new.permute(2, 0, 1).contiguous()
        d.copy_(new)


@torch.no_grad()
def trace(distance: Tensor) -> Tensor:
    """The paths to the bottom right cells, walked back to the neighbour with the smallest distance.

    Among equals the first in reading order is taken (above before left before right before below).

    Args:
        distance: `[B, H, W]` from `min_plus`, of costs that are nowhere below `least_cost`.

    Returns:
        `[B, H, W]` zeros and ones, device and type of `distance`.

    Raises:
        InvalidInput: a cost was below `least_cost`, so that the way back goes in circles.
    """
    B, H, W = distance.shape
    wide = W + 2
    padded = distance.new_full((B, H + 2, wide), INF)
    padded[:, 1:-1, 1:-1] = distance
    padded = padded.view(B, (H + 2) * wide)
    moves = [dr * wide + dc for dr in (-1, 0, 1) for dc in (-1, 0, 1) if dr or dc]
    around = torch.tensor(moves, device=distance.device)
    start = wide + 1
    here = torch.full((B, 1), H * wide + W, device=distance.device)
    path = torch.zeros_like(padded)
    path.scatter_(1, here, 1.0)
    for _ in range(H * W):
        if bool((here == start).all()):
            return path.view(B, H + 2, wide)[:, 1:-1, 1:-1].contiguous()
        near = here + around
        step = padded.gather(1, near).argmin(dim=1, keepdim=True)
        here = torch.where(here == start, here, near.gather(1, step))
        path.scatter_(1, here, 1.0)
    raise InvalidInput(
        "the way back from a goal goes in circles", hint="lift the costs to least_cost, see shortest_paths"
    )


def _check(costs: Tensor) -> None:
    if not bool(((costs >= 0) & (costs < INF)).all()):
        raise InvalidInput("shortest paths need finite costs >= 0", hint="make them so, e.g. by softplus")
