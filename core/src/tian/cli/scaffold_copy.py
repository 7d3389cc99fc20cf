"""A new plugin from a registered component: its source files, with their imports turned to the new package."""

from __future__ import annotations

import ast
import dataclasses
import re
from typing import TYPE_CHECKING, Any

from tian.cli.scaffold import KINDS, Parts, package_of
from tian.errors import AmbiguousName, InvalidInput, TianError, UnknownName
from tian.plugins.hookspecs import ROLES
from tian.plugins.options import nearest
from tian.plugins.probation import module_files
from tian.plugins.registry import get_registry

if TYPE_CHECKING:
    from pathlib import Path

    from tian.plugins.registrar import Entry

RESERVED = frozenset({"__init__", "plugin", "demo", "demo_options", "claims"})  # modules the new plugin has anyway
SMALL = 8  # a size beside the default one at which the copy is tested
# A component may do anything, so what is claimed of a copied policy is what holds for every one.
POLICY_CLAIM = (
    "exact-when-it-fits",
    "A stream that fits the cache is read as without a policy.",
    *("logit error", "Le", "0.0001", "withheld=8"),
)


def from_component(name: str, source: str) -> Parts:
    """The parts of a plugin that starts as a copy of the component `source`.

    Raises:
        UnknownName, AmbiguousName: no role has such a component, or several have.
        InvalidInput: it is an object instead of a name, or its source is not there as text.
    """
    entry = find(source)
    module, _, cls = _target(entry).partition(":")
    root = module.partition(".")[0]
    if root == "tian":
        raise _refuse(entry, "it is part of tian itself", "use --role, or write a class that derives from it")
    sources = _closure(entry, [module, *([entry.options.partition(":")[0]] if entry.options else [])], root)
    places = {old: _place(old, root) for old in sources}
    package = package_of(name)
    files = {f"{places[old]}.py": _rewrite(entry, text, old, places, root, package) for old, text in sources.items()}
    kind = KINDS[entry.kind]
    if entry.kind == "kv_policy":
        kind = dataclasses.replace(kind, folder="kv_policy_copy", claim=POLICY_CLAIM)
    options = None
    if entry.options:
        options_module, _, options_cls = entry.options.partition(":")
        options = (places[options_module], options_cls)
    licence = _licence(entry)
    return Parts(
        kind=dataclasses.replace(kind, module=places[module], summary=entry.summary),
        cls=cls,
        options=options,
        requires=_requires(entry, kind.requires),
        needs=entry.needs,
        files=files,
        origin=_origin(entry, licence, [(places[old], old) for old in sources]),
        licence=licence or "Apache-2.0",
        option_sets=_option_sets(entry),
    )


def find(source: str) -> Entry:
    """The component of a qualified or short name, of whatever role."""
    entries = [e for e in get_registry().entries() if e.kind in ROLES]
    found = [e for e in entries if source in (e.qualified, e.name)]
    if not found:
        known = sorted({e.name for e in entries} | {e.qualified for e in entries})
        raise UnknownName(f"no component is called {source!r}", where="--from", hint=nearest(source, known))
    if len(found) > 1:
        both = ", ".join(f"{e.qualified} ({e.kind})" for e in found)
        raise AmbiguousName(
            f"several components are called {source!r}: {both}", where="--from", hint="write plugin/name"
        )
    return found[0]


def _refuse(entry: Entry, why: str, hint: str = "use --role, or copy the files by hand") -> InvalidInput:
    return InvalidInput(f"{entry.qualified} cannot be copied: {why}", where=f"{entry.dist} {entry.version}", hint=hint)


def _target(entry: Entry) -> str:
    if not isinstance(entry.target, str):
        raise _refuse(entry, f"it is registered as an object, {entry.target!r}, not as 'module:Class'")
    return entry.target


def _file(module: str) -> Path | None:
    """The source file of a module, without importing it."""
    files = module_files(module)
    if not files or files[-1].suffix != ".py":
        return None
    path, parts = files[-1].with_suffix(""), module.split(".")
    path = path.parent if path.name == "__init__" else path
    return files[-1] if list(path.parts[-len(parts) :]) == parts else None  # else it is that of a package above


def _closure(entry: Entry, modules: list[str], root: str) -> dict[str, str]:
    """Source of the modules and of all modules of the same package that they import."""
    found: dict[str, str] = {}
    todo = list(modules)
    while todo:
        module = todo.pop(0)
        if module in found:
            continue
        file = _file(module)
        if file is None:
            raise _refuse(entry, f"there is no source file of the module {module}")
        try:
            text = file.read_text(encoding="utf-8")
            tree = ast.parse(text)
        except (OSError, UnicodeDecodeError, SyntaxError) as error:
            raise _refuse(entry, f"{file} cannot be read: {error}") from None
        found[module] = text
        for node in ast.walk(tree):
            todo += [m for m, _ in _imports(node, module, root)]
    return found


