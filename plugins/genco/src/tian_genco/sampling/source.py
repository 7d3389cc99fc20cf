"""A trained level generator, read from the folder of its run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from tian.errors import DataError
from tian.runs.rundir import open_existing
from tian_genco.grad.costs import Normaliser
from tian_genco.learn.match import CostHead
from tian_genco.learn.model import DesignGenerator
from tian_genco.learn.pipeline import Pipeline
from tian_genco.learn.task import costs_of
from tian_genco.levels.rules import LevelRules
from tian_genco.levels.tiles import TILES
from tian_genco.options import ZeldaOptions
from tian_genco.zelda import level_task

if TYPE_CHECKING:
    from pathlib import Path

    from tian.runs.rundir import Run
    from tian_genco.learn.generator import TileGenerator
    from tian_genco.learn.options import TrainOptions
    from tian_genco.problem import Floats

HINT = "give the folder of a finished run of genco/zelda"


@dataclass(frozen=True)
class Source:
    """What is drawn from.

    Attributes:
        net: noise to logits.
        head: logits to costs, as in the run.
        rules: of every level of this size.
    """

    net: TileGenerator
    head: CostHead
    rules: LevelRules

    def costs(self, n: int, *, seed: int) -> Floats:
        """Costs `[n, n_x]` float64 of n noise vectors."""
        return costs_of(self.net, self.head, n, seed=seed)[0]


def train_source(train: TrainOptions, run: Run) -> Source:
    """A generator of embedded levels, trained in this run as `genco/zelda` does it."""
    options = ZeldaOptions(train=train)
    pipeline = Pipeline(level_task(options.data, seed=int(run.config.seed)), options, run, seed=int(run.config.seed))
    net = pipeline.fresh()
    pipeline.plain(net, train, critic=None)
    pipeline.through(net, train, options.grad, critic=None)
    rules = LevelRules(pipeline.task.layout.height, pipeline.task.layout.width)
    return Source(net.eval(), pipeline.head(train.costs), rules)


def load_source(path: Path) -> Source:
    """Read generator and configuration of a run.

    Raises:
        DataError: no run of a level generator, or one that did not finish.
    """
    config = open_existing(path).config
    kind = OmegaConf.select(config, "train.costs")
    if not str(config.recipe).startswith("genco/") or kind is None:
        raise DataError(
            f"{path} is a run of {config.recipe}, which trains no level generator", where=str(path), hint=HINT
        )
    model = DesignGenerator.load_weights(path / "generator")
    layout = model.shape.layout
    if layout.binary or layout.tiles != len(TILES):
        raise DataError(
            f"the generator of {path} draws {layout.tiles} tiles, levels have {len(TILES)}", where=str(path), hint=HINT
        )
    rules = LevelRules(layout.height, layout.width)
    tie_seed = OmegaConf.select(config, "grad.tie_seed")
    head = CostHead(layout, str(kind), normaliser=Normaliser(rules), tie_seed=tie_seed)
    return Source(model.net.eval(), head, rules)
