"""The registry: names to components, with provenance, readable errors and no imports until first use."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import inspect
import logging
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from tian.errors import (
    AmbiguousName,
    ConfigError,
    MissingDependency,
    PluginError,
    PluginIncompatible,
    TianError,
    UnknownName,
)
from tian.plugins.discovery import discover
from tian.plugins.guard import describe, guard, remedy
from tian.plugins.hookspecs import KINDS, ROLES
from tian.plugins.installed import PluginInfo, Problem
from tian.plugins.options import build_options, nearest
from tian.plugins.registrar import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_ROLE_CLASS = {
    "model": "Model",
    "planner": "Planner",
    "kv_policy": "KVPolicy",
    "sparsity_predictor": "SparsityPredictor",
    "reward_model": "RewardModel",
    "solver": "Solver",
    "evaluator": "Evaluator",
}
_DEVICES = ("cuda", "display")
_log = logging.getLogger("tian")


def role_class(role: str) -> type:
    """The ABC of a role.

    Raises:
        UnknownName: no such role.
    """
    if role not in ROLES:
        raise UnknownName(f"there is no role {role!r}", hint=nearest(role, list(ROLES)))
    return getattr(importlib.import_module("tian.spec"), _ROLE_CLASS[role])  # type: ignore[no-any-return]


class Registry:
    """Everything the installed plugins offer."""

    def __init__(self, *, fast: bool = False, extra_files: Sequence[Path] = ()) -> None:
        self._manager, self.plugins = discover(fast=fast, extra_files=extra_files)

    def entries(self, kind: str | None = None) -> list[Entry]:
        """Entries of one kind (role or `recipe`) or of all, sorted by kind and qualified name.

        Raises:
            UnknownName: no such kind.
        """
        if kind is not None and kind not in KINDS:
            raise UnknownName(f"there is no role {kind!r}", hint=nearest(kind, list(KINDS)))
        found = [e for p in self.plugins for e in p.entries if kind in (None, e.kind)]
        return sorted(found, key=lambda e: (KINDS.index(e.kind), e.qualified))

    def resolve(self, kind: str, name: str) -> Entry:
        """The entry of a qualified (`kvcache/streaming`) or short (`streaming`) name.

        Raises:
            UnknownName: nobody provides it; names the nearest and any broken plugin that might.
            AmbiguousName: several plugins provide the short name.
        """
        entries = self.entries(kind)
        found = [e for e in entries if name in (e.qualified, e.name)]
        if len(found) == 1:
            return found[0]
        if found:
            both = ", ".join(e.qualified for e in found)
            raise AmbiguousName(
                f"the {kind} {name!r} is provided by several plugins: {both}",
                hint=f"write {found[0].qualified} or another",
            )
        raise UnknownName(
            f"no plugin provides the {kind} {name!r}{self._suspects(name)}",
            hint=nearest(name, sorted({e.name for e in entries} | {e.qualified for e in entries})),
        )

    def _suspects(self, name: str) -> str:
        """Why plugins that might provide `name` do not: `; plugin x is broken: cause`."""
        plugin, slash, _ = name.partition("/")
        out = []
        for p in self.plugins:
            errors = [q.message for q in p.problems if q.severity == "error"]
            if slash and p.name != plugin:
                continue
            if errors:
                out.append(f"plugin {p.name} is {p.state if p.state != 'loaded' else 'incomplete'}: {errors[0]}")
            elif slash and p.state == "disabled":
                out.append(f"plugin {p.name} is disabled by TIAN_PLUGINS or TIAN_DISABLE_PLUGINS")
        return "".join(f"; {text}" for text in out)

    def target(self, entry: Entry) -> Any:
        """Import the entry's target.

        Raises:
            MissingDependency: one of its `needs` is absent.
            PluginError: importing it failed.
        """
        self._check_needs(entry)
        return self._import(entry, entry.target)

    def options_class(self, entry: Entry) -> type | None:
        """Import the entry's options dataclass, None when it has no options.

        Raises:
            PluginError: importing it failed, or it is not a dataclass.
        """
        if not entry.options:
            return None
        cls = self._import(entry, entry.options)
        if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
            raise PluginError(
                f"the options of {entry.kind} {entry.qualified!r}, {entry.options}, are not a dataclass",
                where=f"{entry.where}, {entry.dist} {entry.version}",
                hint="put @dataclass above the class",
            )
        return cls

    def load(self, kind: str, name: str, /, **options: Any) -> Any:
        """Construct a component; see `tian.load`."""
        entry = self.resolve(kind, name)
        cls = self.target(entry)
        base = role_class(kind)
        if not (inspect.isclass(cls) and issubclass(cls, base)):
            raise PluginError(
                f"{kind} {entry.qualified!r} is not a subclass of tian.spec.{base.__name__}",
                where=f"{entry.where}, {entry.dist} {entry.version}",
                hint=f"derive it from tian.spec.{base.__name__}",
            )
        if inspect.isabstract(cls):
            raise PluginError(
                f"{kind} {entry.qualified!r} lacks {', '.join(sorted(getattr(cls, '__abstractmethods__', ())))}",
                where=f"{entry.where}, {entry.dist} {entry.version}",
                hint="implement them",
            )
        if getattr(base, "SPEC", 1) < entry.spec:
            raise PluginIncompatible(
                f"{entry.qualified!r} needs version {entry.spec} of the role {kind}, this tian has {getattr(base, 'SPEC', 1)}",
                where=f"{entry.where}, {entry.dist} {entry.version}",
                hint="pip install -U tian-framework",
            )
        option_cls = self.options_class(entry)
        if option_cls is None:
            if options:
                first = next(iter(options))
                raise ConfigError(f"{kind} {entry.qualified!r} has no options, got {first!r}", hint="leave it out")
            arguments: tuple[Any, ...] = ()
        else:
            arguments = (build_options(option_cls, options),)
        made = guard(lambda: cls(*arguments))
        if isinstance(made.error, TianError):
            raise made.error
        if made.error is not None:
            raise PluginError(
                f"constructing {kind} {entry.qualified!r} failed: {describe(made.error)}",
                where=f"{made.where}, {entry.dist} {entry.version}",
                hint=remedy(made.error, dist=entry.dist, plugin=entry.plugin, module=cls.__module__),
            ) from made.error
        with contextlib.suppress(AttributeError):  # a class with __slots__ goes by its class name
            object.__setattr__(made.value, "_tian_entry", entry)  # read by tian.spec.contract.name_of
        return made.value

    def config_folders(self) -> dict[str, Path]:
        """Plugin name -> its folder of run configurations."""
        return {p.name: p.config_folder for p in self.plugins if p.config_folder is not None}

    def claim_lists(self) -> dict[str, str]:
        """Plugin name -> `module:CLAIMS`."""
        return {p.name: p.claims for p in self.plugins if p.claims is not None}

    def call_each(self, hook: str, **arguments: Any) -> Iterator[tuple[str, Any]]:
        """Call each plugin's implementation of a hook, by plugin name; one that raises becomes a problem of its plugin.

        Yields:
            `(plugin name, what it returned)`.

        Raises:
            what the plugin raised: under TIAN_STRICT=1 only.
        """
        impls = [i for i in getattr(self._manager.hook, hook).get_hookimpls() if not (i.wrapper or i.hookwrapper)]
        for impl in sorted(impls, key=lambda i: i.plugin_name):
            result = guard(partial(impl.function, *[arguments[a] for a in impl.argnames]))
            if result.error is None:
                yield impl.plugin_name, result.value
                continue
            if os.environ.get("TIAN_STRICT") == "1":
                raise result.error
            _log.warning("plugin %s, in %s: %s (%s)", impl.plugin_name, hook, describe(result.error), result.where)
            info = next(p for p in self.plugins if p.name == impl.plugin_name and p.state == "loaded")
            hint = remedy(result.error, dist=info.dist, plugin=info.name, module=info.module)
            info.problems.append(Problem("error", f"in {hook}: {describe(result.error)}", result.where, hint))

    def _check_needs(self, entry: Entry) -> None:
        for need in entry.needs:
            if need in _DEVICES:
                continue  # whether a device is there is asked when it is used
            if not _importable(need):
                what = f"'{entry.dist}[{entry.extra}]'" if entry.extra and entry.dist else need
                raise MissingDependency(
                    f"{entry.kind} {entry.qualified!r} needs the package {need!r}, which is not installed",
                    where=f"{entry.dist} {entry.version}",
                    hint=f"pip install {what}",
                )

    def _import(self, entry: Entry, target: str | object) -> Any:
        if not isinstance(target, str):
            return target
        module, _, attribute = target.partition(":")
        result = guard(lambda: getattr(importlib.import_module(module), attribute))
        if result.error is None:
            return result.value
        if isinstance(result.error, TianError):
            raise result.error
        if os.environ.get("TIAN_STRICT") == "1":
            raise result.error
        raise PluginError(
            f"{entry.kind} {entry.qualified!r} cannot be imported from {target}: {describe(result.error)}",
            where=f"{result.where or entry.where}, {entry.dist} {entry.version}",
            hint=remedy(result.error, dist=entry.dist, plugin=entry.plugin, module=module),
        ) from result.error


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # a parent package is absent; or a module without a spec, hence imported
        return name in sys.modules


_cached: Registry | None = None


def get_registry(*, fast: bool = False, extra_files: Sequence[Path] = ()) -> Registry:
    """The process's registry; `fast` (metadata only) and `extra_files` make a new one."""
    global _cached  # noqa: PLW0603 - one registry a process
    if fast:
        return Registry(fast=True)
    if _cached is None or extra_files:
        _cached = Registry(extra_files=extra_files)
    return _cached


def reset_registry() -> None:
    """Forget the cached registry (tests)."""
    global _cached  # noqa: PLW0603 - one registry a process
    _cached = None


__all__ = [
    "KINDS",
    "ROLES",
    "Entry",
    "PluginInfo",
    "Problem",
    "Registry",
    "get_registry",
    "reset_registry",
    "role_class",
]
