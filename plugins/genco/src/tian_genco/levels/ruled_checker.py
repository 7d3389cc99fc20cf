"""Evaluates the further rules of a level on its grid, in plain Python and without a line of the model's code."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from tian_genco.levels.rule_kinds import Connected, Count, Distance, Rule, Symmetric, Tile

_WALL, _DOOR, _PLAYER = 0, 3, 7
Cells = Sequence[Sequence[int]]
Place = tuple[int, int]


def rule_offence(rule: Rule, grid: Cells) -> str:
    """What breaks the rule, empty when nothing does; `grid` holds rows of tile numbers of a playable level."""
    found = _wrong(rule, grid)
    return f"rule {rule.text!r} is broken: {found}" if found else ""


def _wrong(rule: Rule, grid: Cells) -> str:
    match rule:
        case Count(terms=terms, lower=lower, upper=upper):
            total = sum(factor * sum(list(row).count(tile) for row in grid) for tile, factor in terms)
            return "" if lower - 1e-6 <= total <= upper + 1e-6 else f"the counted tiles give {total:g}"
        case Tile(row=r, column=c, tiles=tiles, equal=equal):
            return "" if (grid[r][c] in tiles) == equal else f"row {r}, column {c} holds tile {grid[r][c]}"
        case Distance(first=first, second=second, lower=lower, upper=upper, path=path):
            a, b = _find(grid, first), _find(grid, second)
            length = _steps(grid, a, door_ends=True)[b] if path else abs(a[0] - b[0]) + abs(a[1] - b[1])
            return "" if lower <= length <= upper else f"the distance is {length}"
        case Symmetric(how=how):
            return _asymmetry(grid, how)
        case Connected():
            reached = _steps(grid, _find(grid, _PLAYER), door_ends=False)
            lost = [
                (r, c) for r, row in enumerate(grid) for c, t in enumerate(row) if t != _WALL and (r, c) not in reached
            ]
            return f"row {lost[0][0]}, column {lost[0][1]} cannot be reached" if lost else ""


def _find(grid: Cells, tile: int) -> Place:
    return next((r, c) for r, row in enumerate(grid) for c, t in enumerate(row) if t == tile)


def _steps(grid: Cells, start: Place, *, door_ends: bool) -> dict[Place, int]:
    """Fewest steps from `start` to each cell that can be reached past no wall; the door may end all ways."""
    steps, queue = {start: 0}, deque([start])
    while queue:
        r, c = queue.popleft()
        if door_ends and grid[r][c] == _DOOR:
            continue
        for i, j in ((r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)):
            if (i, j) not in steps and grid[i][j] != _WALL:
                steps[i, j] = steps[r, c] + 1
                queue.append((i, j))
    return steps


def _asymmetry(grid: Cells, how: str) -> str:
    walls = [[t == _WALL for t in row] for row in grid]
    turned = walls if how == "lr" else walls[::-1]
    image = turned if how == "ud" else [row[::-1] for row in turned]
    for r, (row, other) in enumerate(zip(walls, image, strict=True)):
        for c, (wall, mirrored) in enumerate(zip(row, other, strict=True)):
            if wall != mirrored:
                return f"row {r}, column {c} and its image differ"
    return ""
