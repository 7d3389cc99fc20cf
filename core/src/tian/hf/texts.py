"""Texts and questions that users bring: a folder of books, multiple choice and long-context questions in JSON lines.

Each reader is strict: a file that cannot be used is refused as a whole, with the line and what it lacks.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tian.errors import DataError
from tian.hf.corpus import package_files, read_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tian.hf.options import TextSource

CHOICES_FORM = '{"context": "...", "choices": ["...", "..."], "gold": 0}'
LONG_FORM = '{"input": "...", "context": "...", "answers": ["..."]}'


@dataclass(frozen=True)
class Document:
    """One text of several.

    Attributes:
        name: of its file.
        text: the characters.
    """

    name: str
    text: str


@dataclass(frozen=True)
class Question:
    """Multiple choice, as lm-eval sees it.

    Attributes:
        context: what is read first; may be empty.
        choices: at least two continuations, none of them empty.
        gold: index of the right one.
        where: `file:line`.
    """

    context: str
    choices: tuple[str, ...]
    gold: int
    where: str


@dataclass(frozen=True)
class LongQuestion:
    """A question about a long context, as LongBench has it.

    Attributes:
        context: the long text.
        input: the question; may be empty (summaries).
        answers: acceptable answers, at least one.
        where: `file:line`.
    """

    context: str
    input: str
    answers: tuple[str, ...]
    where: str


def read_books(folder: Path) -> list[Document]:
    """The .txt files of a folder, sorted by name: one document each (the form of PG19).

    Raises:
        DataError: no folder, no .txt in it, or a file that is not UTF-8 or almost empty.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"the folder of texts {folder} {what}", where="text.path", hint="give a folder of .txt files")
    files = sorted(folder.glob("*.txt"))
    if not files:
        raise DataError(f"the folder {folder} holds no .txt file", where="text.path", hint="one UTF-8 .txt file a book")
    return [Document(f.name, read_file(f)) for f in files]


def read_documents(source: TextSource) -> tuple[list[Document], str]:
    """The texts a config names, one by one, and a label: a folder of .txt, one text file, or the files of packages.

    Raises:
        DataError: see `read_books`, `read_file` and `package_files`.
    """
    if source.path is None:
        files = [(name, f) for name in source.packages for f in package_files(name)]
        documents = [Document(f"{n}: {f.name}", f.read_text(encoding="utf-8", errors="replace")) for n, f in files]
        return documents, f"{', '.join(source.packages)} (Python sources)"
    path = Path(source.path)
    return (read_books(path) if path.is_dir() else [Document(path.name, read_file(path))]), path.name


def read_choices(path: Path) -> list[Question]:
    """Multiple choice, one JSON object a line: `context`, `choices`, `gold`. Other keys are left alone.

    Raises:
        DataError: the file cannot be read, or a line lacks something; the message says which line and what.
    """
    out = []
    for where, row in _objects(path, CHOICES_FORM):
        choices = _strings(row, "choices", where, CHOICES_FORM, least=2)
        gold = _field(row, "gold", where, CHOICES_FORM)
        if type(gold) is not int or not 0 <= gold < len(choices):
            raise _bad(f'"gold" is {gold!r}, not a whole number in 0..{len(choices) - 1}', where, CHOICES_FORM)
        if "" in choices:
            raise _bad(f"choice {choices.index('')} is empty", where, CHOICES_FORM)
        out.append(Question(_string(row, "context", where, CHOICES_FORM), choices, gold, where))
    return out


def read_long(path: Path) -> list[LongQuestion]:
    """Long-context questions, one JSON object a line: `input`, `context`, `answers`. Other keys are left alone.

    Raises:
        DataError: as `read_choices`.
    """
    return [
        LongQuestion(
            _string(row, "context", where, LONG_FORM),
            _string(row, "input", where, LONG_FORM),
            _strings(row, "answers", where, LONG_FORM, least=1),
            where,
        )
        for where, row in _objects(path, LONG_FORM)
    ]


def _objects(path: Path, form: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """`file:line` and the object of each line that is not blank."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"the file {path} {what}", where="data.path", hint=f"one object a line: {form}")
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: byte {error.start}", where=str(path), hint="save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", where=str(path), hint="check permissions") from None
    found = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise _bad(f"the line is not JSON: {error}", where, form) from None
        if not isinstance(row, dict):
            raise _bad(f"the line holds a {type(row).__name__}, not an object", where, form)
        found += 1
        yield where, row
    if not found:
        raise DataError(f"{path} holds no questions", where=str(path), hint=f"one object a line: {form}")


def _bad(what: str, where: str, form: str) -> DataError:
    return DataError(what, where=where, hint=f"each line is like {form}")


def _field(row: dict[str, Any], key: str, where: str, form: str) -> Any:
    if key not in row:
        raise _bad(f'"{key}" is missing; the line has {", ".join(sorted(row)) or "nothing"}', where, form)
    return row[key]


def _string(row: dict[str, Any], key: str, where: str, form: str) -> str:
    value = _field(row, key, where, form)
    if not isinstance(value, str):
        raise _bad(f'"{key}" is a {type(value).__name__}, not a string', where, form)
    return value


def _strings(row: dict[str, Any], key: str, where: str, form: str, *, least: int) -> tuple[str, ...]:
    value = _field(row, key, where, form)
    if not isinstance(value, list) or len(value) < least or not all(isinstance(x, str) for x in value):
        raise _bad(f'"{key}" must be a list of at least {least} strings', where, form)
    return tuple(value)
