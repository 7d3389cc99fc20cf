"""Helpers of these tests lie beside them; some run in a process of their own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tian_kernels

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))


@pytest.fixture(scope="session")
def script():
    """`script(file, *arguments, **environment)` runs a file of this folder and returns the JSON it prints."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")

    def run(file: str, *arguments: str, **environment: str) -> dict:
        inherited = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
        path = os.pathsep.join([str(Path(tian_kernels.__file__).parents[1]), *filter(None, sys.path)])
        done = subprocess.run(
            [sys.executable, str(HERE / file), *arguments],
            env={**inherited, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        if "only 0-dimensional arrays can be converted to Python scalars" in done.stderr:
            pytest.skip("the interpreter of this triton does not take this numpy (triton 3.6 wants numpy < 2.4)")
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout)

    return run
