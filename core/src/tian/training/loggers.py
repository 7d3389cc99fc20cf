"""Loggers of other people's formats, beside metrics.jsonl, which is always written."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger

from tian.errors import MissingDependency

if TYPE_CHECKING:
    from collections.abc import Sequence

NEEDS = {"tensorboard": ("tensorboardX", "tensorboard"), "wandb": ("wandb",)}  # one of them


class CsvRows(CSVLogger):
    """Lightning's CSV logger; it begins its file anew in every process, so it is told the earlier rows again."""

    starts_over = True


def check_loggers(names: Sequence[str]) -> None:
    """Refuse a logger whose package is not installed.

    Raises:
        MissingDependency: with the pip command.
    """
    for name in names:
        if name in NEEDS and not any(find_spec(package) for package in NEEDS[name]):
            raise MissingDependency(
                f"the logger {name!r} needs the package {NEEDS[name][0]}, which is not installed",
                where="trainer.loggers",
                hint=f"pip install 'tian-framework[{name}]'",
            )


def make_loggers(names: Sequence[str], *, folder: Path, step: int) -> list[Any]:
    """The loggers, each writing to a folder of its own name below `folder`.

    Args:
        names: of `csv`, `tensorboard`, `wandb`.
        folder: `logs/` of the run directory.
        step: the run goes on after this one; what TensorBoard has of later steps is hidden.

    Raises:
        MissingDependency: a package is not installed.
    """
    check_loggers(names)
    folder.mkdir(exist_ok=True)
    made: list[Any] = []
    for name in names:
        if name == "csv":
            made.append(CsvRows(folder, name="csv", version=""))
        elif name == "tensorboard":
            made.append(TensorBoardLogger(folder, name="tensorboard", version="", purge_step=step + 1))
        else:
            (folder / "wandb").mkdir(exist_ok=True)
            offline = "WANDB_MODE" not in os.environ  # nothing leaves the machine unless asked for
            made.append(
                WandbLogger(name=folder.parent.name, save_dir=folder / "wandb", project="tian", offline=offline)
            )
    return made
