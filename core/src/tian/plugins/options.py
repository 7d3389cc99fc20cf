"""Options of a component: a dataclass, its fields documented by the comment behind each."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import io
import tokenize
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from tian.errors import ConfigError, InvalidInput


@dataclasses.dataclass(frozen=True)
class OptionDoc:
    """One option: name, type as text, default, whether it must be given, and its documentation."""

    name: str
    type: str
    default: Any
    required: bool
    doc: str


def field_comments(cls: type) -> dict[str, str]:
    """Field name -> the comment at the end of its definition."""
    try:
        source = inspect.getsource(cls)
    except (OSError, TypeError):
        return {}
    names = {f.name for f in dataclasses.fields(cls)}
    out: dict[str, str] = {}
    current = None
    depth = 0
    at_start = True
    for token in tokenize.generate_tokens(io.StringIO(inspect.cleandoc(source)).readline):
        if token.type == tokenize.OP:
            depth += (token.string in "([{") - (token.string in ")]}")
        if token.type == tokenize.NAME and at_start and depth == 0 and token.string in names:
            current = token.string
        if token.type == tokenize.COMMENT and current:
            out.setdefault(current, token.string.lstrip("# "))
        at_start = token.type in (tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT)
        if token.type == tokenize.NEWLINE:
            current = None
    return out


def type_name(annotation: Any) -> str:
    """`int`, `str | None`, `list[int]`, ..."""
    return annotation.__name__ if isinstance(annotation, type) and not typing.get_args(annotation) else str(annotation).replace("typing.", "")


def describe_options(cls: type | None) -> list[OptionDoc]:
    """The options of a component, in order."""
    if cls is None:
        return []
    hints = typing.get_type_hints(cls)
    comments = field_comments(cls)
    out = []
    for f in dataclasses.fields(cls):
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        default = None if required else f.default if f.default is not dataclasses.MISSING else f.default_factory()  # type: ignore[misc]
        if dataclasses.is_dataclass(default) and not isinstance(default, type):
            default = dataclasses.asdict(default)
        out.append(OptionDoc(f.name, type_name(hints[f.name]), default, required, comments.get(f.name, "")))
    return out


def nearest(name: str, names: list[str]) -> str:
    """`did you mean 'recent'?`, or the list of what there is."""
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(names)) or 'none'}"


def convert(value: Any, annotation: Any) -> Any:
    """`value` as the annotated type.

    Raises:
        TypeError: it is not of that type. An int passes for a float; nothing else is converted.
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        for choice in args:
            try:
                return convert(value, choice)
            except TypeError:
                continue
        raise TypeError
    if annotation in (None, type(None)):
        if value is None:
            return None
        raise TypeError
    if origin is list:
        if not isinstance(value, list | tuple):
            raise TypeError
        return [convert(v, args[0] if args else Any) for v in value]
    if origin is dict or annotation is dict:
        if not isinstance(value, Mapping):
            raise TypeError
        return {k: convert(v, args[1] if args else Any) for k, v in value.items()}
    if origin is typing.Literal:
        if value in args:
            return value
        raise TypeError
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        if isinstance(value, annotation):
            return value
        if not isinstance(value, Mapping):
            raise TypeError
        return build_options(annotation, value)
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(annotation, type) and isinstance(value, annotation) and not (annotation in (int, float) and isinstance(value, bool)):
        return value
    raise TypeError


def build_options(
    cls: type, values: Mapping[str, Any], *, where: Callable[[str], str] | None = None, prefix: str = ""
) -> Any:
    """An instance of the options dataclass `cls`.

    Args:
        cls: the dataclass.
        values: option name -> value; nested dataclasses from nested mappings.
        where: dotted key -> its origin, for messages.
        prefix: of the dotted keys, e.g. `kv.`.

    Raises:
        ConfigError: an unknown or missing option (nearest name given), or a value of the wrong type.
        InvalidInput: the dataclass refused a value.
    """
    origin = where or (lambda _key: "")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    made = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if name not in fields:
            raise ConfigError(f"there is no option {key!r}", where=origin(key), hint=nearest(name, list(fields)))
        annotation = hints[name]
        nested = dataclasses.is_dataclass(annotation) and isinstance(value, Mapping)
        try:
            made[name] = (
                build_options(annotation, value, where=where, prefix=f"{key}.") if nested else convert(value, annotation)
            )
        except TypeError:
            raise ConfigError(
                f"option {key!r} must be {type_name(annotation)}, got {value!r} ({type(value).__name__})",
                where=origin(key),
                hint=f"give a value of type {type_name(annotation)}",
            ) from None
    for name, f in fields.items():
        if name not in made and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise ConfigError(f"option {prefix + name!r} must be given", hint=f"set {prefix}{name}=...")
    try:
        return cls(**made)
    except InvalidInput as error:
        if not error.where:
            keys = [k for k in made if k in error.message] or list(made)[:1]
            error.where = origin(f"{prefix}{keys[0]}") if keys else ""
        raise
