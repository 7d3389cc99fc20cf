"""`tian show NAME`."""

from __future__ import annotations

import dataclasses
import inspect
from typing import TYPE_CHECKING, Any

from tian.cli.console import columns, out, out_json
from tian.config.index import available_runs
from tian.errors import UnknownName
from tian.plugins.options import OptionDoc, describe_options, nearest
from tian.plugins.registry import KINDS, ROLES, get_registry, role_class

if TYPE_CHECKING:
    import argparse

    from tian.config.index import RunInfo
    from tian.plugins.registrar import Entry


def main(args: argparse.Namespace) -> int:
    """Describe a role, a component or a run; what the name means is tried in that order."""
    name = args.name
    if name in ROLES:
        return _role(name, as_json=args.json)
    registry = get_registry()
    entries = [e for e in registry.entries() if name in (e.qualified, e.name)]
    runs = [r for r in available_runs() if name in (r.name, r.name.split("/")[1])]
    if not entries and not runs:
        known = [e.qualified for e in registry.entries()] + [e.name for e in registry.entries()]
        known += [r.name for r in available_runs()] + list(KINDS)
        raise UnknownName(f"nothing is called {name!r}", hint=nearest(name, known) + "; `tian list` shows all")
    described = [_component(e) for e in entries if e.kind != "recipe" or not runs] + [_run(r) for r in runs]
    if args.json:
        out_json(described if len(described) > 1 else described[0])
        return 0
    for i, d in enumerate(described):
        if i:
            out()
        _print(d)
    return 0


def _options(cls: type | None) -> list[dict[str, Any]]:
    return [dataclasses.asdict(o) for o in _flat(cls)]


def _flat(cls: type | None, prefix: str = "") -> list[OptionDoc]:
    """Options with those of nested dataclasses under dotted names."""
    import typing

    out_: list[OptionDoc] = []
    hints = typing.get_type_hints(cls) if cls else {}
    for o in describe_options(cls):
        inner = hints[o.name]
        if dataclasses.is_dataclass(inner) and isinstance(inner, type):
            for deep in _flat(inner, f"{prefix}{o.name}."):
                given = o.default if isinstance(o.default, dict) else {}
                key = deep.name.removeprefix(f"{prefix}{o.name}.")
                out_.append(dataclasses.replace(deep, default=given.get(key, deep.default)))
        else:
            out_.append(dataclasses.replace(o, name=f"{prefix}{o.name}"))
    return out_


def _component(entry: Entry) -> dict[str, Any]:
    registry = get_registry()
    target = registry.target(entry)
    return {
        "kind": entry.kind,
        "name": entry.qualified,
        "summary": entry.summary,
        "from": f"{entry.dist} {entry.version}",
        "target": entry.target if isinstance(entry.target, str) else repr(entry.target),
        "doc": inspect.getdoc(target) or "",
        "options": _options(registry.options_class(entry)),
    }


def _run(info: RunInfo) -> dict[str, Any]:
    from tian.config.compose import compose

    config, _ = compose(info.name)
    registry = get_registry()
    entry = registry.resolve("recipe", str(config.recipe))
    options = _options(registry.options_class(entry))
    for o in options:
        from omegaconf import OmegaConf

        value = OmegaConf.select(config, o["name"])
        o["default"] = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    return {
        "kind": "run",
        "name": info.name,
        "summary": info.summary,
        "from": f"{entry.dist} {entry.version}",
        "target": entry.target,
        "doc": f"Start it with: tian run {info.name} [key=value ...]",
        "options": options,
    }


def _role(name: str, *, as_json: bool) -> int:
    cls = role_class(name)
    methods = [
        (key, inspect.getdoc(f) or "", str(inspect.signature(f)))
        for key, f in vars(cls).items()
        if inspect.isfunction(f) and not key.startswith("_")
    ]
    if as_json:
        out_json(
            {
                "kind": "role",
                "name": name,
                "doc": inspect.getdoc(cls),
                "methods": [{"name": k, "signature": s, "doc": d} for k, d, s in methods],
            }
        )
        return 0
    out(f"role {name}: tian.spec.{cls.__name__}\n")
    out(inspect.getdoc(cls) or "")
    for key, doc, signature in methods:
        out(f"\n{key}{signature}")
        out("\n".join(f"    {line}" if line else "" for line in doc.splitlines()))
    return 0


def _print(d: dict[str, Any]) -> None:
    out(f"{d['kind']} {d['name']}: {d['summary']}")
    out(f"from {d['from']}, {d['target']}")
    if d["doc"]:
        out(f"\n{d['doc']}")
    if not d["options"]:
        out("\nno options")
        return
    out("\noptions:")
    rows = [["name", "type", "default", "meaning"]]
    for o in d["options"]:
        default = "(must be given)" if o["required"] else _short(o["default"])
        rows.append([o["name"], o["type"], default, o["doc"]])
    out(columns(rows, indent="  "))


def _short(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
