"""The schema of a config: the dataclasses of its recipe and of the components it names, which check and complete it."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from tian.config.origin import Origins, label
from tian.errors import ConfigError, TianError, UnknownName
from tian.plugins.options import build_options, option_name
from tian.plugins.registry import get_registry

if TYPE_CHECKING:
    from tian.config.index import RunInfo
    from tian.plugins.registrar import Entry

CORE_KEYS = {"recipe": (str, None), "seed": (int, 0), "scale": (str, "tiny")}
SCALES = ("tiny", "cpu", "gpu", "paper")


def complete(tree: dict[str, Any], origins: Origins, info: RunInfo) -> None:
    """Check every key and value of `tree` and fill in all defaults, in place.

    Raises:
        ConfigError: an unknown key, a wrong type, a value that must be given.
        UnknownName, AmbiguousName: the recipe or a component.
        InvalidInput: a value outside its range.
    """
    if "recipe" not in tree:
        raise ConfigError("the config names no recipe", where=label(info.path), hint="add `recipe: plugin/name`")
    _core(tree, origins)
    _missing(tree, "", origins)
    registry = get_registry()
    try:
        entry = registry.resolve("recipe", str(tree["recipe"]))
    except TianError as error:
        error.where = error.where or origins.where("recipe")
        raise
    cls = registry.options_class(entry)
    rest = {k: v for k, v in tree.items() if k not in CORE_KEYS}
    if cls is None:
        if rest:
            key = next(iter(rest))
            raise ConfigError(f"recipe {entry.qualified!r} has no option {key!r}", where=origins.where(key))
        return
    origin = _origin_of_defaults(entry, cls)
    _default_components(cls, rest, "", origins, origin)
    try:
        made = build_options(cls, rest, where=origins.where)
    except ConfigError as error:
        if error.message.startswith("there is no option") and "did you mean" not in error.hint:
            error.hint += f" (core keys: {', '.join(CORE_KEYS)})"
        raise
    _fill(tree, _plain(made), "", origins, origin)
    _components(made, tree, "", origins)


def kind_of(tree: Mapping[str, Any], key: str) -> str | None:
    """What the recipe's options say the dotted `key` is: `role`, `mapping`, `value`, or None for unknown.

    A plugin's folder may bear the name of another plugin's plain option; only this tells `text=off` the value from
    `text=off` the choice.
    """
    try:
        registry = get_registry()
        cls: Any = registry.options_class(registry.resolve("recipe", str(tree.get("recipe"))))
    except TianError:
        return None  # said with its place when the config is completed
    *parents, last = key.split(".")
    try:
        for part in parents:
            cls = _dataclass(typing.get_type_hints(cls).get(part)) if cls else None
        field = next((f for f in dataclasses.fields(cls) if option_name(f) == last), None) if cls else None
        if field is None:
            return None
        hint = typing.get_type_hints(cls)[field.name]
    except (NameError, AttributeError, TypeError, SyntaxError):  # annotations at fault: said likewise
        return None
    mapping = _dataclass(hint) is not None or any((typing.get_origin(c) or c) is dict for c in _choices(hint))
    return ("role" if field.metadata.get("role") else "mapping") if mapping else "value"


def options_of(config: DictConfig) -> Any:
    """The recipe's own options of a composed config, as the dataclass it registered."""
    registry = get_registry()
    cls = registry.options_class(registry.resolve("recipe", str(config.recipe)))
    plain = OmegaConf.to_container(config)
    assert isinstance(plain, dict)  # noqa: S101 - a DictConfig is a mapping
    return build_options(cls, {str(k): v for k, v in plain.items() if k not in CORE_KEYS}) if cls else None


