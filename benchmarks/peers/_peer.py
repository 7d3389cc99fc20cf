"""Another library beside ours: an environment of its own, and processes that answer one JSON a line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from pathlib import Path


def python_of(venv: Path, *requirements: str) -> str:
    """Python of the environment `venv`, made with `requirements`, arguments of pip, if it is not there."""
    python = venv / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *requirements], check=True)
    return str(python)


class Worker:
    """A process on one thread that is given a job and then takes requests."""

    def __init__(self, python: str, script: Path, job: dict[str, Any], **environment: str) -> None:
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self.process = subprocess.Popen(
            [python, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **environment},
        )
        self.ask(json.dumps(job))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self.process.stdin:
            self.process.stdin.close()
        self.process.wait()
        self.errors.close()

    def ask(self, request: str) -> dict[str, Any]:
        """The answer; ends the program with what the process said when it ended instead."""
        assert self.process.stdin is not None  # noqa: S101 - pipes were asked for
        assert self.process.stdout is not None  # noqa: S101
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        self.errors.seek(0)
        raise SystemExit(f"the worker {self.process.args} ended:\n{self.errors.read()[-2000:]}")
