"""Options of the trainer and the optimizer; no torch, so that composing a config stays light."""

from __future__ import annotations

from dataclasses import dataclass, field

from tian.errors import InvalidInput


@dataclass
class OptimOptions:
    """AdamW with linear warm-up and cosine decay."""

    lr: float = 1e-3  # peak learning rate
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])  # decay rates of the two moment estimates
    weight_decay: float = 0.1  # on matrices only; vectors (norm gains, biases) get none
    warmup: float = 0.03  # share of the steps in which the rate rises linearly
    final: float = 0.05  # learning rate at the last step, as a share of the peak

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise InvalidInput(f"optim.lr must be > 0, got {self.lr}")
        if len(self.betas) != 2 or not all(0 <= b < 1 for b in self.betas):
            raise InvalidInput(f"optim.betas must be two numbers in [0, 1), got {self.betas}")


@dataclass
class TrainerOptions:
    """What the Lightning Trainer is built from."""

    max_steps: int = 100  # optimizer steps
    clip: float = 1.0  # gradient norm limit; 0 switches clipping off
    precision: str = "32-true"  # Lightning precision name, e.g. 32-true, bf16-mixed
    accelerator: str = "auto"  # cpu, gpu or auto
    devices: int = 1  # processes/devices
    checkpoint_every: int = 100  # steps between checkpoints; the last two are kept
    log_every: int = 10  # steps between rows of metrics.jsonl

    def __post_init__(self) -> None:
        if self.max_steps < 1 or self.checkpoint_every < 1 or self.log_every < 1:
            raise InvalidInput("trainer.max_steps, checkpoint_every and log_every must be >= 1")
