"""Recipe `genco/zelda`: train a level generator through a solver, and draw levels that are all playable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tian.config.compose import options_of
from tian.errors import DataError
from tian_genco.learn.designs import Layout
from tian_genco.learn.pipeline import generate
from tian_genco.learn.task import Task
from tian_genco.levels.draw import gallery_svg
from tian_genco.levels.files import load_levels
from tian_genco.levels.make import VERSION, make_levels
from tian_genco.levels.options import LevelSpec
from tian_genco.levels.room import RoomRules
from tian_genco.levels.rules import LevelRules
from tian_genco.levels.tiles import DOOR, EMPTY, ENEMY1, ENEMY3, KEY, PLAYER, TILES, WALL
from tian_genco.levels.vglc import HEIGHT, ROOM_TILES, WIDTH, load_rooms
from tian_genco.sampling.draw import Drawn
from tian_genco.sampling.record import save_levels
from tian_genco.solving.diverse import Extended

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tian.runs.rundir import Run
    from tian.spec import SolutionBatch
    from tian.types import Measurement
    from tian_genco.options import LevelData, ZeldaOptions

# Tiles of rooms (wall, floor, block, monster, element, element-floor, element-block, door, stair) drawn as those of levels.
DRAWN_AS = np.array([WALL, EMPTY, WALL, ENEMY1, ENEMY3, EMPTY, WALL, DOOR, KEY], np.uint8)
REFERENCE_SEED = 2**30  # offset: reference levels are none of those learned from


def zelda(cfg: Any, run: Run) -> list[Measurement]:
    """See `ZeldaOptions`. Training goes on from its checkpoint when the run is resumed.

    Raises:
        DataError: unusable levels. InvalidInput: a gradient that does not apply. RunError: too many failed solves.
    """
    options: ZeldaOptions = options_of(cfg)
    torch.set_num_threads(options.threads)
    return generate(level_task(options.data, seed=int(cfg.seed)), options, run=run)


def level_task(data: LevelData, *, seed: int) -> Task:
    """Levels from files, or made on the spot.

    Raises:
        DataError: fewer than two usable levels.
    """
    if data.preset == "vglc-room":
        return room_task(Path(str(data.path)))
    if data.path is None:
        spec = LevelSpec(height=data.height, width=data.width)
        train = make_levels(data.train, seed=seed, spec=spec)
        reference = make_levels(data.reference, seed=REFERENCE_SEED + seed, spec=spec)
        label = f"levels made on the spot (synthetic, generator version {VERSION}, {data.height} x {data.width})"
    else:
        loaded = load_levels(Path(data.path), skip_bad=data.skip_bad)
        train = reference = loaded.grids
        skipped = f", {len(loaded.skipped)} skipped" if loaded.skipped else ""
        label = f"{len(train)} levels from {Path(data.path).name}{skipped}, which are the reference as well"
    if len(train) < 2:
        raise DataError(f"{len(train)} usable level is too few to learn from", where=str(data.path), hint="give more")
    height, width = train.shape[1:]
    rules = LevelRules(height, width)

    def record(folder: Path, costs: NDArray[np.float64], batch: SolutionBatch) -> None:
        save_levels(folder, Drawn(costs, batch, (Extended.of(rules),) * len(batch)), rules)

    return Task(
        problem=rules,
        layout=Layout(len(TILES), height, width),
        train=np.asarray(train),
        reference=np.asarray(reference),
        unique=[KEY, DOOR, PLAYER],
        label=label,
        title="levels",
        record=record,
        gallery=lambda grids, captions: gallery_svg(
            grids, columns=4, captions=captions, alt=f"{len(grids)} levels, drawn as tiles"
        ),
    )


def room_task(path: Path) -> Task:
    """Dungeon rooms of the VGLC; they are the reference as well.

    Raises:
        DataError: no rooms, or fewer than two that obey the rules of a room.
    """
    rules, layout = RoomRules(), Layout(len(ROOM_TILES), HEIGHT, WIDTH)
    rooms = load_rooms(path)
    good = rooms.grids[[not rules.broken(x) for x in layout.x(rooms.grids)]]
    if len(good) < 2:
        raise DataError(
            f"{len(good)} of {len(rooms.grids)} rooms obey the rules of a room, too few to learn from", where=str(path)
        )
    label = (
        f"{len(good)} rooms from {path.name}; left out: {len(rooms.grids) - len(good)} that break the rules of a room, "
        f"{rooms.incomplete} that are void in part"
    )
    return Task(
        problem=rules,
        layout=layout,
        train=good,
        reference=good,
        unique=[],
        label=label,
        title="rooms",
        gallery=lambda grids, captions: gallery_svg(
            DRAWN_AS[grids], columns=6, captions=captions, alt=f"{len(grids)} rooms, drawn with the tiles of levels"
        ),
    )
