"""A long stream of real text on the shipped model: does anything grow?

`full` is read to eight training lengths only: its cache would grow without bound.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from _result import save

import tian

# Enough source text for 200,000 tokens in one stream, none of it trained on.
PACKAGES = "[networkx]"


def slope(samples: list[list[int]], *, skip: float = 0.25) -> float:
    """Least-squares growth in MiB per 100,000 tokens, after the first quarter (allocators warm up)."""
    points = samples[int(len(samples) * skip) :]
    n = len(points)
    mx, my = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    top = sum((x - mx) * (y - my) for x, y in points)
    return top / max(1e-9, sum((x - mx) ** 2 for x, _ in points)) * 100_000 / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=200_000)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp()) / "run"
    overrides = [
        f"tokens={args.tokens}", "streams=1", "compare=[full, window]", "full_limit=1024", "checks=false",
        f"text.packages={PACKAGES}", f"threads={args.threads}",
    ]  # fmt: skip
    tian.run("kvcache/stream", overrides, folder=folder)
    data = json.loads((folder / "stream.json").read_text(encoding="utf-8"))
    rows = []
    for arm in data["arms"]:
        row = {k: arm[k] for k in ("label", "done", "ppl", "ms_per_token", "cache_bytes", "cache_growth")}
        row["rss_slope_mib_per_100k"] = round(slope(arm["rss"]), 3)
        row["curve"] = [[round(x), round(y, 2)] for x, y in arm["curve"]]
        rows.append(row)
        print(
            f"{row['label']:18} {row['done']:>8} tokens  ppl {row['ppl']:.2f}  {row['ms_per_token']:.2f} ms/token  "
            f"cache {row['cache_bytes']:,} B (growth {row['cache_growth']})  "
            f"RSS {row['rss_slope_mib_per_100k']:+.2f} MiB per 100,000 tokens"
        )
    save("long-stream", rows)


if __name__ == "__main__":
    main()
