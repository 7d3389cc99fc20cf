"""`compose`: files and groups, then overrides, then the schema fills in and checks everything.

File syntax is a subset of hydra's defaults lists; values are merged as plain containers, so that every key can carry
its origin. What may be set is decided by the dataclasses of the recipe and of the components a config names, not by
what the files happen to mention.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tian.config.index import RunInfo, available_runs, find_choice, find_run, group_choices
from tian.config.origin import Origins, key_lines, label
from tian.config.overrides import Override, parse
from tian.config.schema import complete, kind_of, options_of
from tian.errors import ConfigError, UnknownName
from tian.plugins.options import nearest

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["RunInfo", "available_runs", "compose", "config_hash", "options_of"]


def compose(name: str, overrides: Sequence[str] = ()) -> tuple[DictConfig, Origins]:
    """The complete configuration of run `name`.

    Args:
        name: `plugin/run`, or `run` while unambiguous.
        overrides: see `tian.config.overrides`; group choices apply before values, whatever their order.

    Returns:
        The config (every leaf present) and the origin of every leaf.

    Raises:
        UnknownName, AmbiguousName: no such run, group choice or component.
        ConfigError: unknown key (nearest given), wrong type, broken file, cycle of defaults.
        InvalidInput: a value outside its range.
    """
    info = find_run(name)
    parsed = [parse(text) for text in overrides]
    picks = {o.key: o for o in parsed if o.kind == "set" and isinstance(o.value, str)}
    origins = Origins()
    tree: dict[str, Any] = {}
    taken: set[str] = set()
    _load(info.path, "", tree, origins, info.plugin, picks, taken, ())
    for o in parsed:  # the recipe first: it says which of the other keys are choices
        if o.key == "recipe" and o.kind != "delete":
            _apply(tree, origins, o)
    for key in sorted(picks, key=lambda k: k.count(".")):  # a mapping before what lies below it
        if key not in taken and _switch(tree, origins, picks[key], info.plugin, picks, taken):
            taken.add(key)
    for o in parsed:
        if not (o.key in taken and o.kind == "set" and isinstance(o.value, str)):
            _apply(tree, origins, o)
    complete(tree, origins, info)
    return OmegaConf.create(tree), origins


def config_hash(config: DictConfig | Mapping[str, Any]) -> str:
    """12 hex digits; equal for equal content, whatever the order of keys."""
    plain = OmegaConf.to_container(config) if isinstance(config, DictConfig) else config
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:12]


# -- files -----------------------------------------------------------------------------------------------------------


def _read(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"unreadable config: {error}", where=label(path), hint="make it a readable UTF-8 file"
        ) from None
    try:
        content = OmegaConf.to_container(OmegaConf.create(text)) if text.strip() else {}
        lines = key_lines(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        text = f"broken YAML: {getattr(error, 'problem', None) or error}"
        raise ConfigError(text, where=f"{label(path)}{line}", hint="correct that line of the file") from None
    except OmegaConfBaseException as error:
        text = f"unreadable config: {str(error).splitlines()[0]}"
        raise ConfigError(text, where=label(path), hint="correct the file; quote what is meant as text") from None
    if not isinstance(content, dict):
        raise ConfigError("a config file must be a mapping", where=label(path), hint="write lines of `key: value`")
    return {str(k): v for k, v in content.items()}, lines


def _load(
    path: Path,
    package: str,
    tree: dict[str, Any],
    origins: Origins,
    plugin: str,
    picks: Mapping[str, Override],
    taken: set[str],
    trail: tuple[str, ...],
) -> None:
    """Merge `path` and its defaults, depth first, into `tree` below the dotted `package`.

    A choice of the command line, in `picks`, replaces that of the file; its key is then added to `taken`.
    """
    name = label(path)
    if name in trail:
        raise ConfigError(f"defaults go in a circle: {' -> '.join([*trail, name])}", where=name, hint="take one out")
    content, lines = _read(path)
    defaults = content.pop("defaults", [])
    if not isinstance(defaults, list):
        where = f"{name}:{lines.get('defaults', 1)}"
        raise ConfigError("defaults must be a list", where=where, hint="write `defaults: [group: choice, _self_]`")
    if "_self_" not in defaults:
        defaults = [*defaults, "_self_"]
    for entry in defaults:
        if entry == "_self_":
            _merge(tree, package, content, name, lines, origins)
            continue
        where = f"{name}:{lines.get('defaults', 1)}"
        group, choice, target, optional = _default(entry, where)
        key = target if not package else f"{package}.{target}" if target else package
        picked = picks.get(key) if group else None
        file = find_choice(group, str(picked.value), plugin=plugin) if picked else None
        if file is not None:
            taken.add(key)
        else:  # an override that names no choice is a component's name; `_switch` sees to it
            file = _sibling(path, choice) if not group else find_choice(group, choice, plugin=plugin)
        if file is None:
            if optional:
                continue
            known = list(group_choices(group)) if group else [p.stem for p in path.parent.glob("*.yaml")]
            raise UnknownName(
                f"there is no choice {choice!r} of {group or 'config'}", where=where, hint=nearest(choice, known)
            )
        _load(file, key, tree, origins, plugin, picks, taken, (*trail, name))


def _sibling(path: Path, choice: str) -> Path | None:
    file = path.parent / f"{choice}.yaml"
    return file if file.is_file() else None


def _default(entry: Any, where: str) -> tuple[str, str, str, bool]:
    """A defaults entry as (group, choice, package, optional); a bare name is a file beside this one."""
    if isinstance(entry, str):
        if entry.startswith("/"):
            group, _, choice = entry[1:].rpartition("/")
            return group, choice, group.replace("/", "."), False
        return "", entry, "", False
    if isinstance(entry, Mapping) and len(entry) == 1:
        ((left, choice),) = entry.items()
        words = str(left).split()
        group, _, package = words[-1].partition("@")
        if isinstance(choice, str) and words[:-1] in ([], ["optional"]):
            group = group.lstrip("/")
            return group, choice, package or group.replace("/", "."), len(words) == 2
    raise ConfigError(
        f"{entry!r} is not a defaults entry", where=where, hint="write `group: choice`, `name` or `_self_`"
    )


def _merge(
    tree: dict[str, Any], package: str, content: Any, name: str, lines: dict[str, int], origins: Origins
) -> None:
    node = tree
    for part in package.split(".") if package else ():
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise ConfigError(
                f"{package!r} lies below a value that is not a mapping: {node!r}",
                where=name,
                hint=f"take {part!r} or this group out of the defaults",
            )

    def into(target: dict[str, Any], source: Mapping[str, Any], local: str) -> None:
        for key, value in source.items():
            here = f"{local}{key}"
            if isinstance(value, Mapping) and isinstance(target.get(key), dict) and not _switches(target[key], value):
                into(target[key], value, f"{here}.")
                continue
            target[key] = value
            full = f"{package}.{here}" if package else here
            origins.set(full, f"{name}:{lines.get(here, 1)}")
            for leaf, line in lines.items():
                if leaf.startswith(f"{here}."):
                    origins.set(f"{package}.{leaf}" if package else leaf, f"{name}:{line}")

    into(node, content, "")


def _switches(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Another component is named: its options replace the old one's instead of mixing with them."""
    return "use" in old and "use" in new and old["use"] != new["use"]


