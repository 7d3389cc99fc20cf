"""Run a plugin's code so that nothing it does can take the program down, and note what it cost."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

HEAVY = frozenset({"torch", "transformers", "lightning", "numpy", "scipy", "pandas", "matplotlib", "omegaconf", "rich", "trl", "mujoco"})
SLOW_SECONDS = 0.5


@dataclass
class Guarded:
    """Outcome of guarded code: a value, or the error and the place it came from.

    Attributes:
        value: what the code returned.
        error: the exception, or None.
        where: `file:line` of the innermost frame outside tian.
        seconds: time taken.
        heavy: heavy libraries that were imported meanwhile.
    """

    value: Any = None
    error: BaseException | None = None
    where: str = ""
    seconds: float = 0.0
    heavy: list[str] = field(default_factory=list)


def guard(code: Callable[[], Any]) -> Guarded:
    """Call `code`; Exception and SystemExit end here, KeyboardInterrupt does not."""
    before = set(sys.modules)
    start = time.perf_counter()
    out = Guarded()
    try:
        out.value = code()
    except (Exception, SystemExit) as error:
        out.error = error
        out.where = place(error)
    out.seconds = time.perf_counter() - start
    out.heavy = sorted(HEAVY & (set(sys.modules) - before))
    return out


def place(error: BaseException) -> str:
    """`file:line` where the error arose, seen from the plugin: the last frame that is not import machinery."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename and f.filename[:1] != "<"]
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def describe(error: BaseException) -> str:
    """`Type: message`, one line."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
