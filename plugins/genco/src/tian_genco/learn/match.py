"""Training a generator to match data: first on its most likely tiles, then through the solver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from tian.training.loader import StepLoader
from tian.training.module import TianModule
from tian_genco.grad.costs import ties
from tian_genco.learn.energy import energy_loss, witness_loss
from tian_genco.learn.features import TileFeatures

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from tian_genco.grad.costs import Normaliser
    from tian_genco.learn.designs import Layout
    from tian_genco.learn.generator import TileGenerator
    from tian_genco.learn.options import TrainOptions

CHUNK = 512  # designs whose features are computed at a time


class CostHead(nn.Module):
    """Logits -> costs, the likelier a tile the cheaper.

    Args:
        layout: of the designs.
        kind: `logit` or `softmax`.
        normaliser: brings costs to the form the solver is given.
        tie_seed: of the field that breaks ties; None for none.
    """

    def __init__(self, layout: Layout, kind: str, *, normaliser: Normaliser, tie_seed: int | None) -> None:
        super().__init__()
        self.layout, self.kind, self.normaliser = layout, kind, normaliser
        self.ties = np.zeros(layout.n) if tie_seed is None else ties(layout.n, tie_seed)

    def forward(self, logits: Tensor) -> Tensor:
        """`[B, T, H, W]` -> `[B, n]`, for a `SolverLayer`, which normalises and breaks ties itself."""
        return self.layout.costs(logits.softmax(dim=1) if self.kind == "softmax" else logits)

    @torch.no_grad()
    def final(self, logits: Tensor) -> NDArray[np.float64]:
        """The same normalised and with ties broken, `[B, n]` float64: what a solver without a layer is given."""
        found: NDArray[np.float64] = self.normaliser(self(logits)).numpy() + self.ties
        return found


class Matching(nn.Module):
    """Loss between generated and real features, with the designs either plain or from the solver.

    Args:
        net: generator; its parameters are the only ones.
        features: fitted on the training designs.
        real: `[R, F]` features of the training designs.
        designs: logits `[B, T, H, W]` -> designs `[B, T, H, W]` with a gradient.
        penalty: as `designs`, whose result is only asked how much probability lies elsewhere; None for no penalty.
        weight: of the penalty.
        frozen: `[k, F]` features of fixed fakes for the fixed witness; None for the energy distance.
    """

    def __init__(
        self,
        net: TileGenerator,
        features: TileFeatures,
        real: Tensor,
        *,
        designs: Callable[[Tensor], Tensor],
        penalty: Callable[[Tensor], Tensor] | None = None,
        weight: float = 0.0,
        frozen: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.net, self.features = net, features
        self.designs, self.penalty, self.weight = designs, penalty, weight
        self.real: Tensor
        self.register_buffer("real", real, persistent=False)
        self.frozen: Tensor | None
        self.register_buffer("frozen", frozen, persistent=False)

    def forward(self, z: Tensor, noise: Tensor, index: Tensor) -> dict[str, Tensor]:
        """`{"loss": ...}` for noise and the indices `[m]` of the training designs of this step."""
        logits = self.net(z, noise)
        fake, real, sizes = self.features(self.designs(logits)), self.real[index], self.features.sizes
        frozen = self.frozen
        loss = energy_loss(fake, real, sizes) if frozen is None else witness_loss(fake, real, frozen, sizes)
        if self.penalty is not None:
            with torch.no_grad():
                valid = self.penalty(logits)
            loss = loss + self.weight * (1 - (logits.softmax(dim=1) * valid).sum(dim=1)).mean()
        return {"loss": loss}


class MatchTraining(TianModule):
    """`TianModule` with plain Adam: weight decay would pull the bias of rare tiles to zero."""

    def configure_optimizers(self) -> Any:
        """Adam and the schedule of the options."""
        from tian.training.module import lr_share

        o = self.optim
        optimizer = torch.optim.Adam(
            [p for p in self.model.parameters() if p.requires_grad], lr=o.lr, betas=(o.betas[0], o.betas[1])
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda s: lr_share(s, steps=self.steps, warmup=o.warmup, final=o.final)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def generator_of(seed: int, step: int) -> torch.Generator:
    """The generator of one step."""
    words = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(words[0] >> 1))


def batches(net: TileGenerator, *, train: TrainOptions, n_real: int, seed: int, steps: int) -> StepLoader:
    """Noise and indices of every step, a pure function of (seed, step)."""

    def batch(step: int) -> dict[str, Tensor]:
        rng = torch.Generator().manual_seed(
            int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)
        )
        z, noise = net.draw(train.batch, rng)
        return {"z": z, "noise": noise, "index": torch.randint(n_real, (train.reals,), generator=rng)}

    return StepLoader(batch, steps=steps)


@torch.no_grad()
def features_of(features: TileFeatures, layout: Layout, grids: NDArray[np.uint8]) -> Tensor:
    """`[n, F]` features of tile indices `[n, H, W]`."""
    parts = [
        features(layout.planes(torch.from_numpy(layout.x(grids[i : i + CHUNK])).float()))
        for i in range(0, len(grids), CHUNK)
    ]
    return torch.cat(parts)


def fitted_features(layout: Layout, grids: NDArray[np.uint8], *, unique: list[int], seed: int) -> TileFeatures:
    """Features with filters of `seed`, standardised on the designs `grids [n, H, W]`."""
    found = TileFeatures(tiles=layout.tiles, height=layout.height, width=layout.width, unique=unique, seed=seed)
    with torch.no_grad():
        found.fit(layout.planes(torch.from_numpy(layout.x(grids)).float()))
    return found
