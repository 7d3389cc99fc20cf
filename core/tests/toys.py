"""Small trainings of every kind, for the tests of `fit`; each has a seeded start and keeps its state where it must."""

import hashlib
import json
import random
from itertools import pairwise

import numpy as np
import torch
from lightning import LightningModule
from torch import nn

from tian.training.fit import fit
from tian.training.loader import StepLoader
from tian.training.module import TianModule
from tian.training.options import OptimOptions, TrainerOptions

STEPS = 12


class Stop(Exception):
    pass


def mlp(*sizes, dropout=0.0):
    layers = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.Tanh(), nn.Dropout(dropout)]
    return nn.Sequential(*layers[:-2])


def noise(seed, step, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1000 * seed + step))


class Regression(nn.Module):
    """Forward returns a loss, as TianModule wants it."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.layers = nn.ModuleList([mlp(4, 8, dropout=0.0), nn.Dropout(dropout), mlp(8, 1)])

    def forward(self, x, y):
        for layer in self.layers:
            x = layer(x)
        return {"loss": ((x - y) ** 2).mean()}


def regression_batch(i, rows=4):
    x = noise(1, i, rows, 4)
    return {"x": x, "y": x.sum(1, keepdim=True).sin()}


def regression(dropout=0.0):
    torch.manual_seed(0)
    return TianModule(Regression(dropout), optim=OptimOptions(lr=0.05), steps=STEPS)


class Noisy(TianModule):
    """Draws from every global generator in its step."""

    def training_step(self, batch, index):
        loss = super().training_step(batch, index)
        return loss * (1 + random.random() + random.gauss(0, 1) ** 2 + np.random.rand() + np.random.randn() ** 2)


def noisy():
    torch.manual_seed(0)
    return Noisy(Regression(0.5), optim=OptimOptions(lr=0.05), steps=STEPS)


class Gan(LightningModule):
    """Two optimizers by hand, the critic twice a batch, gradients clipped by hand: three optimizer steps a batch."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.automatic_optimization = False
        self.make, self.judge = mlp(2, 8, 2), mlp(2, 8, 1)
        self.metrics = {}

    def training_step(self, batch, _index):
        make, judge = self.optimizers()
        real = batch["real"]
        for _ in range(2):
            fake = self.make(torch.randn(len(real), 2)).detach()
            critic = nn.functional.softplus(-self.judge(real)).mean() + nn.functional.softplus(self.judge(fake)).mean()
            self._step(judge, critic, self.judge)
        loss = nn.functional.softplus(-self.judge(self.make(torch.randn(len(real), 2)))).mean()
        self._step(make, loss, self.make)
        self.metrics = {"critic": critic.detach(), "loss": loss.detach()}

    def _step(self, optimizer, loss, part):
        optimizer.zero_grad()
        self.manual_backward(loss)
        nn.utils.clip_grad_norm_(part.parameters(), 0.5)
        optimizer.step()

    def configure_optimizers(self):
        return torch.optim.Adam(self.make.parameters(), lr=0.01), torch.optim.RMSprop(self.judge.parameters(), lr=0.01)


