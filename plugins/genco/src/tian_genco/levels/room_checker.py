"""Checks a dungeon room by flood fill, in plain Python and without a line of the model's code."""

from __future__ import annotations

from collections.abc import Sequence

_TILES = "WFBMPOIDS"
_ROWS, _COLUMNS = 16, 11
_DOORWAYS = ({(1, 4), (1, 5), (1, 6)}, {(14, 4), (14, 5), (14, 6)}, {(7, 1), (8, 1)}, {(7, 9), (8, 9)})


def room_offence(x: Sequence[float]) -> str:
    """The first rule that `x` (9*16*11 numbers) breaks, with row and column counted from 0; empty for a valid room."""
    cells = _ROWS * _COLUMNS
    if len(x) != len(_TILES) * cells:
        return f"{len(x)} entries, a room has {len(_TILES) * cells}"
    room: dict[tuple[int, int], str] = {}
    for i in range(cells):
        column = x[i::cells]
        place = divmod(i, _COLUMNS)
        odd = [v for v in column if not min(abs(v), abs(v - 1.0)) <= 1e-6]  # also NaN
        held = [t for t, v in zip(_TILES, column, strict=True) if v > 0.5]
        if odd or len(held) != 1:
            what = f"an entry is {odd[0]:g}" if odd else f"{len(held)} tiles"
            return f"row {place[0]}, column {place[1]}: {what}; exactly one tile is due"
        room[place] = held[0]
    for (r, c), tile in room.items():
        border = r < 2 or r >= _ROWS - 2 or c < 2 or c >= _COLUMNS - 2
        in_doorway = any((r, c) in way for way in _DOORWAYS)
        if border and tile != "W" and not (tile == "D" and in_doorway):
            return f"row {r}, column {c}: {tile} in the border"
        if not border and tile == "D":
            return f"row {r}, column {c}: a door inside the room"
    for way in _DOORWAYS:
        doors = {place for place in way if room[place] == "D"}
        if doors and doors != way:
            r, c = min(way - doors)
            return f"row {r}, column {c}: a doorway is a door in part"
    walkable = {place for place, tile in room.items() if tile in "FMODS"}
    if not walkable:
        return "nothing to walk on"
    seen, front = set(), [min(walkable)]
    while front:
        r, c = front.pop()
        if (r, c) in walkable and (r, c) not in seen:
            seen.add((r, c))
            front += [(r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)]
    if seen != walkable:
        r, c = min(walkable - seen)
        return f"row {r}, column {c}: {room[r, c]} is cut off from row {min(walkable)[0]}, column {min(walkable)[1]}"
    return ""
