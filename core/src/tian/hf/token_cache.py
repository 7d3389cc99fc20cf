"""Token ids of texts kept between processes, in the user's cache folder: encoding a large text takes seconds, reading it none.

A file is named by the content of the tokenizer and of the text, so it is never stale. One that is damaged, or a folder
that cannot be written, costs the time of encoding and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tian.files import write_atomic
from tian.plugins.probation import cache_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LEAST = 100_000  # characters; what is shorter is encoded in no time
KEPT = 16  # files; beyond it the oldest go
_CHECK = 32  # bytes of the SHA-256 in front of the ids


def token_file(tokenizer: Any, sha256: str) -> Path | None:
    """Where the ids of a text are kept; None for a tokenizer whose content cannot be told, or without a home folder.

    Args:
        tokenizer: of transformers; those of its Rust library tell their whole content.
        sha256: of the text, hex; more words in it tell other ways of encoding apart.
    """
    import tokenizers

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    content = f"{tokenizers.__version__}\n{backend.to_str()}\n{sha256}"
    try:
        return cache_file().with_name("tokens") / hashlib.sha256(content.encode()).hexdigest()[:32]
    except RuntimeError:
        return None


def cached(tokenizer: Any, text: str, sha256: str, encode: Callable[[], torch.Tensor]) -> torch.Tensor:
    """What `encode` returns, `[N]` int64, taken from the cache when it is there.

    Args:
        tokenizer: see `token_file`.
        text: the text.
        sha256: of the text, hex.
        encode: does the work.
    """
    file = token_file(tokenizer, sha256) if len(text) >= LEAST else None
    if file is None:
        return encode()
    with contextlib.suppress(OSError, ValueError):
        raw = file.read_bytes()
        if hashlib.sha256(raw[_CHECK:]).digest() == raw[:_CHECK]:
            return torch.from_numpy(np.frombuffer(raw[_CHECK:], dtype="<i4").astype(np.int64))
    ids = encode()
    with contextlib.suppress(OSError):
        raw = ids.numpy().astype("<i4").tobytes()
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, hashlib.sha256(raw).digest() + raw)
        others = sorted(file.parent.iterdir(), key=lambda f: f.stat().st_mtime_ns, reverse=True)
        for old in others[KEPT:]:
            old.unlink(missing_ok=True)
    return ids