def _imports(node: ast.AST, module: str, root: str) -> list[tuple[str, str]]:
    """The modules of the package `root` that an import statement names, each with the name it is bound to."""
    if isinstance(node, ast.Import):
        return [(a.name, a.asname or a.name) for a in node.names if a.name.partition(".")[0] == root]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = _base(node, module)
    if base.partition(".")[0] != root:
        return []
    inner = [(f"{base}.{a.name}", a.asname or a.name) for a in node.names if _file(f"{base}.{a.name}")]
    return inner if len(inner) == len(node.names) else [(base, ""), *inner]


def _base(node: ast.ImportFrom, module: str) -> str:
    """The absolute name of what `from X import` names."""
    if not node.level:
        return node.module or ""
    file = _file(module)
    depth = node.level - (1 if file and file.name == "__init__.py" else 0)
    above = module.split(".")[: len(module.split(".")) - depth] if depth else module.split(".")
    return ".".join([*above, *([node.module] if node.module else [])])


def _place(module: str, root: str) -> str:
    """The name of a copied module in the new package, which has no sub-packages."""
    rest = module.removeprefix(root).lstrip(".").replace(".", "_")
    if not rest:
        return "component"
    return f"{rest}_copied" if rest in RESERVED else rest


def _rewrite(entry: Entry, text: str, module: str, places: dict[str, str], root: str, package: str) -> str:
    """The text with every import of the old package turned to the new one; all else stays as it is."""
    lines = text.splitlines(keepends=True)
    for node in ast.walk(ast.parse(text)):
        found = _imports(node, module, root)
        if not found:
            continue
        at = f"{module}, line {getattr(node, 'lineno', 0)}"
        renamed = [f"{package}.{places[m]}" for m, _ in found]
        if isinstance(node, ast.ImportFrom) and found[0][1] == "" and len(found) == 1:
            old = "." * node.level + (node.module or "")
            start = node.lineno - 1
            lines[start] = re.sub(rf"\bfrom\s+{re.escape(old)}(?=\s)", f"from {renamed[0]}", lines[start], count=1)
        elif isinstance(node, ast.ImportFrom) and found[0][1] != "" and node.lineno == node.end_lineno:
            names = [f"{places[m]} as {bound}" if places[m] != bound else bound for m, bound in found]
            indent = lines[node.lineno - 1][: node.col_offset]
            lines[node.lineno - 1] = f"{indent}from {package} import {', '.join(names)}\n"
        else:
            raise _refuse(entry, f"its import in {at} is of a form that cannot be turned to another package")
    return "".join(lines)


def _origin(entry: Entry, licence: str, files: list[tuple[str, str]]) -> str:
    """The paragraph of the README."""
    moved = ", ".join(f"`{new}.py` was `{old}`" for new, old in files)
    text = f"Copied from `{entry.qualified}` of {entry.dist} {entry.version} (licence: {licence or 'not stated'}): {moved}."
    if entry.kind != "kv_policy":
        text += (
            f"\nThe demo, the claim and the tests are those of `tian new-plugin --role {entry.kind}`; where the copied\n"
            "component takes other options or other input, adapt them."
        )
    return f"{text}\n\n"


def _licence(entry: Entry) -> str:
    """The licence the distribution states, empty when it states none or in words that are no SPDX expression."""
    from importlib.metadata import PackageNotFoundError, metadata

    try:
        found: Any = metadata(entry.dist)
    except (PackageNotFoundError, ValueError):
        return ""
    text = str(found.get("License-Expression") or found.get("License") or "")
    return text if re.fullmatch(r"[A-Za-z0-9.+-]+( (AND|OR|WITH) [A-Za-z0-9.+-]+)*", text) else ""


def _requires(entry: Entry, ours: str) -> list[str]:
    """What the copied code depends on: all its old distribution does, without extras."""
    from importlib.metadata import PackageNotFoundError, requires

    from packaging.requirements import Requirement

    try:
        lines = [r for r in requires(entry.dist) or [] if "extra ==" not in r]
    except (PackageNotFoundError, ValueError):
        lines = []
    others = [r for r in lines if Requirement(r).name.lower().replace("_", "-") != "tian-framework"]
    return [ours, *others]


def _option_sets(entry: Entry) -> str:
    """Option sets for the conformance test: the defaults, and small sizes where the options allow them."""
    from tian.plugins.options import build_options, describe_options

    cls = get_registry().options_class(entry)
    small = {o.name: SMALL for o in describe_options(cls) if type(o.default) is int and o.default > SMALL}
    if cls is not None and small:
        try:
            build_options(cls, small)
        except TianError:
            return "[{}]"
        return f"[{{}}, {small!r}]".replace("'", '"')
    return "[{}]"
