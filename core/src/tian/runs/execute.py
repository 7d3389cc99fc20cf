"""`run`: compose, own a directory, call the recipe, leave results, status and a report whatever happens."""

from __future__ import annotations

import platform
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from tian.config.compose import compose, config_hash
from tian.config.index import find_run
from tian.errors import ConfigError, TianError
from tian.plugins.provenance import provenance
from tian.plugins.registry import get_registry
from tian.files import write_atomic
from tian.runs.rundir import Run, create, last_run, new_run_path, now, open_existing
from tian.types import Measurement

if TYPE_CHECKING:
    from omegaconf import DictConfig

TERMINATED = 143  # the exit code of SIGTERM; any other SystemExit comes from the recipe itself
LIBRARIES = ("torch", "transformers", "lightning", "omegaconf", "pluggy", "numpy")


@dataclass(frozen=True)
class RunResult:
    """What `run` gives back: the directory, what was measured, and the config."""

    path: Path | None
    config: DictConfig
    measurements: list[Measurement] = field(default_factory=list)


def command_line(name: str, overrides: Sequence[str]) -> str:
    """The command that starts this run again."""
    import shlex

    return shlex.join(["tian", "run", name, *overrides])


def run(
    name: str,
    overrides: Sequence[str] = (),
    *,
    resume: str | Path | None = None,
    folder: str | Path | None = None,
    root: str | Path = "runs",
    dry_run: bool = False,
) -> RunResult:
    """Run `name` in a fresh directory, or continue one.

    Args:
        name: `plugin/run` or a short name.
        overrides: as on the command line.
        resume: a run directory, or `last` for the newest of this run under `root`; its own config is used.
        folder: directory of a fresh run, instead of `root/<name>/<time>-<hash>`.
        root: where run directories go.
        dry_run: compose and check needs only; nothing is written.

    Returns:
        The result; `path` is None for a dry run.

    Raises:
        ConfigError, UnknownName, InvalidInput: from composing.
        RunError: the directory cannot be used. RunBusy: another process writes it. DataError: it is not a run.
        Whatever the recipe raises; the status file then says `failed` or `interrupted`.
    """
    name = find_run(name).name
    if resume is not None:
        current = _reopen(name, overrides, resume, Path(root), folder)
        overrides = current.status().get("overrides", [])
    else:
        config, _ = compose(name, overrides)
        recipe = get_registry().resolve("recipe", str(config.recipe))
        get_registry().target(recipe)
        if dry_run:
            return RunResult(None, config)
        path = Path(folder) if folder is not None else new_run_path(Path(root), name, config_hash(config))
        current = create(path, config)
        write_atomic(path / "config.yaml", OmegaConf.to_yaml(config))
        write_atomic(path / "overrides.txt", "".join(f"{o}\n" for o in overrides))
    try:
        return _execute(current, name, list(overrides))
    finally:
        current.release()


def _reopen(name: str, overrides: Sequence[str], resume: str | Path, root: Path, folder: str | Path | None) -> Run:
    if overrides or folder is not None:
        raise ConfigError(
            "--resume continues a run with its own config; overrides and --dir do not apply",
            where="command line",
            hint="leave them out, or start a new run without --resume",
        )
    path = last_run(root, name) if str(resume) == "last" else Path(resume)
    current = open_existing(path)
    found = current.status()["name"]
    if found != name:
        raise ConfigError(
            f"{path} is a run of {found}, not of {name}", where=str(path), hint=f"tian run {found} --resume {path}"
        )
    current.acquire()
    return current


def _execute(current: Run, name: str, overrides: list[str]) -> RunResult:
    registry = get_registry()
    entry = registry.resolve("recipe", str(current.config.recipe))
    recipe = registry.target(entry)
    if current.resumed:
        _warn_of_changes(current)
    current.components.append(provenance(entry))
    current.set_status("running", name=name, overrides=overrides, command=command_line(name, overrides), error=None)
    list(registry.call_each("tian_run_started", run=current))
    outcome, error = "failed", None
    try:
        measurements = list(recipe(current.config, current))
        outcome = "finished"
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and stop.code != TERMINATED:
            error = f"the recipe called sys.exit({stop.code!r})"
            raise
        outcome = "interrupted"
        current.info(f"interrupted; continue with: tian run {name} --resume {current.path}")
        raise
    except BaseException as failure:
        error = f"{type(failure).__name__}: {failure}"
        if not isinstance(failure, TianError):
            current.log(traceback.format_exc())
        raise
    finally:
        current.write_json("provenance.json", _provenance(current))
        list(registry.call_each("tian_run_finished", run=current, outcome=outcome))
        if outcome != "finished":
            current.set_status(outcome, finished=now(), error=error)
    current.write_json("metrics.json", [m.as_dict() for m in measurements])
    current.set_status("finished", finished=now())
    from tian.runs.report import render

    render(current.path)
    return RunResult(current.path, current.config, measurements)


def _warn_of_changes(current: Run) -> None:
    """Say which components are no longer the ones the run began with; it goes on all the same."""
    registry = get_registry()
    for old in (current.read_json("provenance.json") or {}).get("components", []):
        new = provenance(registry.resolve(old["kind"], old["name"]))
        if new["sha256"] != old["sha256"] or new["version"] != old["version"]:
            current.info(
                f"warning: {old['kind']} {old['name']} has changed since the run began "
                f"({old['dist']} {old['version']} -> {new['dist']} {new['version']})"
            )


def _provenance(current: Run) -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for library in LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "argv0": Path(sys.argv[0]).name,
        "libraries": versions,
        "config_hash": config_hash(current.config),
        "components": current.components,
    }
