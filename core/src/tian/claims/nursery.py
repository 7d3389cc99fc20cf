"""`python -m tian.claims.nursery`: import once, fork a child for each run. Orders come by stdin, see `processes.Forked`.

An order is a line of JSON: arguments of `tian`, the recipe they will need, and the file for what the run prints. Answers:
`{"pid": ...}` of the child, `{"code": ..., "cpu": seconds}` when it has ended. What cannot be imported here, or leaves a second thread
behind (a fork would lose it), is run in a fresh interpreter instead.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TextIO

if TYPE_CHECKING:
    from collections.abc import Sequence

# What runs import lazily, by what their recipe has imported.
LATE = {
    "torch": ("matplotlib.figure", "matplotlib.backends.backend_svg"),
    "transformers": ("transformers.models.auto.modeling_auto", "transformers.models.auto.tokenization_auto"),
}


def main() -> None:
    """Serve until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what an import prints is no answer
    ready: dict[str, bool] = {}
    for line in sys.stdin:
        order = json.loads(line)
        recipe = order["recipe"]
        if recipe not in ready:
            ready[recipe] = warm(recipe)
        fork = ready[recipe] and len(os.listdir("/proc/self/task")) == 1  # noqa: PTH208 - a count
        pid = os.fork()
        if pid == 0:
            os.close(answers.fileno())
            child(order["argv"], Path(order["out"]), fresh=not fork)
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)  # here and in the child: whoever comes first
        tell(answers, pid=pid)
        _, status, used = os.wait4(pid, 0)
        tell(answers, code=os.waitstatus_to_exitcode(status), cpu=used.ru_utime + used.ru_stime)


def tell(answers: TextIO, **answer: float) -> None:
    """One answer; ends the process when nobody reads it."""
    try:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    except BrokenPipeError:
        os._exit(1)


def warm(recipe: str) -> bool:
    """Import the recipe's module and what it will import; False when that fails: the run shall tell how."""
    from importlib import import_module

    from tian.plugins.registry import get_registry

    try:
        registry = get_registry()
        registry.target(registry.resolve("recipe", recipe))
        late = [name for seen, names in LATE.items() if seen in sys.modules for name in names]
        for name in ("tian.cli.cmd_run", "tian.runs.execute", "tian.runs.report", *late):
            import_module(name)
    except (Exception, SystemExit):  # noqa: BLE001 - plugin code; the run raises it again, and says it better
        return False
    return True


def child(argv: Sequence[str], out: Path, *, fresh: bool) -> NoReturn:
    """Become the run; never returns."""
    code = 1
    try:
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        for number, path, flags in ((0, os.devnull, os.O_RDONLY), (1, str(out), os.O_WRONLY | os.O_CREAT)):
            handle = os.open(path, flags, 0o600)
            os.dup2(handle, number)
            os.close(handle)
        if fresh:
            os.execv(sys.executable, [sys.executable, "-m", "tian", *argv])  # noqa: S606 - our own interpreter
        sys.argv = ["tian", *argv]
        runpy.run_module("tian", run_name="__main__")  # as `python -m tian` does
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
        sys.stdout.flush()
    finally:
        os._exit(code)  # the parent's clean-up is not ours


if __name__ == "__main__":
    main()
