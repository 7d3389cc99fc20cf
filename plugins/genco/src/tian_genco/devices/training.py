"""Training of a generator of devices: match the data, and do well in the simulation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from tian.training.fit import fit
from tian.training.options import OptimOptions
from tian_genco.devices.network import Network, simulated_loss
from tian_genco.learn.energy import energy_loss
from tian_genco.learn.generator import TileGenerator, straight_through
from tian_genco.learn.match import MatchTraining, batches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tian_genco.learn.features import TileFeatures
    from tian_genco.learn.pipeline import Pipeline

Designs = Callable[[Tensor], Tensor]  # logits [B, 2, H, W] -> planes [B, 2, H, W] with a gradient


class Objective(nn.Module):
    """The simulated loss of designs.

    Args:
        network: the simulation.
        targets: currents into its outputs.
        weight: beside the match with the data.
    """

    def __init__(self, network: Network, targets: Sequence[float], weight: float) -> None:
        super().__init__()
        self.network, self.targets, self.weight = network, list(targets), weight

    def forward(self, x: Tensor) -> Tensor:
        """`[B]` float64 losses of designs `x [B, H, W]`."""
        return simulated_loss(self.network(x).currents, self.targets)


class Matched(nn.Module):
    """Energy distance of generated and real features, plus the mean simulated loss of what was generated.

    Args:
        net: generator; its parameters are the only ones.
        features: fitted on the training designs.
        real: `[R, F]` features of the training designs.
        designs: logits to designs.
        objective: None for the match alone.
    """

    def __init__(
        self,
        net: TileGenerator,
        features: TileFeatures,
        real: Tensor,
        *,
        designs: Designs,
        objective: Objective | None,
    ) -> None:
        super().__init__()
        self.net, self.features, self.designs, self.objective = net, features, designs, objective
        self.real: Tensor
        self.register_buffer("real", real, persistent=False)

    def forward(self, z: Tensor, noise: Tensor, index: Tensor) -> dict[str, Tensor]:
        """`{"loss": ...}` for noise and the indices `[m]` of the training designs of this step."""
        planes = self.designs(self.net(z, noise))
        loss = energy_loss(self.features(planes), self.real[index], self.features.sizes)
        if self.objective is not None:
            # A straight-through design is 0 or 1 up to the rounding of its gradient's detour.
            loss = loss + self.objective.weight * self.objective(planes[:, 1].clamp(0, 1)).mean().to(loss)
        return {"loss": loss}


def first_stage(pipeline: Pipeline, net: TileGenerator, objective: Objective | None, *, part: str) -> None:
    """`train.plain` steps on the most likely design, in place."""
    train = pipeline.options.train
    _stage(pipeline, net, straight_through, objective, steps=train.plain, lr=train.lr, stage=1, part=part)


def second_stage(
    pipeline: Pipeline, net: TileGenerator, objective: Objective | None, *, solved: bool, part: str
) -> dict[str, Any]:
    """`train.through` steps, in place, on the solver's designs, or `postprocess` steps still on the most likely ones.

    Returns:
        Counts of the solves, empty without any.
    """
    train = pipeline.options.train
    head = pipeline.head(train.costs)
    layer = pipeline.layer(pipeline.options.grad) if solved else None

    def designs(logits: Tensor) -> Tensor:
        return straight_through(logits) if layer is None else head.layout.planes(layer(head(logits)))

    steps = train.through if solved else pipeline.options.postprocess
    _stage(pipeline, net, designs, objective, steps=steps, lr=train.lr_through, stage=2, part=part, layer=layer)
    return {} if layer is None else layer.counts()


def _stage(
    pipeline: Pipeline,
    net: TileGenerator,
    designs: Designs,
    objective: Objective | None,
    *,
    steps: int,
    lr: float,
    stage: int,
    part: str,
    layer: nn.Module | None = None,
) -> None:
    """Noise and order depend on seed and stage alone, so that arms see the same."""
    if not steps:
        return
    seed = (1009 * pipeline.seed + stage) % 2**32
    matched = Matched(net, pipeline.features, pipeline.real, designs=designs, objective=objective)
    optim = OptimOptions(lr=lr, betas=[0.9, 0.99], weight_decay=0.0, warmup=0.0, final=0.1)
    module: Any = MatchTraining(matched, optim=optim, steps=steps)
    if layer is not None:
        module.add_module("solver_layer", layer)  # its noise counter belongs into the checkpoint
    loader = batches(net, train=pipeline.options.train, n_real=len(pipeline.real), seed=seed, steps=steps)
    fit(module, loader, replace(pipeline.options.trainer, max_steps=steps), run=pipeline.run, seed=seed, part=part)
