"""From `tian new-plugin` to green tests, for each role: write, install without a network, run the tests."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from _result import save

import tian
import tian_kvcache
from tian.plugins.hookspecs import ROLES

BAR = 60.0


def call(*argv: object, **more: object) -> float:
    """Seconds a command took; it must succeed."""
    start = time.perf_counter()
    subprocess.run([str(a) for a in argv], check=True, capture_output=True, **more)
    return time.perf_counter() - start


def environment(folder: Path) -> Path:
    """The Python of an environment with the libraries and the tian of this one, but without its editable installs."""
    call(sys.executable, "-m", "venv", "--without-pip", folder)
    paths = [sysconfig.get_path("purelib"), *(Path(m.__file__).parents[1] for m in (tian, tian_kvcache))]
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text("".join(f"{p}\n" for p in paths))
    return folder / "bin" / "python"


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top)
        python = environment(folder / "venv")
        more = {"cwd": folder, "env": os.environ | {"XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}}
        pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install", "-q")
        for role in ROLES:
            name = f"bench-{role.replace('_', '-')}"
            place = folder / f"tian-plugin-{name}"
            seconds = {
                "write_s": call(python, "-m", "tian", "new-plugin", name, "--role", role, **more),
                "install_s": call(*pip, "--no-build-isolation", "--no-index", "--no-deps", "-e", place, **more),
                "test_s": call(python, "-m", "pytest", "-q", place, **more),
            }
            total = sum(seconds.values())
            rows.append({"role": role, "total_s": round(total, 1), "bar_s": BAR})
            rows[-1] |= {k: round(v, 2) for k, v in seconds.items()}
            print(rows[-1])
    save("new-plugin", rows)


if __name__ == "__main__":
    main()