# -- overrides -------------------------------------------------------------------------------------------------------


def _switch(
    tree: dict[str, Any], origins: Origins, o: Override, plugin: str, picks: Mapping[str, Override], taken: set[str]
) -> bool:
    """Apply an override that no defaults list took, if it names a group choice or a component; False for a value."""
    kind = kind_of(tree, o.key)
    if kind not in ("role", "mapping"):
        return False
    group = o.key.replace(".", "/")
    file = find_choice(group, o.value, plugin=plugin)
    if file is not None:
        _set(tree, o.key, {}, o)
        origins.set(o.key, o.origin)
        _load(file, o.key, tree, origins, plugin, picks, taken, ())
    elif kind == "role":
        _set(tree, o.key, {"use": o.value}, o)
        origins.set(o.key, o.origin)
    elif known := list(group_choices(group)):
        raise UnknownName(
            f"there is no choice {o.value!r} of {o.key}", where=o.origin, hint=nearest(str(o.value), known)
        )
    else:
        return False
    return True


def _set(tree: dict[str, Any], key: str, value: Any, o: Override) -> None:
    *parents, last = key.split(".")
    hint = f"set {'.'.join(parents)} to a mapping, or leave this out"
    node: Any = tree
    for part in parents:
        node = node.setdefault(part, {}) if isinstance(node, dict) else node
        if node is None:
            raise ConfigError(f"{key!r} lies below a value that is null", where=o.origin, hint=hint)
    if not isinstance(node, dict):
        raise ConfigError(f"{key!r} lies below a value that is not a mapping", where=o.origin, hint=hint)
    node[last] = value


def _apply(tree: dict[str, Any], origins: Origins, o: Override) -> None:
    if o.kind == "delete":
        *parents, last = o.key.split(".")
        node: Any = tree
        for part in parents:
            node = node.get(part) if isinstance(node, dict) else None
        if not isinstance(node, dict) or last not in node:
            raise ConfigError(
                f"there is no key {o.key!r} to delete", where=o.origin, hint=nearest(o.key, _leaves(tree))
            )
        del node[last]
        origins.forget(o.key)
        return
    _set(tree, o.key, o.value, o)
    origins.set(o.key, o.origin)


def _leaves(tree: Any, prefix: str = "") -> list[str]:
    out = []
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            out.extend(_leaves(value, f"{prefix}{key}."))
        else:
            out.append(f"{prefix}{key}")
    return out
