"""Options of a component: a dataclass, its fields documented by the comment behind each."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import io
import keyword
import re
import tokenize
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tian.errors import ConfigError, InvalidInput, PluginError, TianError

Where = Callable[[str], str]  # dotted key -> its origin, for messages


@dataclasses.dataclass(frozen=True)
class OptionDoc:
    """One option: name, type as text, default, whether it must be given, and its documentation."""

    name: str
    type: str
    default: Any
    required: bool
    doc: str


def field_comments(cls: type) -> dict[str, str]:
    """Field name -> the comment at the end of its definition, inherited fields included."""
    out: dict[str, str] = {}
    for base in reversed([c for c in cls.__mro__ if dataclasses.is_dataclass(c)]):
        out |= _own_comments(base)
    return out


def _own_comments(cls: type) -> dict[str, str]:
    try:
        source = inspect.getsource(cls)
    except (OSError, TypeError):
        return {}
    names = set(inspect.get_annotations(cls))
    out: dict[str, str] = {}
    current = None
    depth = indent = 0
    at_start = True
    for token in tokenize.generate_tokens(io.StringIO(inspect.cleandoc(source)).readline):
        if token.type == tokenize.OP:
            depth += (token.string in "([{") - (token.string in ")]}")
        indent += (token.type == tokenize.INDENT) - (token.type == tokenize.DEDENT)
        if token.type == tokenize.NAME and at_start and depth == 0 and indent == 1 and token.string in names:
            current = token.string
        if token.type == tokenize.COMMENT and current:
            out.setdefault(current, token.string.lstrip("# "))
        at_start = token.type in (tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT)
        if token.type == tokenize.NEWLINE:
            current = None
    return out


def type_name(annotation: Any) -> str:
    """`int`, `str | None`, `list[int]`, ..."""
    if annotation is None or annotation is type(None):
        return "None"
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__name__
    return str(annotation).replace("typing.", "")


def _hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except Exception as error:
        raise PluginError(
            f"the field types of {cls.__qualname__} cannot be read: {error}",
            where=cls.__module__,
            hint="import the types of an options dataclass at run time, not under TYPE_CHECKING",
        ) from error


def option_name(f: dataclasses.Field[Any]) -> str:
    """The name users write: that of the field, without the underscore behind a Python keyword (`from_` is `from`)."""
    plain = f.name.removesuffix("_")
    return plain if keyword.iskeyword(plain) else f.name


def _required(f: dataclasses.Field[Any]) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def _default(f: dataclasses.Field[Any]) -> Any:
    """The default as plain data; None for a required field."""
    value = f.default
    if value is dataclasses.MISSING:
        value = None if f.default_factory is dataclasses.MISSING else f.default_factory()
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


def _over_default(f: dataclasses.Field[Any], value: Any) -> Any:
    """A mapping for a nested dataclass, completed by the field's own default, which may differ from the class's."""
    if not isinstance(value, Mapping) or f.default_factory is dataclasses.MISSING:
        return value
    default = f.default_factory()
    return _merged(default, value) if dataclasses.is_dataclass(default) else value


def _merged(default: Any, value: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(value)
    for f in dataclasses.fields(default):
        name, own = option_name(f), getattr(default, f.name, None)
        if not f.init:
            continue
        if name not in out:
            out[name] = own
        elif dataclasses.is_dataclass(own) and isinstance(out[name], Mapping):
            out[name] = _merged(own, out[name])
    return out


def describe_options(cls: type | None) -> list[OptionDoc]:
    """The options of a component, in order; what the constructor does not take (`init=False`) is left out.

    Raises:
        PluginError: a field's type cannot be resolved.
    """
    if cls is None:
        return []
    hints = _hints(cls)
    comments = field_comments(cls)
    return [
        OptionDoc(option_name(f), type_name(hints[f.name]), _default(f), _required(f), comments.get(f.name, ""))
        for f in dataclasses.fields(cls)
        if f.init
    ]


def nearest(name: str, names: list[str]) -> str:
    """`did you mean 'recent'?`, or the list of what there is."""
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(names)) or 'none'}"


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _require(condition: bool) -> None:  # noqa: FBT001 - reads as a sentence
    if not condition:
        raise TypeError


def convert(value: Any, annotation: Any, *, where: Where | None = None, key: str = "") -> Any:
    """`value` as the annotated type.

    An int passes for a float, a string for a `Path`, a list for a tuple, a mapping for a dataclass; nothing else is
    converted: a bool is no number, `1.0` no int.

    Args:
        value: what was given.
        annotation: scalars, `X | Y`, `Literal`, `list`, `tuple`, `dict`, `Path`, dataclasses, `Any`.
        where: dotted key -> its origin, for messages about options of nested dataclasses.
        key: dotted key of the value.

    Raises:
        TypeError: it is not of that type.
        ConfigError, InvalidInput: a nested dataclass refused its options.
    """
    kind, args = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    if annotation is Any:
        return value
    if kind in (typing.Union, types.UnionType):
        for choice in args:
            try:
                return convert(value, choice, where=where, key=key)
            except TypeError:
                continue
        raise TypeError
    if annotation is None:
        kind = type(None)
    if kind is typing.Literal:
        _require(any(value == choice and type(value) is type(choice) for choice in args))
        return value
    if kind is list:
        _require(_is_list(value))
        return [convert(v, args[0] if args else Any, where=where, key=f"{key}.{i}") for i, v in enumerate(value)]
    if kind is tuple:
        return _convert_tuple(value, args, where=where, key=key)
    if kind is dict:
        _require(isinstance(value, Mapping))
        return {k: convert(v, args[1] if args else Any, where=where, key=f"{key}.{k}") for k, v in value.items()}
    _require(isinstance(kind, type))
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        return build_options(kind, value, where=where, prefix=f"{key}." if key else "")
    if kind is Path and isinstance(value, str):
        return Path(value)
    if isinstance(value, bool):
        _require(kind in (bool, object))
        return value
    if kind is float and isinstance(value, int):
        return float(value)
    _require(isinstance(value, kind))
    return value


def _convert_tuple(value: Any, args: tuple[Any, ...], *, where: Where | None, key: str) -> tuple[Any, ...]:
    _require(_is_list(value))
    if len(args) == 2 and args[1] is Ellipsis:
        args = (args[0],) * len(value)
    _require(not args or len(args) == len(value))
    pairs = zip(value, args or (Any,) * len(value), strict=True)
    return tuple(convert(v, a, where=where, key=f"{key}.{i}") for i, (v, a) in enumerate(pairs))


def build_options(cls: type, values: Mapping[str, Any], *, where: Where | None = None, prefix: str = "") -> Any:
    """An instance of the options dataclass `cls`.

    Args:
        cls: the dataclass.
        values: option name -> value; nested dataclasses from nested mappings.
        where: dotted key -> its origin, for messages.
        prefix: of the dotted keys, e.g. `kv.`; ends with a dot unless empty.

    Raises:
        ConfigError: an unknown or missing option (nearest name given), or a value of the wrong type.
        InvalidInput: the dataclass refused a value (its `InvalidInput`, ValueError or TypeError).
        PluginError: the dataclass itself is at fault.
    """
    origin = where or (lambda _key: "")
    hints = _hints(cls)
    fields = {option_name(f): f for f in dataclasses.fields(cls) if f.init}
    made: dict[str, Any] = {}
    for name, value in ((str(k), v) for k, v in values.items()):
        key = f"{prefix}{name}"
        if name not in fields:
            raise ConfigError(f"there is no option {key!r}", where=origin(key), hint=nearest(name, list(fields)))
        try:
            value = _over_default(fields[name], value)  # noqa: PLW2901
            made[fields[name].name] = convert(value, hints[fields[name].name], where=where, key=key)
        except TypeError:
            kind = type_name(hints[fields[name].name])
            raise ConfigError(
                f"option {key!r} must be {kind}, got {value!r} ({type(value).__name__})",
                where=origin(key),
                hint=f"give a value of type {kind}",
            ) from None
    for name, f in fields.items():
        if f.name not in made and _required(f):
            raise ConfigError(
                f"option {prefix + name!r} must be given",
                where=f"options {cls.__qualname__}",
                hint=f"set {prefix}{name}=...",
            )
    try:
        return cls(**made)
    except InvalidInput as error:
        error.where = error.where or _culprit(error.message, made, prefix=prefix, origin=origin)
        raise
    except TianError:
        raise
    except (ValueError, TypeError) as error:  # what authors raise by habit in __post_init__
        culprit = _culprit(str(error), made, prefix=prefix, origin=origin)
        raise InvalidInput(f"{cls.__qualname__}: {error}", where=culprit) from error
    except Exception as error:
        text = f"{cls.__qualname__} cannot be made: {type(error).__name__}: {error}"
        raise PluginError(text, where=cls.__module__, hint="report it to the plugin's author") from error


def _culprit(message: str, made: Mapping[str, Any], *, prefix: str, origin: Where) -> str:
    """Origin of the option the message names, else of the first one given."""
    words = set(re.findall(r"\w+", message))
    keys = [k for k in made if k in words] or list(made)[:1]
    return origin(f"{prefix}{keys[0]}") if keys else ""
