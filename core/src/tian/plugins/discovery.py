"""Find plugins and bring each to a state, one at a time: no failure of one reaches another.

Own loop instead of pluggy's `load_setuptools_entrypoints`, which lets the first exception out.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from tian.errors import TianError
from tian.plugins import hookspecs
from tian.plugins.guard import SLOW_SECONDS, Guarded, describe, guard
from tian.plugins.registrar import ConfigRegistrar, Entry, Registrar

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "tian.plugins"
BUILTIN = ("lm", "tian.hf.plugin")
CORE_DIST = "tian-framework"


@dataclass(frozen=True)
class Problem:
    """Something wrong with a plugin.

    Attributes:
        severity: `error` (something is missing because of it) or `warning`.
        message: what is wrong.
        where: `file:line` or distribution.
        hint: what to do.
    """

    severity: str
    message: str
    where: str = ""
    hint: str = ""


@dataclass
class PluginInfo:
    """A plugin and its state: installed | loaded | disabled | incompatible | broken."""

    name: str
    dist: str
    version: str
    module: str
    state: str = "installed"
    problems: list[Problem] = field(default_factory=list)
    seconds: float = 0.0
    entries: list[Entry] = field(default_factory=list)
    config_folder: Path | None = None

    def fail(self, state: str, message: str, *, where: str = "", hint: str = "") -> None:
        """Record an error and set the state."""
        self.state = state
        self.problems.append(Problem("error", message, where or f"{self.dist} {self.version}", hint))


def installed() -> list[tuple[PluginInfo, Sequence[str]]]:
    """Every plugin the metadata names, sorted by name, with its distribution's requirements; nothing is imported."""
    from importlib.metadata import entry_points

    found = [(PluginInfo(BUILTIN[0], CORE_DIST, _core_version(), BUILTIN[1]), ())]
    eps: list[EntryPoint] = list(entry_points(group=GROUP))
    rest = []
    for ep in eps:
        dist = ep.dist
        info = PluginInfo(ep.name, dist.name if dist else "?", dist.version if dist else "?", ep.value)
        rest.append((info, tuple(dist.requires or ()) if dist else ()))
    rest.sort(key=lambda pair: (pair[0].name, pair[0].dist))
    return [*found, *rest]


def _core_version() -> str:
    from tian import __version__

    return __version__


def incompatible(requires: Sequence[str]) -> str | None:
    """The requirement on tian-framework that this tian does not meet, if any."""
    if not any(r.lower().replace("_", "-").startswith(CORE_DIST) for r in requires):
        return None
    from packaging.requirements import InvalidRequirement, Requirement

    for text in requires:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.name.lower().replace("_", "-") != CORE_DIST:
            continue
        if not requirement.specifier.contains(_core_version(), prereleases=True):
            return text
    return None


def _names(variable: str) -> set[str] | None:
    value = os.environ.get(variable)
    return None if value is None else {name.strip() for name in value.split(",") if name.strip()}


