"""Text that every installation has: the sources of installed packages; or the user's file."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tian.errors import DataError

if TYPE_CHECKING:
    from tian.hf.options import TextSource

MIN_CHARS = 64  # below this there is nothing to measure


@dataclass(frozen=True)
class Text:
    """A text and where it came from.

    Attributes:
        text: the characters.
        label: for reports, e.g. `networkx 3.6.1 (Python sources)`.
        sha256: of the UTF-8 bytes.
    """

    text: str
    label: str
    sha256: str


def package_files(package: str) -> list[Path]:
    """The .py files of an installed package or sub-package, tests left out, sorted by their path inside it.

    Raises:
        DataError: the package is not installed.
    """
    top, *below = package.split(".")
    named = all(part.isidentifier() for part in (top, *below))
    spec = importlib.util.find_spec(top) if named else None  # of the dotted name it would import the top one
    places = list(spec.submodule_search_locations or []) if spec else []
    if not places or not Path(places[0], *below).is_dir():
        raise DataError(
            f"the text names the package {package!r}, which is not installed",
            where="text.packages",
            hint=f"pip install {package}, or set text.path=FILE",
        )
    root = Path(places[0], *below)
    files = (p for p in root.rglob("*.py") if "tests" not in p.relative_to(root).parts)
    return sorted(files, key=lambda p: p.relative_to(root).as_posix())


def read_file(path: Path) -> str:
    """A user's text file.

    Raises:
        DataError: missing, a folder, not UTF-8 (with the byte offset), or almost empty.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"the text file {path} {what}", where="text.path", hint="set text.path to a UTF-8 text file")
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"the text file {path} is not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}",
            where="text.path",
            hint=f"convert it: iconv -f latin1 -t utf-8 {path} > {path.stem}.utf8.txt",
        ) from None
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror}", where="text.path", hint="check its permissions"
        ) from None
    if len(text.strip()) < MIN_CHARS:
        raise DataError(
            f"the text file {path} holds {len(text.strip())} characters; at least {MIN_CHARS} are needed",
            where="text.path",
            hint="give a longer text",
        )
    return text


def read_text(source: TextSource) -> Text:
    """The text a config names; the books of a folder one after the other.

    Raises:
        DataError: see `read_file`, `tian.hf.texts.read_books` and `package_files`.
    """
    if source.path is not None:
        from tian.hf.texts import read_documents

        books, label = read_documents(source)
        text = "\n".join(book.text for book in books)
    else:
        files = [f for name in source.packages for f in package_files(name)]
        text = "\n".join(f.read_text(encoding="utf-8", errors="replace") for f in files)
        label = f"{', '.join(f'{p} {_version(p)}'.rstrip() for p in source.packages)} (Python sources)"
    return Text(text, label, hashlib.sha256(text.encode()).hexdigest())


def _version(package: str) -> str:
    """Version of the distribution a package came with, empty when nobody knows."""
    from importlib.metadata import PackageNotFoundError, packages_distributions, version

    top = package.partition(".")[0]
    try:
        return version(top)  # most are named alike; to look through all distributions takes half a second
    except PackageNotFoundError:
        owners = packages_distributions().get(top)
        return version(owners[0]) if owners else ""


def encode(tokenizer: Any, text: str) -> torch.Tensor:
    """`[N]` int64 token ids of the whole text, no special tokens added."""
    return torch.tensor(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], dtype=torch.int64)


def first_tokens(tokenizer: Any) -> list[int]:
    """What the tokenizer itself puts in front of every text: its first (bos) token, or nothing."""
    return list(tokenizer("", add_special_tokens=True)["input_ids"])


def cut_streams(ids: torch.Tensor, *, first: list[int], streams: int, tokens: int, seed: int = 0) -> torch.Tensor:
    """Cut a text into streams that do not overlap, at even distances (seed 0) or at random places.

    Args:
        ids: `[N]` int64, the text.
        first: ids put in front of every stream; they count as its tokens.
        streams: how many are wanted.
        tokens: length of each.
        seed: which places; 0 spreads the streams evenly.

    Returns:
        `[S, T]` int64: as many whole streams as the text gives, at least one; a text shorter than one stream gives
        a single, shorter one.
    """
    body = max(1, tokens - len(first))
    count = max(1, min(streams, ids.numel() // body))
    body = min(body, ids.numel())
    free = ids.numel() - count * body  # tokens that end up in no stream
    if seed == 0:
        starts = [i * (ids.numel() - body) // max(1, count - 1) if count > 1 else 0 for i in range(count)]
    else:
        gaps = torch.randint(0, free + 1, (count,), generator=torch.Generator().manual_seed(seed)).sort().values
        starts = [gap + i * body for i, gap in enumerate(gaps.tolist())]
    head = torch.tensor(first, dtype=torch.int64)
    return torch.stack([torch.cat([head, ids[s : s + body]]) for s in starts])


def load_streams(
    source: TextSource, tokenizer: Any, *, streams: int, tokens: int, seed: int
) -> tuple[torch.Tensor, Text]:
    """Read the text a config names, encode it (see `token_cache`) and cut it into streams that start as the model expects.

    Args:
        source: the text.
        tokenizer: of the model.
        streams: how many are wanted.
        tokens: length of each.
        seed: which places, see `cut_streams`.

    Returns:
        `[S, T]` int64, see `cut_streams`, and the text.

    Raises:
        DataError: see `read_text`.
    """
    from tian.hf.token_cache import cached

    text = read_text(source)
    ids = cached(tokenizer, text.text, text.sha256, lambda: encode(tokenizer, text.text))
    return cut_streams(ids, first=first_tokens(tokenizer), streams=streams, tokens=tokens, seed=seed), text