class VqVae(LightningModule):
    """A codebook that follows moving averages kept in buffers, updated in the module's own end-of-batch hook."""

    def __init__(self, codes=6, width=3):
        super().__init__()
        torch.manual_seed(0)
        self.encode, self.decode = mlp(4, 8, width), mlp(width, 8, 4)
        self.register_buffer("book", torch.randn(codes, width))
        self.register_buffer("count", torch.ones(codes))
        self.register_buffer("total", self.book.clone())
        self.metrics = {}

    def training_step(self, batch, _index):
        z = self.encode(batch["x"])
        self.seen = z.detach()
        self.code = torch.cdist(self.seen, self.book).argmin(1)
        q = self.book[self.code]
        out = self.decode(z + (q - z).detach())
        loss = ((out - batch["x"]) ** 2).mean() + 0.25 * ((z - q) ** 2).mean()
        self.metrics = {"loss": loss.detach(), "codes": self.code.unique().numel()}
        return loss

    def on_train_batch_end(self, *_args):
        hot = nn.functional.one_hot(self.code, len(self.book)).float()
        self.count.mul_(0.9).add_(hot.sum(0), alpha=0.1)
        self.total.mul_(0.9).add_(hot.T @ self.seen, alpha=0.1)
        self.book.copy_(self.total / self.count.clamp_min(1e-3)[:, None])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Ppo(LightningModule):
    """A bandit with a state; batches are rollouts of its own policy, its generator is part of its state_dict."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.automatic_optimization = False
        self.policy, self.value = mlp(2, 8, 3), mlp(2, 8, 1)
        self.generator = torch.Generator().manual_seed(7)
        self.register_buffer("where", torch.zeros(4, 2))
        self.metrics = {}

    def get_extra_state(self):
        return self.generator.get_state()

    def set_extra_state(self, state):
        self.generator.set_state(state)

    @torch.no_grad()
    def rollout(self, _step):
        rows = []
        for _ in range(5):
            p = self.policy(self.where).softmax(-1)
            act = torch.multinomial(p, 1, generator=self.generator)[:, 0]
            reward = (act == (self.where[:, 0] > 0).long()).float()
            rows.append((self.where.clone(), act, reward, p.gather(1, act[:, None])[:, 0].log()))
            self.where.mul_(0.5).add_(torch.randn(4, 2, generator=self.generator))
        state, act, reward, logp = (torch.cat(x) for x in zip(*rows, strict=True))
        return {"state": state, "act": act, "reward": reward, "logp": logp}

    def training_step(self, batch, _index):
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        for _ in range(3):
            value = self.value(batch["state"])[:, 0]
            gain = batch["reward"] - value.detach()
            logp = self.policy(batch["state"]).log_softmax(-1).gather(1, batch["act"][:, None])[:, 0]
            ratio = (logp - batch["logp"]).exp()
            loss = -torch.min(ratio * gain, ratio.clamp(0.8, 1.2) * gain).mean()
            loss = loss + 0.5 * ((value - batch["reward"]) ** 2).mean()
            optimizer.zero_grad()
            self.manual_backward(loss)
            nn.utils.clip_grad_norm_(self.parameters(), 0.5)
            optimizer.step()
        schedule.step()
        self.metrics = {"loss": loss.detach(), "reward": batch["reward"].mean()}

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)]


KINDS = {
    "regression": (regression, lambda _module: regression_batch),
    "dropout": (lambda: regression(0.5), lambda _module: regression_batch),
    "generators": (noisy, lambda _module: regression_batch),
    "gan": (Gan, lambda _module: lambda i: {"real": noise(2, i, 6, 2) + 1}),
    "vqvae": (VqVae, lambda _module: lambda i: {"x": noise(3, i, 8, 4)}),
    "ppo": (Ppo, lambda module: module.rollout),
}


def options(**more):
    return TrainerOptions(
        **{"max_steps": STEPS, "accelerator": "cpu", "checkpoint_every": 4, "log_every": 1, "clip": 0.5, **more}
    )


def train(kind, run, *, at=None, act=None, part="", **more):
    """Train in `run`; calls `act()` inside step `at`. Returns the module."""
    make, batches = KINDS[kind]
    module = make()
    if at is not None:
        step = module.training_step

        def counted(batch, batch_idx):
            out = step(batch, batch_idx)
            if batch_idx + 1 == at:
                act()
            return out

        module.training_step = counted
    o = options(**more)
    fit(module, StepLoader(batches(module), steps=o.max_steps), o, run=run, seed=3, part=part)
    return module


def crash():
    raise Stop


def weight_hash(module):
    """Of every parameter and buffer, and whatever else the module keeps."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().contiguous().numpy().tobytes() if torch.is_tensor(value) else repr(value).encode())
    return digest.hexdigest()


def steps_of(run, key="step"):
    file = run.path / "metrics.jsonl"
    return [json.loads(line)[key] for line in file.read_text().splitlines()] if file.exists() else []
