"""Dungeon rooms of the Video Game Level Corpus: files `tlozN_M.txt`, rooms of 16 x 11 characters on a lattice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tian.errors import DataError
from tian_genco.levels.files import text_files, text_rows
from tian_genco.levels.tiles import Grid

ROOM_TILES = "WFBMPOIDS"
ROOM_NAMES = ("wall", "floor", "block", "monster", "element", "element-floor", "element-block", "door", "stair")
VOID = "-"
HEIGHT, WIDTH = 16, 11


@dataclass(frozen=True)
class Rooms:
    """Rooms of one or more dungeons.

    Attributes:
        grids: `[n, 16, 11]` uint8.
        incomplete: how many places of the lattice were left out since they are void in part; nobody enters most of them.
    """

    grids: Grid
    incomplete: int


def load_rooms(path: str | Path) -> Rooms:
    """The rooms of a file, or of the files `*.txt` of a folder, in reading order.

    Places of the lattice that are void, or void in part, are passed over.

    Raises:
        DataError: nothing to read, ragged rows, an unknown character, a file that is no multiple of a room, or no room
            at all; with file, row and column, counted from 1.
    """
    rooms, incomplete = [], 0
    for file in text_files(path):
        lines = text_rows(file, ROOM_TILES + VOID)
        if len(lines) % HEIGHT or len(lines[0]) % WIDTH:
            raise DataError(
                f"{len(lines)} rows of {len(lines[0])} characters are no lattice of rooms of {HEIGHT} x {WIDTH}",
                where=str(file),
            )
        for r in range(0, len(lines), HEIGHT):
            for c in range(0, len(lines[0]), WIDTH):
                block = "".join(line[c : c + WIDTH] for line in lines[r : r + HEIGHT])
                if VOID not in block:
                    rooms.append([ROOM_TILES.index(char) for char in block])
                elif set(block) != {VOID}:
                    incomplete += 1
    if not rooms:
        raise DataError("no room, all is void", where=str(path))
    return Rooms(np.array(rooms, np.uint8).reshape(-1, HEIGHT, WIDTH), incomplete)
