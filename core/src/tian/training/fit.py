"""`fit`: the one training loop, a Lightning Trainer built from the config and tied to a run directory."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

import lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.utilities.model_helpers import is_overridden

from tian.config.compose import config_hash
from tian.errors import ContractError, InvalidInput, NanError, NoDevice, ResumeMismatch
from tian.training.checkpoints import AtomicIO, Checkpoints, latest_checkpoint, newest_readable, step_in
from tian.training.loggers import check_loggers, make_loggers
from tian.training.module import TianModule
from tian.training.nan_guard import LOWER, NanGuard, all_finite
from tian.training.rng import RngState
from tian.training.rows import Heartbeat, MetricRows, Throughput
from tian.training.step_end import StepEnd
from tian.training.stop import GracefulStop

if TYPE_CHECKING:
    from pathlib import Path

    from lightning.pytorch.callbacks import Callback

    from tian.runs.rundir import Run
    from tian.training.loader import StepLoader
    from tian.training.options import TrainerOptions

__all__ = ["fit", "latest_checkpoint"]


def _check(module: Any, loader: StepLoader, options: TrainerOptions, seed: int) -> None:
    """Refuse before the first step what would fail in it."""
    name = type(module).__name__
    if not (hasattr(type(module), "metrics") or "metrics" in vars(module)):
        raise ContractError(
            f"{name} has no `metrics`",
            where=f"{type(module).__module__}:{name}",
            hint="add a property `metrics` that returns the numbers of the last step, {'loss': ...}",
        )
    if not 0 <= seed < 2**32:
        raise InvalidInput(f"seed must be within 0..{2**32 - 1}, got {seed}", where="seed", hint="set seed=0")
    if len(loader) < options.max_steps:
        raise InvalidInput(
            f"the loader has {len(loader)} batches, trainer.max_steps is {options.max_steps}",
            where="trainer.max_steps",
            hint="StepLoader(batch, steps=options.max_steps); batch(i % n) goes through n batches again and again",
        )
    if options.strategy == "fsdp" and not is_overridden("configure_model", module):
        raise InvalidInput(
            f"trainer.strategy=fsdp needs {name}.configure_model, which shares the parameters out",
            where="trainer.strategy",
            hint="call tian.training.module.shard(self.model, self.device_mesh['data_parallel']) in it, or use ddp",
        )


def _strategy(options: TrainerOptions) -> Any:
    if options.strategy != "fsdp":
        return options.strategy
    from lightning.pytorch.strategies import ModelParallelStrategy

    gpu = options.accelerator in ("gpu", "cuda") or (options.accelerator == "auto" and torch.cuda.is_available())
    return ModelParallelStrategy(
        data_parallel_size=options.devices,
        tensor_parallel_size=1,
        save_distributed_checkpoint=False,  # one file that any number of processes can read
        process_group_backend=None if gpu else "gloo",
    )


def _trainer(
    options: TrainerOptions, callbacks: list[Callback], *, loggers: list[Any], clip: float, folder: Path
) -> Any:
    try:
        return lightning.Trainer(
            accelerator=options.accelerator,
            devices=options.devices,
            strategy=_strategy(options),
            precision=options.precision,
            # One epoch of max_steps batches: Lightning's own max_steps counts optimizer steps.
            max_epochs=1,
            limit_train_batches=options.max_steps,
            gradient_clip_val=clip or None,
            callbacks=callbacks,
            plugins=[AtomicIO()],
            logger=loggers or False,
            log_every_n_steps=options.log_every,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=folder,  # where Lightning looks for checkpoints of its own under SLURM
        )
    except MisconfigurationException as error:
        raise NoDevice(
            f"the accelerator {options.accelerator!r} with {options.devices} devices is not available: "
            f"{str(error).splitlines()[0]}",
            where="trainer.accelerator, trainer.devices",
            hint="set trainer.accelerator=cpu trainer.devices=1",
        ) from None
    except ValueError as error:
        raise InvalidInput(
            f"the trainer refuses these options: {str(error).splitlines()[0]}",
            where="trainer",
            hint="see `tian show lm/train` for accelerator, devices and precision",
        ) from None


def _check_weights(module: torch.nn.Module, state: dict[str, Any], path: Path) -> None:
    """Refuse weights that are not this module's.

    Raises:
        ResumeMismatch: a name or shape differs.
    """
    theirs = {k: tuple(v.shape) for k, v in state.items() if isinstance(v, torch.Tensor)}
    mine = {k: tuple(v.shape) for k, v in module.state_dict().items() if isinstance(v, torch.Tensor)}
    odd = sorted(k for k in theirs.keys() | mine.keys() if theirs.get(k) != mine.get(k))
    if odd and module.strict_loading:
        raise ResumeMismatch(
            f"{path.name} holds other weights than {type(module).__name__}: {odd[0]!r} has shape "
            f"{theirs.get(odd[0])} in the file and {mine.get(odd[0])} now ({len(odd)} differ)",
            where=str(path),
            hint="use the code the run began with, or start a new run without --resume",
        )


def fit(module: Any, loader: StepLoader, options: TrainerOptions, *, run: Run, seed: int, part: str = "") -> None:
    """Train `module` on `loader`, from the newest checkpoint of the run directory when there is one.

    However often it is killed and called again in the same directory, weights and metrics.jsonl come out the same,
    bit for bit, on a CPU with one process. That holds for what the module keeps in `state_dict`, its optimizers and
    schedulers, and the global generators; a step is one batch, with manual optimisation too.

    Args:
        module: a LightningModule with a property `metrics` (see `Trainable`); its parameters are changed in place.
            With `trainer.strategy=fsdp` they stay shared out; the whole weights are in the last checkpoint.
        loader: at least `max_steps` batches, in an order that depends on the seed alone.
        options: trainer options.
        run: receives metrics.jsonl, throughput.jsonl, progress and checkpoints/. In a second process of the same
            training it is only read.
        seed: seeds python, numpy and torch before the first step.
        part: names this training when a run has several, one after the other: its checkpoints go to
            `checkpoints/<part>/`, its rows carry the name.

    Raises:
        NanError: the loss or a weight stopped being finite; no checkpoint holds such a weight.
        KeyboardInterrupt, SystemExit(143): Ctrl-C or SIGTERM, after the step and its checkpoint.
        NoDevice: the accelerator is not present. InvalidInput: no such accelerator or precision, too few batches.
        ContractError: the module lacks `metrics`, or its state cannot be in a checkpoint.
        DataError: no checkpoint can be read. ResumeMismatch: it is of another config, module or format.
        RunError: the disk is full. MissingDependency: a logger's package is not installed.
    """
    _check(module, loader, options, seed)
    check_loggers(options.loggers)
    folder = run.path / "checkpoints" / part
    found = newest_readable(
        folder, config=config_hash(run.config), say=rank_zero_only(run.info), owner=rank_zero_only.rank == 0
    )
    newest, step = None, 0
    if found:
        newest, step = found[0], step_in(found[0])
        if isinstance(module, TianModule) or not is_overridden("configure_model", module):  # else it may come later
            _check_weights(module, found[1]["state_dict"], newest)
        del found
    lightning.seed_everything(seed, verbose=False)
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    stop, rng = GracefulStop(), RngState()
    end = StepEnd(options, requested=stop.requested)
    end.parts = [
        NanGuard(end, where=str(run.path)),
        MetricRows(run, options, end, part=part),
        Throughput(run, end),
        Heartbeat(run),
        Checkpoints(run, folder, end),
        stop.bind(end),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's hints on workers and log intervals do not apply to a StepLoader
        trainer = _trainer(
            options,
            [end, rng],
            loggers=make_loggers(options.loggers, folder=run.path / "logs", step=step) if options.loggers else [],
            clip=options.clip if module.automatic_optimization else 0.0,
            folder=run.path,
        )
        own = loader.for_rank(trainer.global_rank, trainer.world_size, before=rng.restore)
        with stop.held(), end.before_callbacks(module):
            # Lightning takes the compiled wrapper off again: names in checkpoints stay those of the module.
            trainer.fit(torch.compile(module) if options.compile else module, own, ckpt_path=newest, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    if not all_finite(module):
        raise NanError("a weight is not finite after training", where=str(run.path), hint=LOWER)