def discover(*, fast: bool = False, extra_files: Sequence[Path] = ()) -> tuple[pluggy.PluginManager, list[PluginInfo]]:
    """All plugins, loaded as far as each will go.

    Environment: TIAN_PLUGINS=a,b loads only these (empty: none), TIAN_DISABLE_PLUGINS=a leaves some out,
    TIAN_STRICT=1 lets the first error out.

    Args:
        fast: stop at the metadata; every state is `installed` or `disabled`.
        extra_files: one-off plugins (`tian -p FILE.py`).
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    only, without = _names("TIAN_PLUGINS"), _names("TIAN_DISABLE_PLUGINS") or set()
    infos, names = [], set()
    for info, requires in installed():
        infos.append(info)
        if info.name in without or (only is not None and info.name not in only and info.dist != CORE_DIST):
            info.state = "disabled"
            continue
        if info.name in names:
            info.fail(
                "broken",
                f"another distribution already provides a plugin called {info.name!r}",
                hint=f"uninstall one of them, or set TIAN_DISABLE_PLUGINS={info.name}",
            )
            continue
        names.add(info.name)
        if (missed := incompatible(requires)) is not None:
            info.fail(
                "incompatible",
                f"it requires {missed}, this is {CORE_DIST} {_core_version()}",
                hint=f"pip install -U {CORE_DIST} {info.dist}",
            )
        elif not fast:
            _load(info, manager, lambda module=info.module: importlib.import_module(module))
    for path in extra_files if not fast else ():
        info = PluginInfo(path.stem, str(path), "file", path.stem)
        infos.append(info)
        _load(info, manager, lambda path=path: _import_file(path))
    return manager, infos


def _import_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module


def _blame(info: PluginInfo, result: Guarded, doing: str) -> None:
    """Turn a failure into a problem with a remedy."""
    error = result.error
    assert error is not None  # noqa: S101 - callers check
    if os.environ.get("TIAN_STRICT") == "1":
        raise error
    hint = f"report it to the author of {info.dist}, or set TIAN_DISABLE_PLUGINS={info.name}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        hint = f"pip install {error.name.split('.')[0]}"
    elif isinstance(error, TianError) and error.hint:
        hint = error.hint
    where = error.where if isinstance(error, TianError) and error.where else result.where
    info.problems.append(Problem("error", f"{doing}: {describe(error)}", where or f"{info.dist} {info.version}", hint))


def _load(info: PluginInfo, manager: pluggy.PluginManager, importer: Any) -> None:
    result = guard(importer)
    info.seconds = result.seconds
    if result.error is not None:
        _blame(info, result, f"importing {info.module}")
        info.state = "broken"
        return
    module = result.value
    source = getattr(module, "__file__", None) or info.module
    if result.heavy:
        _warn(info, f"importing it pulls in {', '.join(result.heavy)}, which slows every command", source)
    elif result.seconds > SLOW_SECONDS:
        _warn(info, f"importing it takes {result.seconds:.1f} s, which slows every command", source)
    _check_hook_names(info, module, source)
    registered = guard(lambda: manager.register(module, name=info.name))
    if registered.error is not None:
        _blame(info, registered, "registering its hooks")
        info.state = "broken"
        return
    info.state = "loaded"
    for kind, hook in hookspecs.HOOK_OF.items():
        registrar = Registrar(kind, info.name, info.dist, info.version)
        if _call(info, manager, hook, registrar):
            info.entries.extend(registrar.entries)
    configs = ConfigRegistrar()
    if _call(info, manager, "tian_register_configs", configs):
        info.config_folder = configs.folder


def _warn(info: PluginInfo, message: str, where: str) -> None:
    if os.environ.get("TIAN_STRICT") == "1":
        raise TianError(f"plugin {info.name}: {message}", where=where, hint="import it inside the functions that use it")
    info.problems.append(Problem("warning", message, f"{where}:1", "import it inside the functions that use it"))


def _call(info: PluginInfo, manager: pluggy.PluginManager, hook: str, argument: Any) -> bool:
    """Call one plugin's implementation of a register hook; False when it has none or raised (its work is dropped)."""
    caller = getattr(manager.hook, hook)
    for impl in caller.get_hookimpls():
        if impl.plugin_name != info.name:
            continue
        arguments = {"register": argument}
        result = guard(lambda impl=impl: impl.function(*[arguments[a] for a in impl.argnames]))
        if result.error is None:
            return True
        _blame(info, result, f"in {hook}")
    return False


def _check_hook_names(info: PluginInfo, module: Any, source: str) -> None:
    """A hook implementation without a spec is a typo or meant for a newer tian."""
    known = hookspecs.known_hooks()
    for name, value in vars(module).items():
        marker = getattr(value, "tian_impl", None)
        if marker is None or name in known or marker.get("optionalhook"):
            continue
        near = difflib.get_close_matches(name, known, n=1)
        line = getattr(getattr(value, "__code__", None), "co_firstlineno", 1)
        hint = f"did you mean {near[0]}?" if near else "upgrade tian-framework, or mark it optionalhook=True"
        info.problems.append(Problem("error", f"there is no hook called {name}", f"{source}:{line}", hint))