def _choices(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _dataclass(hint: Any) -> type | None:
    return next((c for c in _choices(hint) if isinstance(c, type) and dataclasses.is_dataclass(c)), None)


def _core(tree: dict[str, Any], origins: Origins) -> None:
    for key, (kind, default) in CORE_KEYS.items():
        if key not in tree:
            tree[key] = default
            origins.set(key, "default of tian.config.schema:CORE_KEYS")
        if not isinstance(tree[key], kind) or isinstance(tree[key], bool):
            raise ConfigError(
                f"option {key!r} must be {kind.__name__}, got {tree[key]!r} ({type(tree[key]).__name__})",
                where=origins.where(key),
                hint=f"give a value of type {kind.__name__}",
            )
    if tree["scale"] not in SCALES:
        raise ConfigError(
            f"scale must be one of {', '.join(SCALES)}, got {tree['scale']!r}",
            where=origins.where("scale"),
            hint=f"set scale={SCALES[0]} or another of them",
        )


def _missing(value: Any, key: str, origins: Origins) -> None:
    """Refuse `???`, OmegaConf's mark of a value still to be given: read later, it raises inside the recipe."""
    if value == "???":
        raise ConfigError(f"option {key!r} must be given", where=origins.where(key), hint=f"set {key}=...")
    pairs = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for part, inner in pairs:
        _missing(inner, f"{key}.{part}" if key else str(part), origins)


def _plain(value: Any) -> Any:
    """Options as the plain data `build_options` takes again; `asdict` would keep fields that it does not take."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {option_name(f): _plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def _origin_of_defaults(entry: Entry, cls: type) -> str:
    """`default of module:Class (file:line)`."""
    try:
        parts = Path(inspect.getfile(cls)).parts
        depth = cls.__module__.count(".") + 1 + (parts[-1] == "__init__.py")
        place = f" ({'/'.join(parts[-depth:])}:{inspect.getsourcelines(cls)[1]})"
    except (OSError, TypeError):  # no source, as in a zip or an interactive session
        place = ""
    return f"default of {entry.options}{place}"


def _fill(tree: dict[str, Any], full: Mapping[str, Any], prefix: str, origins: Origins, origin: str) -> None:
    for key, value in full.items():
        if key not in tree:
            tree[key] = value
            origins.set(f"{prefix}{key}", origin)
        elif isinstance(value, dict) and isinstance(tree[key], dict):
            _fill(tree[key], value, f"{prefix}{key}.", origins, origin)
        else:
            tree[key] = value  # the schema's type, e.g. an int given for a float


def _default_components(cls: type, tree: dict[str, Any], prefix: str, origins: Origins, origin: str) -> None:
    """Where only options of a component are given (`kv.recent=63`), let the default say which component it is."""
    try:
        hints = typing.get_type_hints(cls)
    except (NameError, AttributeError, TypeError, SyntaxError):  # annotations at fault: `build_options` says so
        return
    for f in dataclasses.fields(cls):
        node = tree.get(option_name(f))
        inner = _dataclass(hints[f.name])
        if not isinstance(node, dict):
            continue
        if f.metadata.get("role"):
            default = {} if f.default_factory is dataclasses.MISSING else f.default_factory()
            if "use" not in node and isinstance(default, dict) and "use" in default:
                _fill(node, {**default, **node}, f"{prefix}{f.name}.", origins, origin)
        elif inner is not None:
            _default_components(inner, node, f"{prefix}{f.name}.", origins, origin)


def _components(made: Any, tree: dict[str, Any], prefix: str, origins: Origins) -> None:
    """Check each `use` node against the options of the component it names."""
    for f in dataclasses.fields(made):
        if not f.init:
            continue
        key = f"{prefix}{option_name(f)}"
        role = f.metadata.get("role")
        value = tree[option_name(f)]
        inner = getattr(made, f.name)
        if role and isinstance(value, dict):
            _component(role, value, key, origins)
        elif role and isinstance(value, list):
            for i, element in enumerate(value):
                if isinstance(element, dict):
                    _component(role, element, f"{key}.{i}", origins)
        elif dataclasses.is_dataclass(inner) and isinstance(value, dict):
            _components(inner, value, f"{key}.", origins)


def _component(role: str, node: dict[str, Any], key: str, origins: Origins) -> None:
    if node.get("use") is None:
        where = origins.where(f"{key}.use" if "use" in node else key)
        raise ConfigError(f"{key!r} names no component", where=where, hint=f"set {key}.use=NAME")
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
    _fill(node, _plain(made), f"{key}.", origins, _origin_of_defaults(entry, cls))
