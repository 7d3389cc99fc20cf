"""The run directory: what a recipe writes to, who owns it, and whether it may be continued."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tian.errors import DataError, ResumeMismatch, RunBusy, RunError
from tian.runs.files import append_jsonl, read_json, read_jsonl, write_json
from tian.runs.progress import Progress

if TYPE_CHECKING:
    from omegaconf import DictConfig

FORMAT = 1  # of the directory; a newer one is refused


def boot_id() -> str:
    """Identifies this boot of this machine, so that a pid of an earlier boot is not taken for a living one."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"


def now() -> str:
    """UTC time, ISO 8601, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Run:
    """One run: its directory, its config, and the means to write results that survive a crash.

    Attributes:
        path: the directory.
        config: the composed config; plain attribute access.
        resumed: True when the directory already existed and is being continued.
    """

    def __init__(self, path: Path, config: DictConfig, *, resumed: bool = False) -> None:
        self.path = path
        self.config = config
        self.resumed = resumed
        self.components: list[dict[str, Any]] = []
        self._lock: int | None = None

    # -- ownership -------------------------------------------------------------------------------------------------

    def acquire(self) -> None:
        """Take the directory for this process.

        The kernel drops the lock when its owner dies, so a killed run can be taken over at once.

        Raises:
            RunBusy: another living process owns it.
        """
        handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(handle, 200).decode(errors="replace").strip() or "another process"
            os.close(handle)
            raise RunBusy(
                f"the run is being written by {owner}",
                where=str(self.path),
                hint="wait for it to end, stop it, or start a new run without --resume",
            ) from None
        os.ftruncate(handle, 0)
        os.write(handle, f"pid {os.getpid()}".encode())
        self._lock = handle

    def release(self) -> None:
        """Give the directory up."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # -- files -----------------------------------------------------------------------------------------------------

    def set_status(self, state: str, **more: Any) -> None:
        """Write status.json: state created | running | finished | failed | interrupted, pid, boot id, heartbeat."""
        old = self.status()
        new = {
            **old,
            "format": FORMAT,
            "state": state,
            "pid": os.getpid(),
            "boot_id": boot_id(),
            "heartbeat": now(),
            **more,
        }
        new.setdefault("created", now())
        write_json(self.path / "status.json", new)

    def status(self) -> dict[str, Any]:
        """The content of status.json, {} when there is none."""
        file = self.path / "status.json"
        return dict(read_json(file)) if file.exists() else {}

    def beat(self) -> None:
        """Refresh the heartbeat in status.json."""
        write_json(self.path / "status.json", {**self.status(), "heartbeat": now()})

    def write_json(self, name: str, value: Any) -> None:
        """Write `name` in the directory, atomically."""
        write_json(self.path / name, value)

    def read_json(self, name: str) -> Any:
        """Parsed `name`, or None when the file is not there."""
        file = self.path / name
        return read_json(file) if file.exists() else None

    def log_metrics(self, row: Mapping[str, Any]) -> None:
        """Append a row to metrics.jsonl."""
        append_jsonl(self.path / "metrics.jsonl", dict(row))

    def metrics_rows(self) -> list[dict[str, Any]]:
        """Rows of metrics.jsonl."""
        return read_jsonl(self.path / "metrics.jsonl")

    # -- talking ---------------------------------------------------------------------------------------------------

    def info(self, message: str) -> None:
        """Tell the user (stderr) and the log."""
        print(message, file=sys.stderr, flush=True)  # noqa: T201
        self.log(message)

    def log(self, message: str) -> None:
        """Add a line to logs/run.log only."""
        folder = self.path / "logs"
        folder.mkdir(exist_ok=True)
        with (folder / "run.log").open("a", encoding="utf-8") as file:
            file.write(f"{now()} {message}\n")

    def progress(self, total: int, desc: str, *, done: int = 0) -> Progress:
        """Progress over `total` units, as a context manager."""
        return Progress(total, desc, done=done)

    # -- components ------------------------------------------------------------------------------------------------

    def load(self, role: str, node: Mapping[str, Any]) -> Any:
        """Construct the component of a `{use: NAME, option: ...}` node and record where it came from.

        Raises:
            UnknownName, MissingDependency, PluginError, ConfigError: from the registry.
        """
        from tian.plugins.provenance import provenance
        from tian.plugins.registry import get_registry

        registry = get_registry()
        options = {str(k): v for k, v in node.items() if k != "use"}
        component = registry.load(role, str(node["use"]), **options)
        record = provenance(registry.resolve(role, str(node["use"])))
        if record not in self.components:
            self.components.append(record)
        return component


