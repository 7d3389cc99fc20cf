"""TianModule: the LightningModule around anything whose forward returns a loss, and what `fit` asks of a module."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import torch
from lightning import LightningModule
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.distributed.device_mesh import DeviceMesh

    from tian.training.options import OptimOptions


class Trainable(Protocol):
    """What `fit` needs beyond a LightningModule."""

    @property
    def metrics(self) -> Mapping[str, Tensor | float]:
        """Numbers of the last step; `loss` must be among them. Tensors are detached scalars on any device."""
        ...


def lr_share(step: int, *, steps: int, warmup: float, final: float) -> float:
    """Learning rate at `step` as a share of the peak: linear warm-up, then cosine to `final`.

    Args:
        step: optimizer steps done so far, 0-based.
        steps: planned number of steps.
        warmup: share of `steps` spent rising.
        final: share of the peak left at the end.

    Example:
        >>> [round(lr_share(s, steps=100, warmup=0.1, final=0.0), 2) for s in (0, 9, 10, 55, 100)]
        [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    rise = max(1, round(steps * warmup))
    if step < rise:
        return (step + 1) / rise
    phase = min(1.0, (step - rise) / max(1, steps - rise))
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * phase))


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Spread the parameters of `model` over the processes of `mesh`, in place (FSDP2, for `trainer.strategy=fsdp`).

    Each member of an `nn.ModuleList`, as a rule a layer, is gathered on its own when it runs; the rest is one unit.
    """
    from torch.distributed.fsdp import fully_shard

    for part in reversed(list(model.modules())):  # inner lists before the outer ones they are in
        if isinstance(part, nn.ModuleList):
            for layer in part:
                fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


class TianModule(LightningModule):
    """Wraps an `nn.Module` whose `forward(**batch)` returns a mapping (or object) with `loss`.

    Args:
        model: the module to train.
        optim: optimizer options.
        steps: planned steps, for the schedule. Given, not asked of the Trainer: reading
            `estimated_stepping_batches` drops the loader's state on resume (pytorch-lightning#20550).
    """

    def __init__(self, model: nn.Module, *, optim: OptimOptions, steps: int) -> None:
        super().__init__()
        self.model = model
        self.optim = optim
        self.steps = steps

    @property
    def metrics(self) -> dict[str, Tensor]:
        """`{"loss": ...}` of the last step."""
        return {"loss": self.last_loss}

    def configure_model(self) -> None:
        """Shard the model when several processes share it; a mesh is set under `trainer.strategy=fsdp` only."""
        if self.device_mesh is not None:
            shard(self.model, self.device_mesh["data_parallel"])

    def training_step(self, batch: dict[str, Tensor], _index: int) -> Tensor:
        """Loss of one batch."""
        loss: Tensor = self.model(**batch)["loss"]
        self.last_loss = loss.detach()
        return loss

    def configure_optimizers(self) -> Any:
        """AdamW; weight decay on matrices only."""
        o = self.optim
        params = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in params if p.dim() >= 2], "weight_decay": o.weight_decay},
            {"params": [p for p in params if p.dim() < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=o.lr, betas=(o.betas[0], o.betas[1]))
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda s: lr_share(s, steps=self.steps, warmup=o.warmup, final=o.final)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
