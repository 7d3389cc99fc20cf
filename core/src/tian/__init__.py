"""tian: a plugin framework; methods from papers as parts that work on your model, data and environment.

`tian.load`, `tian.list`, `tian.compose` and `tian.run` are the Python API. Importing tian imports nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tian.plugins.hookspecs import hookimpl
from tian.version import __version__

if TYPE_CHECKING:
    import builtins
    from collections.abc import Sequence

    from omegaconf import DictConfig

    from tian.config.origin import Origins
    from tian.plugins.registrar import Entry
    from tian.runs.execute import RunResult

HOOKSPEC_API = (1, 0)

__all__ = ["HOOKSPEC_API", "__version__", "compose", "hookimpl", "list", "load", "run"]


def load(role: str, name: str, /, **options: Any) -> Any:
    """Construct the component `name` of a role with the given options.

    Raises:
        UnknownName, AmbiguousName: the name is not, or not uniquely, provided.
        MissingDependency: a package it needs is absent.
        ConfigError, InvalidInput: an option is unknown, of the wrong type or out of range.
        PluginError: it cannot be imported or is not of the role's type.

    Example:
        policy = tian.load("kv_policy", "streaming", sinks=4, recent=252)
    """
    from tian.plugins.registry import get_registry

    return get_registry().load(role, name, **options)


def list(role: str | None = None) -> builtins.list[Entry]:
    """What is registered, sorted: all components, or those of one role."""
    from tian.plugins.registry import get_registry

    return get_registry().entries(role)


def compose(name: str, overrides: Sequence[str] = ()) -> tuple[DictConfig, Origins]:
    """The complete configuration of a run and where each value came from.

    Raises:
        UnknownName: no such run. ConfigError: a key, type or file is wrong.
    """
    from tian.config.compose import compose as _compose

    return _compose(name, overrides)


def run(name: str, overrides: Sequence[str] = (), **options: Any) -> RunResult:
    """Run `name`; see `tian.runs.execute.run` for the options and errors."""
    from tian.runs.execute import run as _run

    return _run(name, overrides, **options)
