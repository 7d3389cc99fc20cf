"""Wall clock of the light commands, median of 10 cold processes, beside a bare interpreter."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from _result import save

BARS = {"--help": 0.15, "plugins": 0.3, "list": 0.3}


def seconds(command: list[str]) -> float:
    """One run."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    rows = []
    commands = {"python -c pass": [sys.executable, "-c", "pass"]}
    commands |= {f"tian {name}": [sys.executable, "-m", "tian", name] for name in BARS}
    for command in commands.values():
        seconds(command)  # warm the file cache
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(10):
        for name, command in commands.items():
            times[name].append(seconds(command))
    for name, values in times.items():
        bar = BARS.get(name.removeprefix("tian "))
        median = statistics.median(values)
        rows.append({"command": name, "median_s": round(median, 4), "min_s": round(min(values), 4), "bar_s": bar})
        print(f"{name:16} median {median:.3f} s  min {min(values):.3f} s  bar {bar or '-'}")
    save("startup", rows)


if __name__ == "__main__":
    main()
