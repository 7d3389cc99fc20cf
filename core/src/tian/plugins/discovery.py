"""Find plugins and bring each to a state, one at a time: no failure of one reaches another.

Own loop instead of pluggy's `load_setuptools_entrypoints`, which lets the first exception out.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import re
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pluggy

from tian.errors import DataError, PluginError, TianError
from tian.plugins import hookspecs
from tian.plugins.guard import SLOW_SECONDS, Guarded, describe, guard, remedy
from tian.plugins.installed import CORE_DIST, PluginInfo, Problem, incompatible, installed
from tian.plugins.probation import examine
from tian.plugins.registrar import ClaimRegistrar, ConfigRegistrar, Registrar
from tian.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def _names(variable: str) -> set[str] | None:
    value = os.environ.get(variable)
    return None if value is None else {name.strip() for name in value.split(",") if name.strip()}


def discover(*, fast: bool = False, extra_files: Sequence[Path] = ()) -> tuple[pluggy.PluginManager, list[PluginInfo]]:
    """All plugins, loaded as far as each will go.

    Environment: TIAN_PLUGINS=a,b loads only these and the built-in one, TIAN_DISABLE_PLUGINS=a leaves some out,
    TIAN_STRICT=1 lets the first error out.

    Args:
        fast: stop at the metadata; no state is `loaded`.
        extra_files: one-off plugins (`tian -p FILE.py`); loaded whatever TIAN_PLUGINS says.

    Raises:
        DataError: one of `extra_files` does not exist.
        PluginError, or what the plugin raised: under TIAN_STRICT=1 only.
    """
    for path in extra_files:
        if not path.is_file():
            raise DataError(
                f"there is no plugin file {path}", where=f"-p {path}", hint="give the path of a Python file"
            )
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    only, without = _names("TIAN_PLUGINS"), _names("TIAN_DISABLE_PLUGINS") or set()
    infos: list[PluginInfo] = []
    names: dict[str, str] = {}
    good: list[PluginInfo] = []
    for info, requires in installed():
        infos.append(info)
        if info.state == "broken":
            continue
        if info.name in without or (only is not None and info.name not in only and info.dist != CORE_DIST):
            info.state = "disabled"
            continue
        if info.name in names:
            info.fail(
                "broken",
                f"another distribution, {names[info.name]}, already provides a plugin called {info.name!r}",
                where=info.line("entry_points.txt", info.module),
                hint=f"pip uninstall {info.dist}, or {names[info.name]}: only one of them can be used",
            )
            continue
        names[info.name] = info.dist
        if (missed := incompatible(requires)) is not None:
            info.fail(
                "incompatible",
                f"it requires {missed}, this is {CORE_DIST} {__version__}",
                where=info.line("METADATA", missed),
                hint=f"pip install -U {CORE_DIST} {info.dist}",
            )
        else:
            good.append(info)
    if not fast:
        _load_installed(good, manager)
    known = [info.name for info in infos]
    infos += [_absent(name, known) for name in sorted(only or ()) if name not in known]
    for path in extra_files if not fast else ():
        info = PluginInfo(path.stem, str(path), "file", path.stem)
        infos.append(info)
        if info.name in names:
            info.fail("broken", f"a plugin called {info.name!r} is already loaded", hint="rename the file")
            continue
        names[info.name] = info.dist
        _load(info, manager, lambda path=path: _import_file(path))
    return manager, infos


def _load_installed(infos: Sequence[PluginInfo], manager: pluggy.PluginManager) -> None:
    """Load those that this process will survive."""
    examine(infos)
    for info in infos:
        if info.state == "installed":
            _load(info, manager, partial(_import_module, info.module))
        elif os.environ.get("TIAN_STRICT") == "1":
            problem = info.problems[-1]
            raise PluginError(f"plugin {info.name}: {problem.message}", where=problem.where, hint=problem.hint)


def _absent(name: str, known: Sequence[str]) -> PluginInfo:
    """Stands for a name in TIAN_PLUGINS that nobody has: better seen than silently missed."""
    near = difflib.get_close_matches(name, known, n=1)
    info = PluginInfo(name, "?", "?", "")
    info.fail(
        "broken",
        f"TIAN_PLUGINS names {name!r}, which is not installed",
        where="TIAN_PLUGINS",
        hint=f"did you mean {near[0]!r}?" if near else f"installed: {', '.join(known)}",
    )
    return info


def _import_module(module: str) -> Any:
    if ":" in module:
        raise ImportError(f"the entry point must name a module, got {module!r}")
    return importlib.import_module(module)


def _import_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file: its name must end in .py")
    before = sys.modules.get(path.stem)
    if before is not None and getattr(before, "__file__", None) != spec.origin:
        raise ImportError(f"a module called {path.stem!r} exists already; rename the file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # so that its targets, "file:Class", resolve
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module


def _blame(info: PluginInfo, result: Guarded, doing: str) -> None:
    """Turn a failure into a problem with a remedy."""
    error = result.error
    if error is None:
        return
    if os.environ.get("TIAN_STRICT") == "1":
        raise error
    hint = remedy(error, dist=info.dist, plugin=info.name, module=info.module)
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
    for library, where in result.heavy.items():
        _warn(info, f"importing it pulls in {library}, which slows every command", where)
    if not result.heavy and result.seconds > SLOW_SECONDS:
        _warn(info, f"importing it takes {result.seconds:.1f} s, which slows every command", f"{source}:1")
    _check_hook_names(info, module, source)
    registered = guard(lambda: manager.register(module, name=info.name))
    if registered.error is not None:
        hook = getattr(getattr(module, _hook_name(registered.error), None), "__code__", None)
        registered.where = f"{source}:{hook.co_firstlineno}" if hook else source  # not a line inside pluggy
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
    claims = ClaimRegistrar()
    if _call(info, manager, "tian_register_claims", claims):
        info.claims = claims.target


def _hook_name(error: BaseException) -> str:
    """The hook a pluggy validation error is about, empty when it names none."""
    found = re.search(r"for hook '(\w+)'", str(error))
    return found[1] if found else ""


def _warn(info: PluginInfo, message: str, where: str) -> None:
    if os.environ.get("TIAN_STRICT") == "1":
        raise PluginError(
            f"plugin {info.name}: {message}", where=where, hint="import it inside the functions that use it"
        )
    info.problems.append(Problem("warning", message, where, "import it inside the functions that use it"))


def _call(info: PluginInfo, manager: pluggy.PluginManager, hook: str, argument: Any) -> bool:
    """Call one plugin's implementation of a register hook; False when it has none or raised (its work is dropped)."""
    arguments = {"register": argument}
    for impl in getattr(manager.hook, hook).get_hookimpls():
        if impl.plugin_name != info.name or impl.wrapper or impl.hookwrapper:
            continue
        result = guard(partial(impl.function, *[arguments[a] for a in impl.argnames]))
        if result.error is None:
            return True
        _blame(info, result, f"in {hook}")
    return False


