"""Is a design one that the brush can draw? In plain Python, sharing no code with the program of rows."""

from __future__ import annotations

from collections.abc import Sequence


def offence(
    x: Sequence[float], *, height: int, width: int, brush: Sequence[str], contacts: Sequence[tuple[int, int]]
) -> str:
    """The first rule that is broken; empty when the design is valid.

    A design is a union of stamps just when it equals its opening: erode it by the brush, dilate what is left.

    Args:
        x: height*width numbers, row by row.
        height: rows.
        width: columns.
        brush: lines of text, `#` is painted.
        contacts: cells that must be material.
    """
    if len(x) != height * width:
        return f"{len(x)} numbers for {height} x {width} cells"
    for i, value in enumerate(x):
        if not min(abs(value), abs(value - 1)) <= 1e-6:  # this way round a NaN is refused, too
            return f"cell ({i // width},{i % width}) is {value:g}, neither 0 nor 1"
    material = {divmod(i, width) for i, value in enumerate(x) if value > 0.5}
    for cell in contacts:
        if tuple(cell) not in material:
            return f"the contact ({cell[0]},{cell[1]}) is not material"
    shape = [(a, b) for a, line in enumerate(brush) for b, mark in enumerate(line) if mark == "#"]
    corners = [(r, c) for r in range(1 - len(brush), height) for c in range(1 - len(brush[0]), width)]
    eroded = [(r, c) for r, c in corners if all((r + a, c + b) in material for a, b in shape)]
    opened = {(r + a, c + b) for r, c in eroded for a, b in shape}
    if material - opened:
        r, c = min(material - opened)
        return f"the material at ({r},{c}) is too thin for the brush"
    return ""
