"""Options of the trainer and the optimizer; no torch, so that composing a config stays light."""

from __future__ import annotations

from dataclasses import dataclass, field

from tian.errors import InvalidInput

STRATEGIES = ("auto", "ddp", "fsdp")
LOGGERS = ("csv", "tensorboard", "wandb")


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
    """What the Lightning Trainer is built from; a step is one batch, however many optimizers step in it."""

    max_steps: int = 100  # batches to train on
    clip: float = 1.0  # gradient norm limit, 0: none; a module with manual optimisation clips by itself
    precision: str = "32-true"  # Lightning precision name, e.g. 32-true, bf16-mixed
    accelerator: str = "auto"  # cpu, gpu or auto
    devices: int = 1  # processes/devices
    compile: bool = False  # torch.compile the step: the first one takes a minute, on a GPU the others half the time
    strategy: str = "auto"  # auto, ddp (every process holds the model) or fsdp (the processes share it)
    checkpoint_every: int = 100  # steps between checkpoints; the last two are kept
    log_every: int = 10  # steps between rows of metrics.jsonl
    loggers: list[str] = field(default_factory=list)  # of csv, tensorboard, wandb; files go below logs/

    def __post_init__(self) -> None:
        if self.max_steps < 1 or self.checkpoint_every < 1 or self.log_every < 1:
            raise InvalidInput("trainer.max_steps, checkpoint_every and log_every must be >= 1")
        if self.devices < 1:
            raise InvalidInput(f"trainer.devices must be >= 1, got {self.devices}")
        if self.clip < 0:
            raise InvalidInput(f"trainer.clip must be >= 0, got {self.clip}")
        if self.strategy not in STRATEGIES:
            raise InvalidInput(
                f"trainer.strategy must be one of {', '.join(STRATEGIES)}, got {self.strategy!r}",
                hint="leave it at auto for one process",
            )
        unknown = [name for name in self.loggers if name not in LOGGERS]
        if unknown or len(set(self.loggers)) < len(self.loggers):
            raise InvalidInput(
                f"trainer.loggers takes each of {', '.join(LOGGERS)} at most once, got {self.loggers}",
                hint="set trainer.loggers=[csv], or leave it out: metrics.jsonl is always written",
            )
