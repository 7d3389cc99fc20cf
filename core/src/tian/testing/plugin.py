"""pytest fixtures; loaded through the entry point of tian-framework. Imports nothing heavy.

Fixtures:
    install_plugin: write a plugin distribution (metadata and modules) into a folder on sys.path.
    plugin_file: write a one-off plugin, as for `tian -p FILE.py`.
    fresh_registry: forget the cached registry before and after the test.
    run_dir: an open run directory with an empty config.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tian.runs.rundir import Run


def pytest_configure(config: pytest.Config) -> None:
    """No test writes to the user's cache."""
    folder = tempfile.TemporaryDirectory()
    os.environ["XDG_CACHE_HOME"] = folder.name
    config.add_cleanup(folder.cleanup)


def write_distribution(
    folder: Path,
    name: str,
    *,
    modules: Mapping[str, str],
    entry_points: Mapping[str, str],
    version: str = "1.0",
    requires: tuple[str, ...] = ("tian-framework>=0.1",),
) -> None:
    """Write modules and a dist-info folder that importlib.metadata takes for an installed distribution.

    Args:
        folder: a folder on sys.path.
        name: of the distribution.
        modules: file name (`my_plugin.py`) -> source.
        entry_points: plugin name -> module, in the group `tian.plugins`.
        version: of the distribution.
        requires: its `Requires-Dist` lines.
    """
    for file, source in modules.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {r}" for r in requires),
    ]
    (info / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")
    points = "\n".join(f"{plugin} = {module}" for plugin, module in entry_points.items())
    (info / "entry_points.txt").write_text(f"[tian.plugins]\n{points}\n", encoding="utf-8")


@pytest.fixture
def fresh_registry() -> Iterator[None]:
    """A registry that is discovered anew in this test and forgotten after it."""
    from tian.plugins.registry import reset_registry

    reset_registry()
    yield
    reset_registry()


def _forget_modules(folder: Path) -> None:
    """Drop what was imported from `folder`, so that a later test with the same names imports its own."""
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(f"{folder}{os.sep}"):
            del sys.modules[name]
    importlib.invalidate_caches()


@pytest.fixture
def install_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_registry: None
) -> Iterator[Callable[..., Path]]:
    """A function `(name, *, modules, entry_points, version=, requires=)` that installs a plugin for this test.

    It returns the folder, which is on sys.path and, for subprocesses, on PYTHONPATH. The switches TIAN_PLUGINS,
    TIAN_DISABLE_PLUGINS and TIAN_STRICT of the surrounding shell are unset.
    """
    from tian.plugins.registry import reset_registry

    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")])))
    for variable in ("TIAN_PLUGINS", "TIAN_DISABLE_PLUGINS", "TIAN_STRICT"):
        monkeypatch.delenv(variable, raising=False)

    def install(name: str, **parts: Any) -> Path:
        write_distribution(folder, name, **parts)
        _forget_modules(folder)
        reset_registry()
        return folder

    yield install
    _forget_modules(folder)


@pytest.fixture
def plugin_file(tmp_path: Path, fresh_registry: None) -> Iterator[Callable[..., Path]]:
    """A function `(source, *, name="one_off")` that writes `name.py` and returns its path.

    Hand it to `get_registry(extra_files=[...])`; the module is forgotten after the test.
    """
    written: list[str] = []

    def write(source: str, *, name: str = "one_off") -> Path:
        path = tmp_path / f"{name}.py"
        path.write_text(source, encoding="utf-8")
        written.append(name)
        return path

    yield write
    for name in written:
        module = sys.modules.get(name)
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[Run]:
    """A `tian.runs.rundir.Run` in a fresh folder, owned by this process until the test ends."""
    from omegaconf import OmegaConf

    from tian.runs.rundir import create

    run = create(tmp_path / "run", OmegaConf.create({}))
    yield run
    run.release()
