"""Run by test_processes.py: `python ddp_fit.py DIR STRATEGY` trains in DIR with two processes, terminated once.

Lightning starts this file again for the second process; only the first one owns the directory.
"""

import os
import signal
import sys
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import nn

from tian.runs.rundir import Run, create
from tian.training.fit import fit
from tian.training.loader import StepLoader
from tian.training.module import TianModule
from tian.training.options import OptimOptions, TrainerOptions

STEPS = 12


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 16)
        self.layers = nn.ModuleList([nn.Linear(16, 16), nn.Linear(16, 16)])
        self.last = nn.Linear(16, 1)

    def forward(self, x, y):
        h = self.first(x).tanh()
        for layer in self.layers:
            h = h + layer(h).tanh()
        return {"loss": ((self.last(h) - y) ** 2).mean()}


class Stopping(TianModule):
    """The first process is terminated once, in the batch with this index; the second must notice."""

    at = 6

    def training_step(self, batch, batch_idx):
        if batch_idx == type(self).at:
            type(self).at = None
            if self.global_rank == 0:
                os.kill(os.getpid(), signal.SIGTERM)
        return super().training_step(batch, batch_idx)


def make(cls=TianModule):
    torch.manual_seed(0)
    return cls(Net(), optim=OptimOptions(lr=0.02), steps=STEPS)


def batch(i):
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(i))
    return {"x": x, "y": x.sum(1, keepdim=True).sin()}


def train(module, run, **more):
    options = TrainerOptions(max_steps=STEPS, checkpoint_every=4, log_every=1, accelerator="cpu", **more)
    fit(module, StepLoader(batch, steps=STEPS), options, run=run, seed=0)


def main(folder, strategy):
    torch.set_num_threads(1)
    config = OmegaConf.create({"recipe": "toys/train"})
    first = "LOCAL_RANK" not in os.environ
    run = create(Path(folder), config) if first else Run(Path(folder), config)
    try:
        train(make(Stopping), run, devices=2, strategy=strategy)
    except SystemExit as stop:
        sys.stdout.write(f"stopped with {stop.code}, ")
    train(make(Stopping), run, devices=2, strategy=strategy)
    sys.stdout.write("finished, ")
    sys.stdout.flush()
    os._exit(0)  # Lightning's watch over the second process would hold the first one for 10 s more


if __name__ == "__main__":
    main(*sys.argv[1:])
