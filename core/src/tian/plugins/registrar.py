"""What a register hook is given, and the entry it makes of each call."""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tian.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Entry:
    """One registered name.

    Attributes:
        kind: role, or `recipe`.
        name: short name.
        plugin: plugin that registered it.
        target: `module:Attribute`, or the object itself.
        summary: one line for `tian list`.
        needs: import names (or `cuda`) without which it cannot work.
        extra: pip extra that supplies them.
        spec: version of the role's contract it was written for.
        options: `module:Dataclass` of its options, or None.
        dist: distribution that ships it.
        version: of that distribution.
        where: `file:line` of the register call.
    """

    kind: str
    name: str
    plugin: str
    target: str | object
    summary: str
    needs: tuple[str, ...] = ()
    extra: str | None = None
    spec: int = 1
    options: str | None = None
    dist: str = ""
    version: str = ""
    where: str = ""

    @property
    def qualified(self) -> str:
        """`plugin/name`, which always works."""
        return f"{self.plugin}/{self.name}"


def caller(depth: int = 2) -> str:
    """`file:line` of the code that called our caller."""
    frame = sys._getframe(depth)
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


@dataclass
class Registrar:
    """Callable given to one register hook of one plugin; collects entries until the hook has returned."""

    kind: str
    plugin: str
    dist: str
    version: str
    entries: list[Entry] = field(default_factory=list)

    def __call__(
        self,
        name: str,
        target: str | object,
        *,
        summary: str,
        needs: Sequence[str] = (),
        extra: str | None = None,
        spec: int = 1,
        options: str | None = None,
    ) -> None:
        """Register `target` under `name`.

        Args:
            name: short name, unique within the plugin and kind; `plugin/name` always reaches it.
            target: `"module:Attribute"`, imported at first use, or the object itself.
            summary: one line for `tian list`.
            needs: import names (or `cuda`) that must be present.
            extra: the plugin's pip extra that brings them.
            spec: version of the role's contract.
            options: `"module:Dataclass"`; a comment behind a field documents it.

        Raises:
            PluginError: a malformed name, summary, target or needs, or a name this plugin already uses.
        """
        where = caller()
        if not name or "/" in name or name != name.strip():
            raise PluginError(f"{name!r} is not a name for a {self.kind}: no slash, not empty", where=where)
        for text, what in ((target, "target"), (options, "options")):
            if isinstance(text, str) and text.count(":") != 1:
                raise PluginError(f"the {what} {text!r} of {name!r} is not of the form module:Attribute", where=where)
        if not summary.strip():
            raise PluginError(f"{name!r} has an empty summary", where=where, hint="say in one line what it does")
        if isinstance(needs, str):  # would be read letter by letter
            raise PluginError(
                f"needs of {name!r} must be a tuple of import names, got {needs!r}",
                where=where,
                hint=f"needs=({needs!r},)",
            )
        if any(e.name == name for e in self.entries):
            raise PluginError(f"the name {name!r} is registered twice as {self.kind}", where=where, hint="rename one")
        self.entries.append(
            Entry(
                self.kind,
                name,
                self.plugin,
                target,
                summary,
                tuple(needs),
                extra,
                spec,
                options,
                self.dist,
                self.version,
                where,
            )
        )


@dataclass
class ConfigRegistrar:
    """Callable given to `tian_register_configs`; finds the folder of a package without importing it."""

    folder: Path | None = None

    def __call__(self, package: str | Path) -> None:
        """Name the folder of run configurations: a package (`"my_package.conf"`) or a path.

        Raises:
            PluginError: no such folder, or a second one.
        """
        folder: Path | None
        if self.folder is not None:
            raise PluginError(f"a second configuration folder, {str(package)!r}; a plugin has one", where=caller())
        if isinstance(package, Path) or os.sep in package:
            folder = Path(package)
        else:
            top, *rest = package.split(".")
            spec = importlib.util.find_spec(top)
            places = list(spec.submodule_search_locations or []) if spec else []
            folder = Path(places[0], *rest) if places else None
        if folder is None or not folder.is_dir():
            raise PluginError(f"the configuration folder {str(package)!r} does not exist", where=caller())
        self.folder = folder


@dataclass
class ClaimRegistrar:
    """Callable given to `tian_register_claims`; keeps the name of the list, which is imported by `tian claims` only."""

    target: str | None = None

    def __call__(self, target: str) -> None:
        """Name the plugin's list of claims, `"module:CLAIMS"`.

        Raises:
            PluginError: not of that form, or a second list.
        """
        if str(target).count(":") != 1:
            raise PluginError(f"the claims {target!r} are not of the form module:CLAIMS", where=caller())
        if self.target is not None:
            raise PluginError(f"a second list of claims, {target!r}; a plugin has one", where=caller())
        self.target = target
