"""What a result depends on besides its configuration: the code that ran and the worlds it ran in, as hashes."""

from __future__ import annotations

import hashlib
import importlib.util
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tian.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tian.claims.model import World

# Parts of core a measured number can depend on. The rest (command line, claims, testing) only shows or asks.
CORE_PARTS = ("spec", "config", "training", "hf", "runs", "files.py", "types.py", "errors.py")
# What in a plugin states or draws, but does not measure: bars may be read anew without running anything again.
NOT_MEASURING = ("claims.py", "report.py", "*_report.py")  # files, in any folder of the package
STATING = "claims"  # and all in folders of this name
SUFFIXES = (".py", ".yaml")


def package_folder(module: str) -> Path:
    """The folder of the top-level package of `module`, without importing it (its own file for a lone module).

    Raises:
        PluginError: it cannot be found.
    """
    top = module.partition(".")[0]
    spec = importlib.util.find_spec(top)
    if spec is None or (not spec.submodule_search_locations and not spec.origin):
        raise PluginError(f"the package {top!r} cannot be found", hint="install it again")
    return Path(spec.submodule_search_locations[0] if spec.submodule_search_locations else str(spec.origin))


def _digest(root: Path, files: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for file in sorted(files):
        total.update(file.relative_to(root).as_posix().encode() + b"\0")
        total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def _sources(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    return [f for f in place.rglob("*") if f.suffix in SUFFIXES and "__pycache__" not in f.parts]


def _measures(file: Path) -> bool:
    """Whether a file can change a measured number, by its path inside the package."""
    return STATING not in file.parts[:-1] and not any(file.match(pattern) for pattern in NOT_MEASURING)


def code_hash(module: str) -> str:
    """16 hex digits over the sources and configs of a plugin's package and of the parts of core that measure."""
    core = package_folder("tian")
    own = package_folder(module)
    root = own if own.is_dir() else own.parent
    mine = _digest(root, (f for f in _sources(own) if _measures(f.relative_to(root))))
    shared = _digest(core, (f for part in CORE_PARTS for f in _sources(core / part)))
    return hashlib.sha256(f"{mine}{shared}".encode()).hexdigest()[:16]


def world_hash(world: World) -> str:
    """16 hex digits over the files of a world.

    Raises:
        PluginError: its content does not exist.
    """
    package, _, path = world.content.partition(":")
    root = package_folder(package)
    place = root / path if path else root
    if not place.exists():
        raise PluginError(
            f"the world {world.name!r} names {world.content}, which does not exist", hint="correct its content"
        )
    files = [place] if place.is_file() else [f for f in place.rglob("*") if f.is_file() and f.suffix != ".pyc"]
    return _digest(place.parent, files)[:16]


def worlds_of(worlds: Iterable[World]) -> dict[str, dict[str, Any]]:
    """Name -> version and hash."""
    return {w.name: {"version": w.version, "sha256": world_hash(w)} for w in worlds}


def hardware() -> str:
    """The processor and the accelerator, in words."""
    name = platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    import os

    text = f"{os.cpu_count()} x {name}"
    if importlib.util.find_spec("torch") is not None:
        import torch

        if torch.cuda.is_available():
            text += f", {torch.cuda.get_device_name(0)}"
    return text
