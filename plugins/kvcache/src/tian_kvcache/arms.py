"""What one run compares: cache policies and the recomputation baseline, each an arm with a label."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
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
    """`streaming 1+31`, `h2o 16+16`, `sink-h2o 1+15+16`; other options by name, those left alone (null) not at all."""
    usual = (("layers", "uniform"), ("positions", "in_cache"))
    given = {k: v for k, v in options.items() if v is not None and (k, v) not in usual}
    words = [name.rsplit("/", 1)[-1]]
    if "recent" in given:
        sizes = [given.pop(k) for k in ("sinks", "heavy", "recent") if k in given]
        words.append("+".join(map(str, sizes if len(sizes) > 1 else [0, *sizes])))
    elif "budget" in given:
        words.append(str(given.pop("budget")))
    if "path" in given:
        given["path"] = Path(str(given["path"])).name
    return " ".join([*words, *(f"{k}={v}" for k, v in given.items())])


def policy_arm(node: Mapping[str, Any], run: Run) -> Arm:
    """The arm of a `{use: NAME, option: ...}` node."""
    options = {str(k): v for k, v in node.items() if k != "use"}
    return Arm(_label(str(node["use"]), options), run.load("kv_policy", node))


def sizes_at(policy: KVPolicy, capacity: int) -> str:
    """What a policy makes of `capacity` tokens: `sinks+heavy+recent` or `sinks+recent`, empty when it has no parts."""
    sinks = int(getattr(policy, "sinks", 0))
    recent_of = getattr(policy, "recent_of", None)
    if recent_of is not None:
        recent = int(recent_of(capacity))
        parts = [capacity - sinks - recent, recent]
        return "+".join(map(str, [sinks, *parts] if sinks else parts))
    return f"{sinks}+{capacity - sinks}" if hasattr(policy, "recent") else ""


def arms_at(nodes: Iterable[Mapping[str, Any]], run: Run, capacity: int) -> list[Arm]:
    """Policies compared at one total size, labelled by name; where a name comes twice, by name and sizes at that size."""
    found: dict[str, Arm] = {}
    seen = set()
    for node in nodes:
        arm = policy_arm(node, run)
        assert arm.policy is not None  # noqa: S101 - built from a policy node
        name, sizes = str(node["use"]).rsplit("/", 1)[-1], sizes_at(arm.policy, capacity)
        rest = {k: v for k, v in node.items() if k not in ("use", "sinks", "heavy", "recent", "budget", "layers")}
        key = (name, sizes, str(sorted(rest.items())))
        if key in seen:
            continue
        seen.add(key)
        label = name if name not in found else f"{name} {sizes}"
        found[label if label not in found else arm.label] = arm
    return [replace(arm, label=label) for label, arm in found.items()]


def build_arms(kv: Mapping[str, Any], compare: list[Any], run: Run) -> list[Arm]:
    """The configured policy first, then what it is compared with.

    `window` and `recompute` get the size of `kv`: the window keeps as many tokens, recomputation runs as many again.
    Beside an unbounded policy they are left out. `recompute S+R` has a size of its own.
    """
    main = policy_arm(kv, run)
    arms = [main]
    size = main.capacity
    for entry in compare:
        if isinstance(entry, Mapping):
            arms.append(policy_arm(entry, run))
        elif exact := RECOMPUTE.fullmatch(entry):
            sinks, recent = int(exact[1]), int(exact[2])
            arms.append(Arm(f"recompute {sinks}+{recent}", None, sinks, recent))
        elif entry == "full":
            arms.append(policy_arm({"use": "kvcache/full"}, run))
        elif size is None:
            run.info(f"{entry} is left out: {main.label} keeps everything, so there is no size to match")
        elif entry == "window":
            arms.append(policy_arm({"use": "kvcache/window", "recent": size}, run))
        else:
            sinks = int(kv.get("sinks", 0))
            arms.append(Arm(f"recompute {sinks}+{size - sinks}", None, sinks, size - sinks))
    unique: dict[str, Arm] = {}
    for arm in arms:
        unique.setdefault(arm.label, arm)
    return list(unique.values())