def new_run_path(root: Path, name: str, config_hash: str) -> Path:
    """`root/<plugin>/<run>/<UTC time>-<hash>`, unused so far."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    base = root / name / f"{stamp}-{config_hash}"
    path, i = base, 2
    while path.exists():
        path, i = base.with_name(f"{base.name}-{i}"), i + 1
    return path


def create(path: Path, config: DictConfig) -> Run:
    """Make a fresh run directory at `path`.

    Raises:
        RunError: the path is a file, holds a run, or holds anything else; nothing in it is touched.
    """
    hint = "choose another --dir, or continue that run with --resume"
    for parent in [path, *path.parents]:
        if parent.exists() and not parent.is_dir():
            raise RunError(
                f"{parent} is a file; a run needs a directory there", where=str(path), hint="choose another --dir"
            )
    if path.exists() and any(path.iterdir()):
        kind = "already holds a run" if (path / "status.json").exists() else "holds files that are not a run's"
        raise RunError(f"the directory {path} {kind}; nothing was changed", where=str(path), hint=hint)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"cannot create {path}: {error.strerror}", where=str(path), hint="choose another --dir"
        ) from None
    run = Run(path, config)
    run.acquire()
    return run


def open_existing(path: Path) -> Run:
    """Open a run directory for reading (`tian report`) or, after `acquire`, for continuing.

    Raises:
        DataError: not a run directory, or a damaged one.
        ResumeMismatch: written by a newer format.
    """
    from omegaconf import OmegaConf

    if not path.is_dir():
        raise DataError(f"{path} is not a directory", where=str(path), hint="give the folder that `tian run` printed")
    if not (path / "status.json").exists() or not (path / "config.yaml").exists():
        raise DataError(
            f"{path} is not a run directory: status.json or config.yaml is missing",
            where=str(path),
            hint="give the folder that `tian run` printed",
        )
    try:
        status = read_json(path / "status.json")
        config = OmegaConf.load(path / "config.yaml")
        found = int(status["format"])
        known = OmegaConf.is_dict(config) and "recipe" in config and "name" in status
    except Exception as error:  # noqa: BLE001 - any damage to these two files means the same to the user
        raise DataError(
            f"the run directory is damaged: {type(error).__name__}: {error}", where=str(path), hint="start a new run"
        ) from None
    if found > FORMAT:
        raise ResumeMismatch(
            f"the run was written in format {found}, this tian knows {FORMAT}",
            where=str(path),
            hint="upgrade tian-framework",
        )
    if not known:
        raise DataError("the run directory names no recipe or run", where=str(path), hint="start a new run")
    return Run(path, config, resumed=True)  # type: ignore[arg-type]


def last_run(root: Path, name: str) -> Path:
    """The newest directory of run `name` under `root`.

    Raises:
        DataError: there is none.
    """
    # By the time in the name; within one second (`-2` ... `-10`) by the file.
    found = sorted(
        (p.parent for p in (root / name).glob("*/status.json")),
        key=lambda p: (p.name.partition("-")[0], (p / "status.json").stat().st_mtime_ns),
    )
    if not found:
        raise DataError(f"no run of {name} under {root}", where=str(root), hint=f"start one: tian run {name}")
    return found[-1]
