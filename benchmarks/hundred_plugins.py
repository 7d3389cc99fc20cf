"""Start-up with a hundred plugins, ten of them broken in ten ways: the first start, then medians of 10."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

BAR = 0.5
GOOD = """
from tian import hookimpl


@hookimpl
def tian_register_solvers(register):
    register("choose", "tian.testing.fakes:FakeSolver", summary="choose k items")
"""


@dataclass(frozen=True)
class Bad:
    """A way to be broken: what `tian plugins` must say of it, and the line it happens in."""

    source: str
    says: str
    state: str = "broken"
    line: int = 1
    requires: tuple[str, ...] = field(default=("tian-framework>=0.1",))


BAD = {
    "missing": Bad("import no_such_library\n", "No module named 'no_such_library'"),
    "exits": Bad("raise SystemExit(3)\n", "SystemExit: 3"),
    "slow": Bad(
        "import time\nend = time.perf_counter() + 1\nwhile time.perf_counter() < end:\n    pass\n" + GOOD,
        "which slows every command",
        state="loaded",
    ),
    "typo": Bad(
        "from tian import hookimpl\n\n\n@hookimpl\ndef tian_register_solver(register):\n    pass\n",
        "there is no hook called tian_register_solver",
        state="loaded",
        line=4,
    ),
    "newer": Bad(
        GOOD, "it requires tian-framework>=99", state="incompatible", line=4, requires=("tian-framework>=99",)
    ),
    "zcopy": Bad(GOOD, "another distribution, dist-good00, already provides a plugin called 'good00'", line=2),
    "raises": Bad(
        "from tian import hookimpl\n\n\n@hookimpl\ndef tian_register_models(register):\n    raise OSError('no disk')\n",
        "in tian_register_models: OSError: no disk",
        state="loaded",
        line=6,
    ),
    "heavy": Bad("import torch\n" + GOOD, "importing it pulls in torch", state="loaded"),
    "crash": Bad("import os\n\nos.abort()\n", "ended the process with signal 6 (SIGABRT)", line=3),
    "hang": Bad("import threading\n\nthreading.Event().wait()\n", "did not finish within 5 s", line=3),
}
SLOW = ("slow", "heavy")  # good but for the time they take, and they take it in every command


# The bar is for the time of tian itself, so these two stand in for the slow ones.
INSTEAD = {"exits2": BAD["exits"], "raises2": BAD["raises"]}


def write(folder: Path, *, bad: tuple[str, ...] = tuple(BAD), good: int = 90) -> None:
    """Install light plugins `good00`, `good01`, ... and the named bad ones (distributions `dist-NAME`) into `folder`."""
    from tian.testing.plugin import write_distribution

    for i in range(good):
        name = f"good{i:02}"
        write_distribution(folder, f"dist-{name}", modules={f"{name}.py": GOOD}, entry_points={name: name})
    for name in bad:
        how = (BAD | INSTEAD)[name]
        write_distribution(
            folder,
            f"dist-{name}",
            modules={f"bad_{name}.py": how.source},
            entry_points={"good00" if name == "zcopy" else name: f"bad_{name}"},
            requires=how.requires,
        )


def environment(folder: Path) -> dict[str, str]:
    """That of a process which finds the plugins of `folder`, and a cache of its own."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TIAN_")}
    return clean | {"PYTHONPATH": str(folder), "XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}


def _seconds(folder: Path, command: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "tian", command], check=True, capture_output=True, env=environment(folder))
    return time.perf_counter() - start


def main() -> None:
    from _result import save

    cases = {
        "90 good": (),
        "90 good, 10 broken, none slow": (*(n for n in BAD if n not in SLOW), "exits2", "raises2"),
        "90 good, 10 broken, 2 of them slow": tuple(BAD),
    }
    rows = []
    with tempfile.TemporaryDirectory() as top:
        for case, bad in cases.items():
            folder = Path(top) / case.replace(" ", "-").replace(",", "")
            folder.mkdir()
            write(folder, bad=bad)
            first = _seconds(folder, "list")
            for command in ("list", "plugins"):
                times = [_seconds(folder, command) for _ in range(10)]
                row = {
                    "case": case,
                    "command": f"tian {command}",
                    "median_s": round(statistics.median(times), 3),
                    "min_s": round(min(times), 3),
                    "bar_s": BAR if command == "list" and "2 of them" not in case else None,
                }
                if command == "list":
                    row["first_start_s"] = round(first, 3)
                rows.append(row)
                print(row)
    save("hundred-plugins", rows)


if __name__ == "__main__":
    main()
