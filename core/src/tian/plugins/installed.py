"""What the metadata of installed distributions says about plugins, before any of their code runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tian.plugins.guard import describe
from tian.plugins.registrar import Entry
from tian.version import __version__

if TYPE_CHECKING:
    from importlib.metadata import Distribution

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
    claims: str | None = None
    metadata: Path | None = None

    def fail(self, state: str, message: str, *, where: str = "", hint: str = "") -> None:
        """Record an error and set the state."""
        self.state = state
        self.problems.append(Problem("error", message, where or f"{self.dist} {self.version}", hint))

    def line(self, file: str, text: str) -> str:
        """`path:line` of the first line with `text` in a metadata file; the distribution when there is none."""
        path = None if self.metadata is None else self.metadata / file
        try:
            lines = [] if path is None else path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            lines = []
        found = next((i for i, line in enumerate(lines, 1) if text in line), None)
        return f"{path}:{found}" if found else f"{self.dist} {self.version}"


def installed() -> list[tuple[PluginInfo, Sequence[str]]]:
    """Every plugin the metadata names, sorted by name, with its distribution's requirements; nothing is imported."""
    from importlib.metadata import distributions

    rest: list[tuple[PluginInfo, Sequence[str]]] = []
    seen: set[str] = set()
    for dist in distributions():
        try:
            text = dist.read_text("entry_points.txt") or ""
        except Exception:  # noqa: S112 - an unreadable distribution of a stranger is not ours to report
            continue
        if f"[{GROUP}]" not in text.replace(" ", ""):
            continue
        # The first on sys.path is the one Python imports; an editable install may be listed twice.
        meta = _metadata(dist)
        name = str((meta and meta["Name"]) or "unknown")
        if name.lower().replace("_", "-") not in seen:
            seen.add(name.lower().replace("_", "-"))
            rest += _declared(dist, meta, name)
    rest.sort(key=lambda pair: (pair[0].name, pair[0].dist))
    return [(PluginInfo(BUILTIN[0], CORE_DIST, __version__, BUILTIN[1]), ()), *rest]


def _metadata(dist: Distribution) -> Any:
    """The parsed METADATA, or None; each look at `dist.metadata`, `version` or `requires` would parse it again."""
    try:
        return dist.metadata
    except Exception:
        return None


def _declared(dist: Distribution, meta: Any, name: str) -> list[tuple[PluginInfo, Sequence[str]]]:
    """The plugins of one distribution; damaged metadata becomes one broken plugin named after it."""
    try:
        lines, version = meta.get_all("Requires-Dist"), str(meta["Version"])
        requires = tuple(map(str, lines if lines is not None else dist.requires or ()))  # an egg has them elsewhere
        folder = getattr(dist, "_path", None)  # for messages; other kinds of distributions have none
        metadata = folder if isinstance(folder, Path) else None
        return [
            (PluginInfo(ep.name, name, version, ep.value, metadata=metadata), requires)
            for ep in dist.entry_points
            if ep.group == GROUP
        ]
    except Exception as error:
        info = PluginInfo(name, name, "?", "")
        info.fail(
            "broken", f"its metadata cannot be read: {describe(error)}", hint=f"pip install --force-reinstall {name}"
        )
        return [(info, ())]


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
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        if not requirement.specifier.contains(__version__, prereleases=True):
            return text
    return None
