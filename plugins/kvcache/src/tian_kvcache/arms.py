"""What one run compares: cache policies and the recomputation baseline, each an arm with a label."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tian.runs.rundir import Run
    from tian.spec import KVPolicy

from tian_kvcache.options import RECOMPUTE


@dataclass(frozen=True)
class Arm:
    """One way to read the text.

    Attributes:
        label: e.g. `streaming 1+31`.
        policy: the cache policy, None for recomputation.
        sinks: first tokens run again for each token (recomputation only).
        recent: last tokens run again for each token (recomputation only).
        zero_first: forget the content of the first token but keep its key (a check, see `checks.py`).
    """

    label: str
    policy: KVPolicy | None
    sinks: int = 0
    recent: int = 0
    zero_first: bool = False

    @property
    def slug(self) -> str:
        """File-name form of the label."""
        return re.sub(r"[^a-z0-9]+", "-", self.label.lower()).strip("-")

    @property
    def sinks_of_policy(self) -> int:
        """First tokens the policy always keeps, 0 when it has no such notion."""
        return int(getattr(self.policy, "sinks", 0))

    @property
    def capacity(self) -> int | None:
        """Tokens kept, None when unbounded."""
        return self.policy.capacity(0, 1, None) if self.policy else self.sinks + self.recent


def _label(name: str, options: Mapping[str, Any]) -> str:
    short = name.rsplit("/", 1)[-1]
    if "recent" in options:
        sinks = options.get("sinks", 0)
        return f"{short} {sinks}+{options['recent']}"
    rest = " ".join(f"{k}={v}" for k, v in options.items())
    return f"{short} {rest}".strip()


def _policy_arm(node: Mapping[str, Any], run: Run) -> Arm:
    options = {str(k): v for k, v in node.items() if k != "use"}
    return Arm(_label(str(node["use"]), options), run.load("kv_policy", node))


def build_arms(kv: Mapping[str, Any], compare: list[Any], run: Run) -> list[Arm]:
    """The configured policy first, then what it is compared with.

    `window` and `recompute` get the size of `kv`: the window keeps as many tokens, recomputation runs as many again.
    Beside an unbounded policy they are left out. `recompute S+R` has a size of its own.
    """
    main = _policy_arm(kv, run)
    arms = [main]
    size = main.capacity
    for entry in compare:
        if isinstance(entry, Mapping):
            arms.append(_policy_arm(entry, run))
        elif exact := RECOMPUTE.fullmatch(entry):
            sinks, recent = int(exact[1]), int(exact[2])
            arms.append(Arm(f"recompute {sinks}+{recent}", None, sinks, recent))
        elif entry == "full":
            arms.append(_policy_arm({"use": "kvcache/full"}, run))
        elif size is None:
            run.info(f"{entry} is left out: {main.label} keeps everything, so there is no size to match")
        elif entry == "window":
            arms.append(_policy_arm({"use": "kvcache/window", "recent": size}, run))
        else:
            sinks = int(kv.get("sinks", 0))
            arms.append(Arm(f"recompute {sinks}+{size - sinks}", None, sinks, size - sinks))
    unique: dict[str, Arm] = {}
    for arm in arms:
        unique.setdefault(arm.label, arm)
    return list(unique.values())
