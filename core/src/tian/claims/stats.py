"""Seeds, intervals and verdicts: pure functions, no files, no processes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tian.claims.model import Between

VERDICTS = ("holds", "fails", "inconclusive", "skipped", "error", "vacuous")
DEVELOPMENT = 10  # seeds below it are for development; claims never use them
_SEEDS = 2**31 - 1  # torch's CPU generator reads 32 bits of a seed; numpy refuses negative ones
# 97.5 % quantiles of Student's t by degrees of freedom, 1 to 30; the normal one beyond.
_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


def seeds_of(claim_id: str, n: int) -> list[int]:
    """The n seeds of a claim: a hash of its id, so that nobody chooses them; none is a development seed (0 to 9).

    Example:
        >>> seeds_of("kvcache/bounded", 2) == seeds_of("kvcache/bounded", 3)[:2]
        True
    """
    out: list[int] = []
    i = 0
    while len(out) < n:
        digest = hashlib.sha256(f"{claim_id}#{i}".encode()).digest()
        seed = DEVELOPMENT + int.from_bytes(digest[:8], "big") % (_SEEDS - DEVELOPMENT)
        if seed not in out:
            out.append(seed)
        i += 1
    return out


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % interval over seeds (Student's t); a single value is its own interval.

    Example:
        >>> [round(x, 3) for x in interval([1.0, 2.0, 3.0])]
        [2.0, -0.484, 4.484]
    """
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return mean, mean, mean
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    half = (_T[n - 2] if n - 2 < len(_T) else 1.96) * spread / math.sqrt(n)
    return mean, mean - half, mean + half


def meets(bar: Between, values: Sequence[float]) -> bool | None:
    """Whether the whole interval is within the bar; None when it straddles the bar."""
    _, low, high = interval(values)
    if low >= bar.low and high <= bar.high:
        return True
    if high < bar.low or low > bar.high:
        return False
    return None


def verdict(bar: Between, claim: Sequence[float], control: Sequence[float]) -> tuple[str, str]:
    """The verdict over all seeds, and why it is not `holds`.

    A claim holds when its interval is within the bar and that of its control is outside. A control that is within
    makes the check vacuous; one that straddles the bar leaves it inconclusive.
    """
    if not all(math.isfinite(v) for v in [*claim, *control]):
        return "error", "a measured value is not finite"
    ours, theirs = meets(bar, claim), meets(bar, control)
    if ours is False:
        return "fails", f"the measured interval lies outside {bar}"
    if ours is None:
        return "inconclusive", f"the interval straddles the bar {bar}"
    if theirs is True:
        return "vacuous", "the control meets the bar as well: this check proves nothing"
    if theirs is None:
        return "inconclusive", f"the interval of the control straddles the bar {bar}"
    return "holds", ""
