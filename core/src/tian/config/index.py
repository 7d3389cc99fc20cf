"""Which runs and group choices exist; reads file names and first lines only, so that `tian list` stays light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tian.errors import AmbiguousName, UnknownName
from tian.plugins.options import nearest
from tian.plugins.registry import get_registry

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class RunInfo:
    """A run that can be started: qualified name, plugin, file, and the comment on the file's first line."""

    name: str
    plugin: str
    path: Path
    summary: str


def available_runs() -> list[RunInfo]:
    """All runs of all plugins, sorted by name."""
    out = []
    for plugin, folder in get_registry().config_folders().items():
        for path in folder.glob("*.yaml"):
            try:
                with path.open(encoding="utf-8", errors="replace") as file:
                    first = file.readline().strip()
            except OSError:  # a folder, or not ours to read: no run, and no reason to hide the others
                continue
            summary = first.lstrip("# ") if first.startswith("#") else ""
            out.append(RunInfo(f"{plugin}/{path.stem}", plugin, path, summary))
    return sorted(out, key=lambda r: r.name)


def find_run(name: str) -> RunInfo:
    """The run of a qualified or short name.

    Raises:
        UnknownName: none of that name; the nearest is given.
        AmbiguousName: the short name is used by several plugins.
    """
    runs = available_runs()
    found = [r for r in runs if name in (r.name, r.name.split("/")[1])]
    if len(found) == 1:
        return found[0]
    if found:
        raise AmbiguousName(
            f"the run {name!r} exists in several plugins", hint=f"write {' or '.join(r.name for r in found)}"
        )
    raise UnknownName(
        f"there is no run {name!r}", hint=nearest(name, [r.name for r in runs]) + "; `tian list` shows all"
    )


def group_choices(group: str) -> dict[str, Path]:
    """`plugin/choice` -> file, for every choice of a group in every plugin."""
    out = {}
    for plugin, folder in sorted(get_registry().config_folders().items()):
        for path in sorted((folder / group).glob("*.yaml")):
            out[f"{plugin}/{path.stem}"] = path
    return out


def find_choice(group: str, choice: str, *, plugin: str) -> Path | None:
    """The file of a group choice: the run's own plugin first, then `plugin/choice`, then any plugin that has it.

    Raises:
        AmbiguousName: several other plugins have it.
    """
    choices = group_choices(group)
    if (own := choices.get(f"{plugin}/{choice}")) is not None:
        return own
    if choice in choices:
        return choices[choice]
    found = [key for key in choices if key.split("/")[1] == choice]
    if len(found) > 1:
        raise AmbiguousName(f"{group}={choice} exists in several plugins", hint=f"write {group}={found[0]}")
    return choices[found[0]] if found else None
