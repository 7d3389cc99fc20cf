"""What `fit` adds to a step: all its callbacks against a bare Lightning Trainer, rounds of both interleaved.

A step lasts from one `training_step` to the next, so it includes whatever happens in between. `ratio` is of the lower
quartile of a round's steps in CPU seconds of this process, which a busy machine disturbs least; `wall_ratio` is of the
median in wall clock. Both leave the steps that save out; a save has a column of its own. Bar: 5 % of a step.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning
import torch
from _result import save
from omegaconf import OmegaConf
from torch import nn

from tian.hf.options import LMOptions
from tian.hf.small_lm import build_lm, training_batch
from tian.runs.rundir import create
from tian.training.fit import fit
from tian.training.loader import StepLoader
from tian.training.module import TianModule
from tian.training.options import OptimOptions, TrainerOptions

BAR = 1.05
Seconds = tuple[float, float]
Made = tuple[nn.Module, Callable[[int], dict[str, torch.Tensor]]]


class Toy(nn.Module):
    """1.05M parameters, three square layers."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(*[layer for _ in range(3) for layer in (nn.Linear(591, 591), nn.Tanh())])

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (self.net(x) - x).square().mean()}


class Timed(TianModule):
    """Notes when each step begins, in CPU and in wall clock seconds."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.starts.append((time.process_time(), time.perf_counter()))
        return super().training_step(batch, batch_idx)


def lm() -> Made:
    options = LMOptions()
    stream = torch.randint(1, 1000, (200_000,), generator=torch.Generator().manual_seed(0))
    make = lambda i: training_batch(stream, i, batch=16, context=options.context, bos_id=0, copy_share=0.3, seed=0)  # noqa: E731
    return build_lm(options, vocab_size=1024, bos_id=0, seed=0), make


def toy() -> Made:
    x = torch.randn(16, 591, generator=torch.Generator().manual_seed(0))
    return Toy(), lambda _i: {"x": x}


def timed(make: Callable[[], Made], steps: int, *, bare: bool) -> tuple[list[Seconds], list[Seconds]]:
    """CPU and wall clock seconds of each step but the first 10, and of the steps that save."""
    model, batch = make()
    module = Timed(model, optim=OptimOptions(), steps=steps)
    module.starts = []
    loader = StepLoader(batch, steps=steps)
    options = TrainerOptions(max_steps=steps, accelerator="cpu")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if bare:
            trainer = lightning.Trainer(
                accelerator="cpu",
                devices=1,
                max_steps=steps,
                gradient_clip_val=options.clip,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            trainer.fit(module, loader)
        else:
            run = create(Path(folder) / "run", OmegaConf.create({}))
            run.set_status("running", name="callbacks")
            fit(module, loader, options, run=run, seed=0)
            run.release()
    gaps = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(module.starts)]
    saves = {i for i in range(len(gaps)) if not bare and (i + 1) % options.checkpoint_every == 0}
    return [g for i, g in enumerate(gaps) if i >= 10 and i not in saves], [gaps[i] for i in saves]


def measure(name: str, make: Callable[[], Made], *, steps: int, rounds: int) -> dict[str, Any]:
    ratios, walls, plain, ours, saving = [], [], [], [], []
    for r in range(rounds):
        found = {}
        for bare in (True, False) if r % 2 == 0 else (False, True):
            found[bare] = timed(make, steps, bare=bare)
        cpu = {k: statistics.quantiles((s[0] for s in steps_), n=4)[0] for k, (steps_, _) in found.items()}
        wall = {k: statistics.median(s[1] for s in steps_) for k, (steps_, _) in found.items()}
        plain.append(cpu[True])
        ours.append(cpu[False])
        ratios.append(cpu[False] / cpu[True])
        walls.append(wall[False] / wall[True])
        saving += [s[1] - wall[False] for s in found[False][1]]
    ratio = statistics.median(ratios)
    row = {
        "model": name,
        "rounds": rounds,
        "steps_a_round": steps,
        "bare_cpu_ms": round(1000 * statistics.median(plain), 3),
        "fit_cpu_ms": round(1000 * statistics.median(ours), 3),
        "ratio": round(ratio, 4),
        "ratio_range": [round(min(ratios), 4), round(max(ratios), 4)],
        "wall_ratio": round(statistics.median(walls), 4),
        "wall_ratio_range": [round(min(walls), 4), round(max(walls), 4)],
        "save_wall_ms": round(1000 * statistics.median(saving), 1),
        "within_bar": ratio < BAR,
    }
    print(row)
    return row


def main() -> None:
    torch.set_num_threads(1)
    rows = [measure("toy, 1.05M parameters", toy, steps=210, rounds=8), measure("lm/train", lm, steps=110, rounds=2)]
    save("callbacks", rows)


if __name__ == "__main__":
    main()
