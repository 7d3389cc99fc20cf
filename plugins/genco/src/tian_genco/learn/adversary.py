"""Wasserstein GAN with gradient penalty (Gulrajani et al., 2017), the adversary updated or fixed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from lightning import LightningModule
from torch import nn

from tian.training.loader import StepLoader
from tian.training.module import lr_share
from tian_genco.learn.match import generator_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from tian_genco.learn.critic import TileCritic
    from tian_genco.learn.generator import TileGenerator
    from tian_genco.learn.options import TrainOptions

BETAS = (0.0, 0.9)


class Adversarial(LightningModule):
    """Generator against critic, alternating; a fixed adversary is never updated.

    The critic minimises mean D(fake) - mean D(real) + penalty (|grad D| - 1)^2 at random points between the two, the
    generator minimises -mean D(fake). What the critic sees are finished designs, so through a solver it sees valid ones
    only and has to find another difference.

    Args:
        net: generator.
        critic: gives one score a design.
        real: `[R, T, H, W]` one-hot designs of the data.
        designs: logits -> designs `[B, T, H, W]` with a gradient.
        train: options; `critic_steps`, `gp` and `adversary`.
        lr: learning rate of both, which falls to a tenth.
        steps: planned number of steps of the generator.
    """

    def __init__(
        self,
        net: TileGenerator,
        critic: TileCritic,
        real: Tensor,
        *,
        designs: Callable[[Tensor], Tensor],
        train: TrainOptions,
        lr: float,
        steps: int,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.net, self.critic, self.designs, self.train_options = net, critic, designs, train
        self.lr, self.steps = lr, steps
        self.real: Tensor
        self.register_buffer("real", real, persistent=False)
        self.metrics: dict[str, Tensor] = {}

    def configure_optimizers(self) -> Any:
        """Adam and a schedule for each of the two."""
        parts: tuple[nn.Module, nn.Module] = (self.net, self.critic)
        optimizers = [torch.optim.Adam(p.parameters(), lr=self.lr, betas=BETAS) for p in parts]
        return optimizers, [torch.optim.lr_scheduler.LambdaLR(o, self._share) for o in optimizers]

    def _share(self, step: int) -> float:
        return lr_share(step, steps=self.steps, warmup=0.0, final=0.1)

    def training_step(self, batch: dict[str, Tensor], _index: int) -> None:
        """`critic_steps` steps of the critic, then one of the generator, each with noise of its own."""
        of_net, of_critic = self.optimizers()
        updated = self.train_options.adversary == "updated"
        distance = torch.zeros((), device=self.device)
        for k in range(self.train_options.critic_steps if updated else 0):
            real = self.real[batch["index"][k]]
            with torch.no_grad():
                fake = self.designs(self.net(batch["z"][k], batch["noise"][k]))
            distance = self.critic.score(real).mean() - self.critic.score(fake).mean()
            loss = self.train_options.gp * gradient_penalty(self.critic, real, fake, batch["mix"][k]) - distance
            of_critic.zero_grad()
            self.manual_backward(loss)
            of_critic.step()
        fake = self.designs(self.net(batch["z"][-1], batch["noise"][-1]))
        loss = -self.critic.score(fake).mean()
        of_net.zero_grad()
        self.manual_backward(loss)
        of_net.step()
        for schedule in self.lr_schedulers()[: 1 + updated]:
            schedule.step()
        self.metrics = {"loss": loss.detach(), "distance": distance.detach()}


def gradient_penalty(critic: TileCritic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """Mean of (|grad D| - 1)^2 between `real` and `fake` `[B, T, H, W]`, at the shares `mix [B]` of `real`."""
    share = mix.view(-1, 1, 1, 1)
    point = (share * real + (1 - share) * fake).requires_grad_()
    (slope,) = torch.autograd.grad(critic.score(point).sum(), point, create_graph=True)
    penalty: Tensor = (slope.flatten(1).norm(dim=1) - 1).square().mean()
    return penalty


def adversarial_batches(net: TileGenerator, *, train: TrainOptions, n_real: int, seed: int, steps: int) -> StepLoader:
    """Noise, indices and mixing shares of every step, `critic_steps + 1` of each; a pure function of (seed, step)."""
    rounds = train.critic_steps + 1

    def batch(step: int) -> dict[str, Tensor]:
        rng = generator_of(seed, step)
        drawn = [net.draw(train.batch, rng) for _ in range(rounds)]
        return {
            "z": torch.stack([z for z, _ in drawn]),
            "noise": torch.stack([noise for _, noise in drawn]),
            "index": torch.randint(n_real, (rounds, train.batch), generator=rng),
            "mix": torch.rand(rounds, train.batch, generator=rng),
        }

    return StepLoader(batch, steps=steps)
