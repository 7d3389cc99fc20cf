"""Levels from text files: one level a file, a row a line, a character a tile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from tian.errors import DataError
from tian_genco.levels.checker import grid_offence
from tian_genco.levels.tiles import NAMES, TILES, Grid

LEGEND: Mapping[str, str] = MappingProxyType(dict(zip(TILES, NAMES, strict=True)))


@dataclass(frozen=True)
class Levels:
    """Levels of one size.

    Attributes:
        grids: `[n, H, W]` uint8.
        names: n file names.
        skipped: what was wrong with each file that was left out.
    """

    grids: Grid
    names: tuple[str, ...]
    skipped: tuple[str, ...]


def load_levels(
    path: str | Path, *, legend: Mapping[str, str] = LEGEND, skip_bad: bool = False, enemy_share: float = 0.6
) -> Levels:
    """Read a file, or the files `*.txt` of a folder by name; the format of the 50 GVGAI "zelda" levels.

    Args:
        path: file or folder.
        legend: character -> name of a tile.
        skip_bad: leave out files that cannot be used, and say so in `skipped`, instead of raising.
        enemy_share: most enemies per empty cell.

    Raises:
        DataError: nothing to read; a file with an unknown character, ragged rows, another size than the first one,
            or a level that breaks a rule; with file, row and column, counted from 1. Also when every file is bad.
    """
    files = text_files(path)
    grids: list[Grid] = []
    names: list[str] = []
    skipped: list[str] = []
    for file in files:
        try:
            grid = _read(file, legend)
            problem = grid_offence(grid.tolist(), enemy_share=enemy_share)
            if problem:
                raise DataError(f"no playable level: {problem} (rows and columns from 0)", where=str(file))
            if grids and grid.shape != grids[0].shape:
                raise DataError(
                    f"{grid.shape[0]} x {grid.shape[1]} cells, {names[0]} has {grids[0].shape[0]} x {grids[0].shape[1]}",
                    where=str(file),
                    hint="keep levels of one size in one folder",
                )
        except DataError as error:
            if not skip_bad:
                raise
            skipped.append(f"{error.where}: {error.message}")
            continue
        grids.append(grid)
        names.append(file.name)
    if not grids:
        raise DataError(f"none of {len(files)} files is a level; the first: {skipped[0]}", where=str(path))
    return Levels(np.stack(grids), tuple(names), tuple(skipped))


def text_files(path: str | Path) -> list[Path]:
    """The file, or the files `*.txt` of the folder by name, its readme left out. Raises DataError when there are none."""
    path = Path(path)
    files = (
        sorted(f for f in path.glob("*.txt") if f.stem.lower() != "readme")
        if path.is_dir()
        else [path] * path.is_file()
    )
    if not files:
        what = "holds no *.txt" if path.is_dir() else "does not exist"
        raise DataError(f"{path} {what}", hint="give a text file or a folder of them")
    return files


def text_rows(file: Path, known: str) -> list[str]:
    """Its rows, all of one length and of known characters.

    Raises:
        DataError: an empty file, not text, ragged rows or an unknown character.
    """
    try:
        rows = [line.rstrip() for line in file.read_text(encoding="utf-8").rstrip().splitlines()]
    except UnicodeDecodeError as error:
        raise DataError(f"not a text file: {error.reason}", where=str(file)) from None
    if not rows:
        raise DataError("the file is empty", where=str(file))
    for r, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise DataError(f"row {r} has {len(row)} characters, row 1 has {len(rows[0])}", where=f"{file}:{r}")
        for c, char in enumerate(row, 1):
            if char not in known:
                raise DataError(
                    f"row {r}, column {c}: unknown character {char!r}",
                    where=f"{file}:{r}",
                    hint=f"known are {known}; others need a legend",
                )
    return rows


def _read(file: Path, legend: Mapping[str, str]) -> Grid:
    number = {char: NAMES.index(name) for char, name in legend.items()}
    rows = text_rows(file, "".join(legend))
    return np.array([[number[char] for char in row] for row in rows], np.uint8)
