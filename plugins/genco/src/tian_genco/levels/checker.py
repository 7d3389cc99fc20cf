"""Checks a level by flood fill, in plain Python and without a line of the model's code."""

from __future__ import annotations

from collections.abc import Sequence

_TILES = ("wall", "empty", "key", "door", "enemy1", "enemy2", "enemy3", "player")


def offence(x: Sequence[float], *, height: int, width: int, enemy_share: float) -> str:
    """The first rule a vector breaks, with row and column counted from 0; empty for a valid level.

    Args:
        x: `8*height*width` numbers, tile t of row r, column c at `t*height*width + r*width + c`.
        height: rows.
        width: columns.
        enemy_share: most enemies per empty cell.
    """
    cells = height * width
    if len(x) != len(_TILES) * cells:
        return f"{len(x)} entries, a level of {height} x {width} cells has {len(_TILES) * cells}"
    grid = []
    for r in range(height):
        row = []
        for c in range(width):
            column = [x[t * cells + r * width + c] for t in range(len(_TILES))]
            odd = [v for v in column if not min(abs(v), abs(v - 1.0)) <= 1e-6]  # also NaN
            if odd:
                return f"row {r}, column {c}: an entry is {odd[0]:g}, neither 0 nor 1"
            held = [t for t, v in enumerate(column) if v > 0.5]
            if len(held) != 1:
                names = " and ".join(_TILES[t] for t in held) or "no tile"
                return f"row {r}, column {c}: {names}; exactly one tile is due"
            row.append(held[0])
        grid.append(row)
    return grid_offence(grid, enemy_share=enemy_share)


def grid_offence(grid: Sequence[Sequence[int]], *, enemy_share: float) -> str:
    """As `offence`, for rows of tile numbers 0 to 7."""
    height, width = len(grid), len(grid[0])
    where: dict[str, list[tuple[int, int]]] = {name: [] for name in _TILES}
    for r, row in enumerate(grid):
        for c, tile in enumerate(row):
            on_border = r in (0, height - 1) or c in (0, width - 1)
            if on_border and _TILES[tile] != "wall":
                return f"row {r}, column {c}: {_TILES[tile]} on the border, which is wall"
            where[_TILES[tile]].append((r, c))
    for name in ("key", "door", "player"):
        if not where[name]:
            return f"no {name}; exactly one is due"
        if len(where[name]) > 1:
            r, c = where[name][1]
            return f"row {r}, column {c}: a second {name}; exactly one is due"
    player, key, door = where["player"][0], where["key"][0], where["door"][0]
    reached = _flood(grid, player, door)
    if key not in reached:
        return f"row {key[0]}, column {key[1]}: the player cannot reach the key without crossing the door"
    beside_door = {(door[0] + dr, door[1] + dc) for dr, dc in ((0, 1), (1, 0), (0, -1), (-1, 0))}
    if not beside_door & reached:
        return f"row {door[0]}, column {door[1]}: the player cannot reach the door"
    enemies = sorted(where["enemy1"] + where["enemy2"] + where["enemy3"])
    allowed = enemy_share * len(where["empty"])
    if len(enemies) > allowed + 1e-9:
        r, c = enemies[-1]
        return f"row {r}, column {c}: {len(enemies)} enemies for {len(where['empty'])} empty cells, allowed {allowed:g}"
    return ""


def _flood(grid: Sequence[Sequence[int]], start: tuple[int, int], shut: tuple[int, int]) -> set[tuple[int, int]]:
    """Cells reached from `start` in steps up, down, left and right, past neither walls nor `shut`."""
    seen, front = {start}, [start]
    while front:
        r, c = front.pop()
        for cell in ((r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)):
            inside = 0 <= cell[0] < len(grid) and 0 <= cell[1] < len(grid[0])
            if inside and cell not in seen and cell != shut and _TILES[grid[cell[0]][cell[1]]] != "wall":
                seen.add(cell)
                front.append(cell)
    return seen
