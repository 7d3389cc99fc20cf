"""`compose`: files and groups, then overrides, then the schema fills in and checks everything.

File syntax is a subset of hydra's defaults lists; values are merged as plain containers, so that every key can carry
its origin. What may be set is decided by the dataclasses of the recipe and of the components a config names, not by
what the files happen to mention.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import typing
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tian.config.index import RunInfo, available_runs, find_choice, find_run, group_choices
from tian.config.origin import Origins, key_lines, label
from tian.config.overrides import Override, parse
from tian.errors import ConfigError, UnknownName
from tian.plugins.options import build_options, nearest
from tian.plugins.registry import get_registry

if TYPE_CHECKING:
    from pathlib import Path

CORE_KEYS = {"recipe": (str, None), "seed": (int, 0), "scale": (str, "tiny")}
SCALES = ("tiny", "cpu", "gpu", "paper")

__all__ = ["RunInfo", "available_runs", "compose", "config_hash"]


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
    groups = {o.key: o for o in parsed if o.kind == "set" and isinstance(o.value, str) and group_choices(o.key)}
    origins = Origins()
    tree: dict[str, Any] = {}
    _load(info.path, "", tree, origins, info.plugin, groups, ())
    for o in groups.values():
        if find_choice(o.key, o.value, plugin=info.plugin) is None:
            _use(tree, origins, o)
    for o in parsed:
        if o.key not in groups:
            _apply(tree, origins, o)
    _complete(tree, origins, info)
    return OmegaConf.create(tree), origins


def config_hash(config: DictConfig | Mapping[str, Any]) -> str:
    """12 hex digits; equal for equal content, whatever the order of keys."""
    plain = OmegaConf.to_container(config) if isinstance(config, DictConfig) else config
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:12]


# -- files -----------------------------------------------------------------------------------------------------------


def _read(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    text = path.read_text(encoding="utf-8")
    try:
        content = OmegaConf.to_container(OmegaConf.create(text)) if text.strip() else {}
        lines = key_lines(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"broken YAML: {getattr(error, 'problem', error)}", where=f"{label(path)}{line}") from None
    except OmegaConfBaseException as error:
        raise ConfigError(f"unreadable config: {str(error).splitlines()[0]}", where=label(path)) from None
    if not isinstance(content, dict):
        raise ConfigError("a config file must be a mapping", where=label(path))
    return {str(k): v for k, v in content.items()}, lines


def _load(
    path: Path,
    package: str,
    tree: dict[str, Any],
    origins: Origins,
    plugin: str,
    groups: Mapping[str, Override],
    trail: tuple[str, ...],
) -> None:
    """Merge `path` and its defaults, depth first, into `tree` below the dotted `package`."""
    name = label(path)
    if name in trail:
        raise ConfigError(f"defaults go in a circle: {' -> '.join([*trail, name])}", where=name)
    content, lines = _read(path)
    defaults = content.pop("defaults", [])
    if not isinstance(defaults, list):
        raise ConfigError("defaults must be a list", where=f"{name}:{lines.get('defaults', 1)}")
    if "_self_" not in defaults:
        defaults = [*defaults, "_self_"]
    for entry in defaults:
        if entry == "_self_":
            _merge(tree, package, content, name, lines, origins)
            continue
        group, choice, target, optional = _default(entry, f"{name}:{lines.get('defaults', 1)}")
        key = target if not package else f"{package}.{target}" if target else package
        picked = groups.get(key) if group else None
        chosen = str(picked.value) if picked else choice
        file = _sibling(path, choice) if not group else find_choice(group, chosen, plugin=plugin)
        if file is None:
            if optional or picked:
                continue  # an override that names no choice becomes `use: NAME` later
            known = list(group_choices(group)) if group else [p.stem for p in path.parent.glob("*.yaml")]
            raise UnknownName(
                f"there is no choice {chosen!r} of {group or 'config'}", where=name, hint=nearest(chosen, known)
            )
        _load(file, key, tree, origins, plugin, groups, (*trail, name))


def _sibling(path: Path, choice: str) -> Path | None:
    file = path.parent / f"{choice}.yaml"
    return file if file.is_file() else None


def _default(entry: Any, where: str) -> tuple[str, str, str, bool]:
    """A defaults entry as (group, choice, package, optional); a bare name is a file beside this one."""
    if isinstance(entry, str):
        if entry.startswith("/"):
            group, _, choice = entry[1:].rpartition("/")
            return group, choice, group, False
        return "", entry, "", False
    if isinstance(entry, Mapping) and len(entry) == 1:
        ((left, choice),) = entry.items()
        words = str(left).split()
        group, _, package = words[-1].partition("@")
        if isinstance(choice, str) and words[:-1] in ([], ["optional"]):
            return group.lstrip("/"), choice, package or group.lstrip("/"), len(words) == 2
    raise ConfigError(
        f"{entry!r} is not a defaults entry", where=where, hint="write `group: choice`, `name` or `_self_`"
    )


def _merge(
    tree: dict[str, Any], package: str, content: Any, name: str, lines: dict[str, int], origins: Origins
) -> None:
    node = tree
    for part in package.split(".") if package else ():
        node = node.setdefault(part, {})

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


def _use(tree: dict[str, Any], origins: Origins, o: Override) -> None:
    """`kv=NAME` without a group choice of that name: the component NAME with its default options."""
    _set(tree, o.key, {"use": o.value}, o)
    origins.set(o.key, o.origin)


def _set(tree: dict[str, Any], key: str, value: Any, o: Override) -> None:
    *parents, last = key.split(".")
    node: Any = tree
    for part in parents:
        node = node.setdefault(part, {}) if isinstance(node, dict) else node
        if node is None:
            raise ConfigError(f"{key!r} lies below a value that is null", where=o.origin)
    if not isinstance(node, dict):
        raise ConfigError(f"{key!r} lies below a value that is not a mapping", where=o.origin)
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
    node = tree.get(o.key)
    if isinstance(node, dict) and "use" in node and isinstance(o.value, str):
        _use(tree, origins, o)
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


# -- schema ----------------------------------------------------------------------------------------------------------


def _complete(tree: dict[str, Any], origins: Origins, info: RunInfo) -> None:
    """Check every key and value and fill in all defaults."""
    if "recipe" not in tree:
        raise ConfigError("the config names no recipe", where=label(info.path), hint="add `recipe: plugin/name`")
    for key, (kind, default) in CORE_KEYS.items():
        if key not in tree:
            tree[key] = default
            origins.set(key, "default of tian.config.compose:CORE_KEYS")
        if not isinstance(tree[key], kind) or isinstance(tree[key], bool):
            raise ConfigError(
                f"option {key!r} must be {kind.__name__}, got {tree[key]!r} ({type(tree[key]).__name__})",
                where=origins.where(key),
            )
    if tree["scale"] not in SCALES:
        raise ConfigError(
            f"scale must be one of {', '.join(SCALES)}, got {tree['scale']!r}", where=origins.where("scale")
        )
    registry = get_registry()
    entry = registry.resolve("recipe", str(tree["recipe"]))
    cls = registry.options_class(entry)
    rest = {k: v for k, v in tree.items() if k not in CORE_KEYS}
    if cls is None:
        if rest:
            key = next(iter(rest))
            raise ConfigError(f"recipe {entry.qualified!r} has no option {key!r}", where=origins.where(key))
        return
    try:
        made = build_options(cls, rest, where=origins.where)
    except ConfigError as error:
        if error.message.startswith("there is no option") and not any(k in error.hint for k in ("did you mean",)):
            error.hint += f" (core keys: {', '.join(CORE_KEYS)})"
        raise
    _fill(tree, dataclasses.asdict(made), "", origins, f"default of {entry.options}")
    _components(cls, made, tree, "", origins)


def _fill(tree: dict[str, Any], complete: Mapping[str, Any], prefix: str, origins: Origins, origin: str) -> None:
    for key, value in complete.items():
        if key not in tree:
            tree[key] = value
            origins.set(f"{prefix}{key}", origin)
        elif isinstance(value, dict) and isinstance(tree[key], dict):
            _fill(tree[key], value, f"{prefix}{key}.", origins, origin)
        else:
            tree[key] = value  # the schema's type, e.g. an int given for a float


def _components(cls: type, made: Any, tree: dict[str, Any], prefix: str, origins: Origins) -> None:
    """Check each `use` node against the options of the component it names."""
    hints = typing.get_type_hints(cls)
    for f in dataclasses.fields(cls):
        key = f"{prefix}{f.name}"
        role = f.metadata.get("role")
        value = tree[f.name]
        if role and isinstance(value, dict):
            _component(role, value, key, origins)
        elif role and isinstance(value, list):
            for i, element in enumerate(value):
                if isinstance(element, dict):
                    _component(role, element, f"{key}.{i}", origins)
        elif dataclasses.is_dataclass(hints[f.name]) and isinstance(value, dict):
            _components(hints[f.name], getattr(made, f.name), value, f"{key}.", origins)


def _component(role: str, node: dict[str, Any], key: str, origins: Origins) -> None:
    if "use" not in node:
        raise ConfigError(f"{key!r} names no component", where=origins.where(key), hint=f"set {key}.use=NAME")
    registry = get_registry()
    try:
        entry = registry.resolve(role, str(node["use"]))
    except UnknownName as error:
        error.where = error.where or origins.where(f"{key}.use")
        raise
    cls = registry.options_class(entry)
    given = {k: v for k, v in node.items() if k != "use"}
    if cls is None:
        if given:
            first = next(iter(given))
            raise ConfigError(
                f"{role} {entry.qualified!r} has no option {first!r}",
                where=origins.where(f"{key}.{first}"),
                hint="leave it out",
            )
        return
    made = build_options(cls, given, where=origins.where, prefix=f"{key}.")
    _fill(node, dataclasses.asdict(made), f"{key}.", origins, f"default of {entry.options}")


def options_of(config: DictConfig) -> Any:
    """The recipe's own options of a composed config, as the dataclass it registered."""
    registry = get_registry()
    cls = registry.options_class(registry.resolve("recipe", str(config.recipe)))
    plain = OmegaConf.to_container(config)
    assert isinstance(plain, dict)  # noqa: S101 - a DictConfig is a mapping
    return build_options(cls, {str(k): v for k, v in plain.items() if k not in CORE_KEYS}) if cls else None
