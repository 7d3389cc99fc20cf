"""Checkpoints: weights-only files with a header of ours, replaced whole, read before they are trusted."""

from __future__ import annotations

import io
import pickle
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import TorchCheckpointIO

from tian.config.compose import config_hash
from tian.errors import ContractError, DataError, ResumeMismatch
from tian.files import write_atomic
from tian.training.files import full_disk

if TYPE_CHECKING:
    from collections.abc import Callable

    from tian.runs.rundir import Run
    from tian.training.step_end import StepEnd

FORMAT = 1  # of the header; a newer one is refused
KEPT = 2


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first."""
    return sorted(folder.glob("step-*.ckpt"))


def step_in(path: Path) -> int:
    """The step a checkpoint's name says."""
    return int(path.stem.removeprefix("step-"))


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the highest step in `folder`, or None; it has not been read."""
    found = checkpoints(folder)
    return found[-1] if found else None


def archive_damage(path: Path) -> str | None:
    """What is wrong with the file as an archive, without unpickling anything."""
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError) as error:
        return str(error) or type(error).__name__
    return f"wrong checksum of {bad}" if bad else None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU: `state_dict`, `optimizer_states`, `tian` (the header), and more.

    Raises:
        DataError: it is damaged, or holds anything but tensors and plain values; nothing in it is run.
    """
    wrong = archive_damage(path)
    if wrong:
        raise DataError(f"the checkpoint {path.name} is damaged: {wrong}", where=str(path), hint="use an earlier one")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        content = None
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"the checkpoint {path.name} is damaged: {reason}", where=str(path), hint="use an earlier one"
        ) from None
    if not isinstance(content, dict) or not isinstance(content.get("tian"), dict):
        raise DataError(
            f"{path.name} is not a checkpoint of tian: it holds other objects than tensors and plain values, or no "
            "header; nothing in it was run",
            where=str(path),
            hint=f"find out who put it there; to go on from the one before, delete it: rm {path}",
        )
    return content


def newest_readable(
    folder: Path, *, config: str, say: Callable[[str], None], owner: bool
) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint to go on from and its content, or None when there is none at all.

    Args:
        folder: of the checkpoints.
        config: hash of the run's config.
        say: tells the user that a damaged one was passed over.
        owner: this process may set damaged files aside.

    Raises:
        DataError: every checkpoint is damaged, or one holds foreign objects.
        ResumeMismatch: it is of another config or a newer format.
    """
    found = checkpoints(folder)
    for path in reversed(found):
        wrong = archive_damage(path)
        if wrong is None:
            content = read_checkpoint(path)
            _check_header(content["tian"], path, config)
            return path, content
        if path is not found[0]:
            say(f"warning: {path.name} is damaged ({wrong}); going on from the checkpoint before it")
            if owner:
                path.rename(path.with_suffix(".damaged"))
    if found:
        raise DataError(
            f"no checkpoint can be read: {', '.join(p.name for p in [*folder.glob('*.damaged'), found[0]])}",
            where=str(folder),
            hint=f"put back a copy of one, or delete them to start this training over: rm {folder}/step-*",
        )
    return None


def _check_header(header: dict[str, Any], path: Path, config: str) -> None:
    if int(header.get("format", 0)) > FORMAT:
        raise ResumeMismatch(
            f"{path.name} was written in format {header['format']} by tian {header.get('framework')}, "
            f"this tian knows {FORMAT}",
            where=str(path),
            hint="upgrade tian-framework",
        )
    if header.get("config") != config:
        raise ResumeMismatch(
            f"{path.name} belongs to a run with config {header.get('config')}, this run has {config}",
            where=str(path),
            hint="put config.yaml back as it was, or start a new run without --resume",
        )


class AtomicIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it there; always reads weights-only."""

    def __init__(self) -> None:
        super().__init__()
        self._proved = False

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write `checkpoint` to `path`.

        Raises:
            RunError: the disk is full or refuses; the file that was there before is intact.
            ContractError: what a module or optimizer keeps could not be read back.
        """
        path = Path(path)
        buffer = io.BytesIO()  # torch's own writer reports a full disk as a crash of its archive
        torch.save(checkpoint, buffer)
        if not self._proved:
            _prove(buffer)
            self._proved = True
        with full_disk(path.parent, f"the checkpoint {path.name} ({buffer.tell() / 1e6:.1f} MB)"):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, buffer.getbuffer())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: Any = None) -> dict[str, Any]:
        """The content of a checkpoint; see `read_checkpoint`."""
        return read_checkpoint(Path(path))


def _prove(buffer: io.BytesIO) -> None:
    """A checkpoint that cannot be read back is better refused at the first save than found at a resume."""
    buffer.seek(0)
    try:
        torch.load(buffer, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        line = next((t for t in str(error).splitlines() if "GLOBAL" in t or "Unsupported" in t), str(error))
        raise ContractError(
            f"the state of the module or its optimizers cannot be in a checkpoint: {line.strip()[:200]}",
            where="state_dict, on_save_checkpoint or save_hyperparameters of the module",
            hint="keep tensors, numbers, strings, lists and dicts of these only",
        ) from None
    buffer.seek(0, io.SEEK_END)


class Checkpoints(Callback):
    """Saves when one is due and keeps the last two."""

    def __init__(self, run: Run, folder: Path, end: StepEnd) -> None:
        self._config = config_hash(run.config)
        self._folder = folder
        self._end = end

    def on_save_checkpoint(self, _trainer: Any, _module: Any, checkpoint: dict[str, Any]) -> None:
        """Add the header."""
        checkpoint["tian"] = {"format": FORMAT, "config": self._config, "framework": version("tian-framework")}

    def on_train_start(self, trainer: Any, _module: Any) -> None:
        """Remove what a killed process left half written."""
        if trainer.is_global_zero:
            for torn in self._folder.glob(".step-*.ckpt.*"):
                torn.unlink()

    def on_train_batch_end(self, trainer: Any, _module: Any, *_args: Any) -> None:
        """Save and tidy up."""
        if not self._end.saves:
            return
        trainer.save_checkpoint(self._folder / f"step-{self._end.step:07d}.ckpt", weights_only=False)
        if trainer.is_global_zero:
            for old in checkpoints(self._folder)[:-KEPT]:
                old.unlink()
