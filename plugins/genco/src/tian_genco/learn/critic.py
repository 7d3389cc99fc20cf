"""A critic trained after the run, on the finished generator's designs: the same judge for every way of training."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tian.training.fit import fit
from tian.training.loader import StepLoader
from tian.training.module import TianModule
from tian.training.options import OptimOptions
from tian_genco.learn.model import seeded

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from tian.runs.rundir import Run
    from tian.training.options import TrainerOptions

BATCH = 64  # of each kind
CHANNELS = 32


class TileCritic(nn.Module):
    """Convolutional classifier of one-hot tile grids: how likely a design is from the data.

    Args:
        tiles: T.
        height: H.
        width: W.
    """

    def __init__(self, *, tiles: int, height: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(tiles, CHANNELS, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.head = nn.Linear(CHANNELS * -(-height // 4) * -(-width // 4), 1)

    def score(self, x: Tensor) -> Tensor:
        """`[B]` logits of `x [B, T, H, W]`."""
        scores: Tensor = self.head(self.body(x))[:, 0]
        return scores

    def forward(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """`{"loss": ...}` of telling `real` from `fake`, both `[B, T, H, W]`."""
        scores = torch.cat([self.score(real), self.score(fake)])
        truth = torch.cat([scores.new_ones(len(real)), scores.new_zeros(len(fake))])
        return {"loss": functional.binary_cross_entropy_with_logits(scores, truth)}


def critic_accuracy(
    real: Tensor, fake: Tensor, *, steps: int, trainer: TrainerOptions, run: Run, seed: int, part: str
) -> tuple[float, int]:
    """Accuracy on held-out designs of a critic trained on the first half of both sets; 0.5 means: cannot be told apart.

    Args:
        real: `[n, T, H, W]` one-hot designs of the data.
        fake: `[n, T, H, W]` of the generator.
        steps: of training.
        trainer: options; its `max_steps` plays no part.
        run: receives the training's rows and checkpoints.
        seed: of weights and order.
        part: names the training within the run.

    Returns:
        The accuracy and the number of held-out designs behind it.
    """
    half = min(len(real), len(fake)) // 2
    with seeded(seed):
        critic = TileCritic(tiles=real.shape[1], height=real.shape[2], width=real.shape[3])

    def batch(step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([seed, step])
        pick: NDArray[np.int64] = rng.integers(half, size=(2, BATCH))
        return {"real": real[torch.from_numpy(pick[0])], "fake": fake[torch.from_numpy(pick[1])]}

    optim = OptimOptions(lr=2e-3, weight_decay=1e-4, warmup=0.0, final=0.1)
    module = TianModule(critic, optim=optim, steps=steps)
    fit(
        module, StepLoader(batch, steps=steps), replace(trainer, max_steps=steps), run=run, seed=seed % 2**32, part=part
    )
    critic.eval()
    with torch.no_grad():
        right = torch.cat([critic.score(real[half:]) > 0, critic.score(fake[half:]) <= 0])
    return float(right.float().mean()), int(right.numel())
