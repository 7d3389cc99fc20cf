"""`tian new-plugin NAME`: write a complete plugin whose tests pass before the first edit."""

from __future__ import annotations

import importlib.util
import keyword
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from tian.cli.console import out, out_json
from tian.cli.scaffold import Parts, from_role, package_of, render
from tian.errors import ConfigError, DataError, InvalidInput

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

LONGEST = 30  # letters of a name


def main(args: argparse.Namespace) -> int:
    """Write the files, then say which they are and what to do next."""
    check_name(args.name)
    if args.role is None and args.source is None:
        raise ConfigError(
            "neither --role nor --from is given", where="command line", hint="add --role kv_policy or another role"
        )
    folder = Path(args.dir) if args.dir is not None else Path(f"tian-plugin-{args.name}")
    check_folder(folder)
    parts = parts_of(args.name, role=args.role, source=args.source)
    files = render(args.name, parts)
    write(folder, files)
    steps = [f"cd {shlex.quote(str(folder))}", "pip install --no-build-isolation -e .", "pytest"]
    if args.json:
        out_json(
            {"dir": str(folder), "plugin": args.name, "role": parts.kind.role, "files": sorted(files), "next": steps}
        )
        return 0
    out(f"{folder}: the plugin {args.name}, a {parts.kind.role} ({parts.kind.summary})")
    for place in sorted(files):
        out(f"  {place}")
    out("\nnext:")
    for step in steps:
        out(f"  {step}")
    return 0


def parts_of(name: str, *, role: str | None, source: str | None) -> Parts:
    """What the plugin is made of.

    Raises:
        ConfigError: --role is not that of the --from component.
        UnknownName, AmbiguousName: no such component.
        InvalidInput: its source cannot be copied.
    """
    if source is None:
        assert role is not None  # noqa: S101 - one of the two is given
        return from_role(name, role)
    from tian.cli.scaffold_copy import from_component

    parts = from_component(name, source)
    if role not in (None, parts.kind.role):
        raise ConfigError(
            f"--role {role} contradicts --from {source}, which is a {parts.kind.role}",
            where="command line",
            hint="leave out --role",
        )
    return parts


def check_name(name: str) -> None:
    """Refuse a name that could not be a plugin's.

    Raises:
        InvalidInput: it is malformed, reserved, or in use.
    """
    if re.match(r"tian(-|_|$)", name):
        short = re.sub(r"^tian[-_]?(plugin[-_]?)?", "", name) or "recency"
        raise InvalidInput(
            f"the name {name!r} begins with tian, which tian puts in front of it anyway",
            where="NAME",
            hint=f"tian new-plugin {short} ...",
        )
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or len(name) > LONGEST:
        raise InvalidInput(
            f"{name!r} is not a name for a plugin",
            where="NAME",
            hint=f"use small letters, digits and single hyphens, a letter first, at most {LONGEST} of them",
        )
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise InvalidInput(f"{name!r} is a word of Python", where="NAME", hint=f"call it my-{name}, for example")
    from tian.plugins.installed import installed

    dist = f"tian-plugin-{name}"
    for info, _ in installed():
        if info.name == name or info.dist.lower().replace("_", "-") == dist:
            raise InvalidInput(
                f"a plugin called {info.name!r} is installed already: {info.dist} {info.version}",
                where="NAME",
                hint=f"choose another name, or pip uninstall {info.dist}",
            )
    if importlib.util.find_spec(package_of(name)) is not None:
        raise InvalidInput(
            f"a module called {package_of(name)!r} is installed already", where="NAME", hint="choose another name"
        )


def check_folder(folder: Path) -> None:
    """Refuse a place that is taken.

    Raises:
        DataError: a file, or a folder that is not empty.
    """
    hint = "choose another --dir"
    for place in (folder, *folder.parents):
        if (place.exists() or place.is_symlink()) and not place.is_dir():
            raise DataError(f"{place} is a file; a plugin needs a folder there", where=str(folder), hint=hint)
    try:
        taken = next(folder.iterdir(), None) if folder.is_dir() else None
    except OSError as error:
        raise DataError(f"cannot look into {folder}: {error.strerror}", where=str(folder), hint=hint) from None
    if taken is not None:
        raise DataError(
            f"the folder {folder} is not empty (it holds {taken.name}); nothing was changed",
            where=str(folder),
            hint=hint,
        )


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write all files, or none: what was written before an error is taken away again.

    Raises:
        DataError: the folder cannot be made or written.
    """
    made: list[Path] = []
    try:
        for place, text in files.items():
            path = folder / place
            missing = [p for p in (path.parent, *path.parent.parents) if not p.exists()]
            for parent in reversed(missing):
                parent.mkdir()
                made.append(parent)
            made.append(path)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        for path in reversed(made):
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)
        raise DataError(
            f"cannot write {error.filename or folder}: {error.strerror}",
            where=str(folder),
            hint="choose another --dir, or free it for writing",
        ) from None
