"""Import modules one after the other in a child process, and learn which of them it does not survive.

The child keeps a journal on a pipe: `start I`, `end I`, and between them what faulthandler writes when the process
crashes, calls `os._exit` or does not get on. So the last line tells whose import it was, and often the line of code.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

GRACE_SECONDS = 2.0  # beyond the child's own limit, for a child whose limit a plugin has switched off
START_SECONDS = 60.0  # for the child to start at all
PATIENCE_SECONDS = 1.0  # of silence, before the user is told what is being waited for
# With -P, for what lies in the working directory is not to be run.
_CODE = "import json, sys; request = json.loads(sys.argv[1]); sys.path[:] = request['path']; "
_CODE += "from tian.plugins.probe import child; child(request)"


@dataclass
class End:
    """How one import ended.

    Attributes:
        message: empty when the process survived, else how it ended: `ended the process with exit code 9`.
        frames: `(file, line)` of what it was doing, innermost first; empty when not known.
    """

    message: str = ""
    frames: list[tuple[str, int]] = field(default_factory=list)


def try_imports(modules: Sequence[str], *, limit: float) -> list[End]:
    """Import `modules` in child processes.

    Args:
        modules: dotted names, imported with this process's sys.path.
        limit: seconds one import may take.

    Returns:
        How each ended, in order; fewer than `modules` when no child could be started.
    """
    ends: list[End] = []
    while len(ends) < len(modules) and sys.executable:  # empty where Python is part of another program
        try:
            survived, end = _one_child(modules[len(ends) :], limit)
        except OSError:  # no more processes or memory: no verdict
            break
        ends += [End() for _ in range(survived)]
        if end is None:
            break
        # What an earlier module left behind, a thread for instance, may have crashed the process. So the culprit is
        # tried again, first in a fresh child; there nobody else can be the cause.
        if survived == 0 or end.message.startswith("did not"):
            ends.append(end)
    return ends[: len(modules)]


def _one_child(modules: Sequence[str], limit: float) -> tuple[int, End | None]:
    """Start one child; how many modules it imported, and how the next one ended it (None: there is no such)."""
    import json
    import subprocess

    reader, writer = os.pipe()
    try:
        request = {"path": sys.path, "modules": list(modules), "fd": writer, "limit": limit}
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _CODE, json.dumps(request)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(writer,),
            start_new_session=True,  # so that what a plugin starts can be ended with it
        )
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    try:
        return _follow(reader, process, modules, limit)
    finally:
        os.close(reader)
        _end(process)


def _end(process: Any) -> None:
    import signal

    if process.poll() is None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _follow(reader: int, process: Any, modules: Sequence[str], limit: float) -> tuple[int, End | None]:
    """Read the journal until the child has done its work, has ended, or is overdue."""
    import logging
    import select

    raw, done, trace = b"", 0, None
    deadline, told = time.monotonic() + START_SECONDS, False
    while done < len(modules):
        left = deadline - time.monotonic()
        soon = left if told or trace is None else min(left, PATIENCE_SECONDS)
        if select.select([reader], [], [], max(0.0, soon))[0]:
            chunk = os.read(reader, 65536)
            if not chunk:
                return done, None if trace is None else _judge(trace, process, limit)
            raw += chunk
            before = done, trace is None
            done, trace = _journal(raw)
            if (done, trace is None) != before:
                deadline, told = time.monotonic() + (START_SECONDS if trace is None else limit + GRACE_SECONDS), False
        elif left <= 0:
            return done, None if trace is None else _judge(trace, process, limit)
        else:
            told = True
            logging.getLogger("tian").warning(
                "waiting for the plugin module %s, new here, to import (at most %g s)", modules[done], limit
            )
    return done, None


def _journal(raw: bytes) -> tuple[int, str | None]:
    """How many imports have ended, and what was written since the last one began (None: none is going on)."""
    text = raw.decode(errors="replace")
    marks = list(re.finditer(r"^(start|end) \d+\n", text, re.M))
    done = sum(m[1] == "end" for m in marks)
    return done, text[marks[-1].end() :] if marks and marks[-1][1] == "start" else None


def _judge(trace: str, process: Any, limit: float) -> End:
    """What to say of a child that ended, or is overdue, in the middle of an import."""
    import signal
    import subprocess

    frames = [(m[1], int(m[2])) for m in re.finditer(r'^  File "([^"<]+)", line (\d+) in ', trace, re.M)]
    frames = [f for f in frames if f[0] != __file__]
    try:
        code = None if trace.startswith("Timeout (") else process.wait(timeout=0.5)
    except subprocess.TimeoutExpired:
        code = None
    if code is None:
        return End(f"did not finish within {limit:g} s", frames)
    if code >= 0:
        return End(f"ended the process with exit code {code}", frames)
    known = {s.value: s.name for s in signal.Signals}
    return End(f"ended the process with signal {-code} ({known.get(-code, 'unknown')})", frames)


def child(request: dict[str, Any]) -> None:
    """What the child process does; it does not return."""
    import faulthandler
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash here is expected; nobody needs its memory on disk
    journal, limit, leave = int(request["fd"]), float(request["limit"]), os._exit

    def exit_(code: int) -> None:
        faulthandler.dump_traceback(file=journal, all_threads=False)
        leave(code)

    os._exit = exit_  # type: ignore[assignment] # so that the journal has the line
    faulthandler.enable(file=journal)
    for i, module in enumerate(request["modules"]):
        os.write(journal, b"start %d\n" % i)
        faulthandler.dump_traceback_later(limit, exit=True, file=journal)
        with contextlib.suppress(BaseException):  # it is told where the plugin is loaded
            importlib.import_module(module)
        faulthandler.cancel_dump_traceback_later()
        os.write(journal, b"end %d\n" % i)
    leave(0)