def _check_hook_names(info: PluginInfo, module: Any, source: str) -> None:
    """A hook implementation without a spec is a typo or meant for a newer tian; one without the mark is never called."""
    known = hookspecs.known_hooks()
    for name, value in list(vars(module).items()):
        marker = getattr(value, "tian_impl", None)
        if isinstance(marker, dict) and (name in known or marker.get("optionalhook")):
            if marker.get("wrapper") or marker.get("hookwrapper"):
                _misuse(
                    info, f"{name} is a hook wrapper, which tian does not call", value, source, "write a plain hook"
                )
            continue
        if isinstance(marker, dict):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "upgrade tian-framework, or mark it optionalhook=True"
            _misuse(info, f"there is no hook called {name}", value, source, hint)
        elif name in known and callable(value):
            _misuse(
                info, f"{name} is not marked as a hook and is never called", value, source, "put @hookimpl above it"
            )


def _misuse(info: PluginInfo, message: str, function: Any, source: str, hint: str) -> None:
    line = getattr(getattr(function, "__code__", None), "co_firstlineno", 1)
    where = f"{source}:{line}"
    if os.environ.get("TIAN_STRICT") == "1":
        raise PluginError(f"plugin {info.name}: {message}", where=where, hint=hint)
    info.problems.append(Problem("error", message, where, hint))


__all__ = ["CORE_DIST", "PluginInfo", "Problem", "discover", "installed"]
