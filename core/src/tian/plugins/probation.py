"""A plugin seen for the first time is imported in a child process before it may be imported here.

An exception can be caught, the end of the process and an endless loop cannot. So a new plugin is tried in a child, and
the verdict is kept in a cache; one that was good before costs a look at its files. A verdict says only whether the
process survives the import: what the plugin raises is caught, and told better, where it is loaded.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tian.plugins.installed import CORE_DIST, PluginInfo
from tian.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMIT_SECONDS = 5.0  # for importing one plugin
FORMAT = 1  # of the cache; another one is as good as none

Stamps = dict[str, list[int]]  # file -> [size in bytes, time of its last change in ns]


def examine(infos: Sequence[PluginInfo]) -> None:
    """Mark as `broken` those plugins whose import would end or block this process; the others stay as they are.

    All new ones share one child, which is started again behind each that does not survive. Where no child can be
    started there is no verdict, and the plugins are imported unexamined.
    """
    known = _read()
    new: list[tuple[PluginInfo, str, list[Path]]] = []
    for info in infos:
        if info.dist == CORE_DIST or info.module in sys.modules or ":" in info.module:
            continue
        files = module_files(info.module)
        if not files:
            continue  # nothing that could run
        key = _key(info, files[-1])
        verdict = known.get(key)
        if verdict is None or verdict["files"] != stamps(verdict["files"]):
            new.append((info, key, files))
        elif verdict["problem"] is not None:
            _fail(info, *verdict["problem"])
    if new:
        _try(new)


def forget() -> None:
    """Drop every verdict, so that each plugin is tried again."""
    with contextlib.suppress(OSError, RuntimeError):
        cache_file().unlink()


def module_files(module: str) -> list[Path]:
    """The files an import of `module` runs first, packages before what is in them; nothing is imported.

    Empty when there is no such module. Files inside archives are left out.
    """
    files: list[Path] = []
    name, path = "", None
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        spec = _find(name, path)
        if spec is None:
            break
        if spec.has_location and spec.origin and Path(spec.origin).is_file():
            files.append(Path(spec.origin))
        path = spec.submodule_search_locations
        if path is None:
            break
    return files


def _find(name: str, path: Any) -> Any:
    """The spec of a module; `importlib.util.find_spec` would import the packages above it."""
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        with contextlib.suppress(Exception):  # a finder of a stranger
            spec = find(name, path) if find else None
            if spec is not None:
                return spec
    return None


def stamps(files: Any) -> Stamps:
    """Size and time of change of each file; one that is gone is left out, so that the stamps differ."""
    found: Stamps = {}
    for file in files:
        with contextlib.suppress(OSError):
            status = Path(file).stat()
            found[str(file)] = [status.st_size, status.st_mtime_ns]
    return found


def _key(info: PluginInfo, file: Path) -> str:
    python = ".".join(map(str, sys.version_info[:3]))
    return "|".join((info.name, info.dist, info.version, str(file), python, sys.prefix, __version__))


def _try(new: Sequence[tuple[PluginInfo, str, list[Path]]]) -> None:
    from tian.plugins.probe import try_imports

    verdicts: dict[str, Any] = {}
    ends = try_imports([info.module for info, _, _ in new], limit=LIMIT_SECONDS)
    for (info, key, files), end in zip(new, ends, strict=False):  # shorter when the child could not be started
        problem = None
        if end.message:
            own = [f for f in end.frames if f[0] == str(files[-1]) or f[0].startswith(f"{files[0].parent}{os.sep}")]
            file, line = (own or end.frames or [(str(files[-1]), 0)])[0]
            problem = [f"importing {info.module} {end.message}", f"{file}:{line}" if line else file]
            _fail(info, *problem)
            files.append(Path(file))  # when that file changes, the verdict is void
        verdicts[key] = {"files": stamps(files), "problem": problem}
    _write(verdicts)


def _fail(info: PluginInfo, message: str, where: str) -> None:
    hint = f"install another version of {info.dist}, or set TIAN_DISABLE_PLUGINS={info.name}; `tian doctor` tries again"
    info.fail("broken", message, where=where, hint=hint)


# -- the cache -------------------------------------------------------------------------------------------------------


def cache_file() -> Path:
    """`$XDG_CACHE_HOME/tian/probation.json`, by default below `~/.cache`.

    Raises:
        RuntimeError: there is no home directory.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    folder = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"  # a relative one is to be ignored
    return folder / "tian" / "probation.json"


def _read() -> dict[str, Any]:
    """Key -> `{files, problem}`; empty when the cache cannot be read, whatever the reason."""
    import json

    try:
        content = json.loads(cache_file().read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            return {}
        return {k: v for k, v in content["verdicts"].items() if _sound(v)}
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _sound(verdict: Any) -> bool:
    if not isinstance(verdict, dict) or not isinstance(verdict.get("files"), dict) or not verdict["files"]:
        return False
    problem = verdict.get("problem", False)
    return problem is None or (isinstance(problem, list) and [type(p) for p in problem] == [str, str])


def _write(verdicts: dict[str, Any]) -> None:
    """Add to the cache, whole or not at all; what another process adds meanwhile may be lost, and is found again."""
    import json
    import tempfile

    known = {k: v for k, v in _read().items() if all(map(os.path.exists, v["files"]))} | verdicts
    with contextlib.suppress(OSError, RuntimeError):
        path = cache_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"format": FORMAT, "verdicts": known}, file)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
