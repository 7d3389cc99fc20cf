"""Run a plugin's code so that nothing it does can take the program down, and note what it cost."""

from __future__ import annotations

import contextlib
import sys
import time
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tian.errors import TianError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HEAVY = frozenset(
    {
        "torch",
        "transformers",
        "lightning",
        "numpy",
        "scipy",
        "pandas",
        "matplotlib",
        "omegaconf",
        "rich",
        "trl",
        "mujoco",
    }
)
SLOW_SECONDS = 0.5


class Terminated(SystemExit):
    """SIGTERM, as the command line raises it. A plugin's own `sys.exit` ends at the guard, this does not."""


@dataclass
class Guarded:
    """Outcome of guarded code: a value, or the error and the place it came from.

    Attributes:
        value: what the code returned.
        error: the exception, or None.
        where: `file:line` of the innermost frame that is not import machinery.
        seconds: wall clock, s.
        heavy: heavy libraries imported meanwhile, each with the `file:line` that asked for it.
    """

    value: Any = None
    error: BaseException | None = None
    where: str = ""
    seconds: float = 0.0
    heavy: dict[str, str] = field(default_factory=dict)


class _HeavyWatch:
    """A finder that finds nothing; it only sees who imports a heavy library first."""

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Note the importing line; the library itself is left to the finders behind."""
        if name not in HEAVY or name in self.seen:
            return
        # A heavy library imports others of its kind: they are its doing, not the plugin's.
        frame = sys._getframe(1)
        while frame.f_back is not None and _machinery(frame.f_code.co_filename):
            frame = frame.f_back
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] not in HEAVY:
            self.seen[name] = f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _machinery(filename: str) -> bool:
    return filename.startswith("<frozen importlib") or "/importlib/" in filename.replace("\\", "/")


@contextlib.contextmanager
def _watch() -> Iterator[dict[str, str]]:
    watch = _HeavyWatch()
    sys.meta_path.insert(0, watch)
    try:
        yield watch.seen
    finally:
        with contextlib.suppress(ValueError):  # the code may have replaced the list
            sys.meta_path.remove(watch)


def guard(code: Callable[[], Any]) -> Guarded:
    """Call `code`; Exception and SystemExit end here, KeyboardInterrupt and SIGTERM do not.

    What the code prints goes to stderr: stdout belongs to results, which may be JSON.
    """
    start = time.perf_counter()
    out = Guarded()
    with _watch() as out.heavy, contextlib.redirect_stdout(sys.stderr):
        try:
            out.value = code()
        except Terminated:
            raise
        except (Exception, SystemExit) as error:
            out.error = error
            out.where = place(error)
    out.seconds = time.perf_counter() - start
    return out


def place(error: BaseException) -> str:
    """`file:line` where the error arose: the innermost frame that is not import machinery."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if f.filename[:1] != "<" and not _machinery(f.filename)
    ]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def describe(error: BaseException) -> str:
    """`Type: message` on one line, cut after 300 characters."""
    text = " ".join(str(error).split())
    text = text if len(text) <= 300 else f"{text[:300]}..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def remedy(error: BaseException, *, dist: str, plugin: str, module: str) -> str:
    """What the user can do about an exception out of a plugin's code.

    An import name is not a distribution name (and `tian` on the public index is a stranger's), so no `pip install`
    line is made from one.
    """
    if isinstance(error, TianError) and error.hint:
        return error.hint
    out = f"TIAN_DISABLE_PLUGINS={plugin} leaves it out"
    if isinstance(error, ImportError) and error.name:
        root = error.name.partition(".")[0]
        if root == "tian":
            return f"pip install -U tian-framework {dist}, or {out}"
        if isinstance(error, ModuleNotFoundError) and root != module.partition(".")[0]:
            return f"install the package that provides {root!r} (try: pip install -U {dist}), or {out}"
    return f"report it to the author of {dist}, or {out}"
