"""From a check to the runs it needs: composed, compared, addressed by what they depend on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from tian.claims.fingerprint import code_hash, worlds_of
from tian.claims.stats import seeds_of
from tian.config.compose import compose, config_hash
from tian.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from tian.claims.model import Check, Claim

ARMS = ("claim", "control")


@dataclass(frozen=True)
class Task:
    """One run of a check: which arm, which seed, and the directory that holds it.

    The directory is named by what the run is, not by who asks for it: tasks of several checks that come to the same run
    have the same one, and it is run once.
    """

    arm: str
    seed: int
    config: str
    recipe: str
    overrides: tuple[str, ...]
    path: Path


@dataclass(frozen=True)
class CheckPlan:
    """All runs of one check.

    Attributes:
        claim: the claim.
        scale: its scale.
        check: the check.
        tasks: both arms of every seed.
        code: hash of the code that will run.
        worlds: name -> version and hash.
        group: the config group in which the control differs.
    """

    claim: Claim
    scale: str
    check: Check
    tasks: tuple[Task, ...]
    code: str
    worlds: dict[str, dict[str, Any]]
    group: str


def _composed(check: Check, *more: str) -> dict[str, Any]:
    plain = OmegaConf.to_container(compose(check.config, [*check.overrides, *more])[0])
    assert isinstance(plain, dict)  # noqa: S101 - compose returns mappings
    return {str(k): v for k, v in plain.items()}


def differing_groups(check: Check) -> list[str]:
    """Top-level keys in which the composed control differs from the composed claim."""
    ours, theirs = _composed(check), _composed(check, *check.control)
    return [k for k in {**ours, **theirs} if ours.get(k) != theirs.get(k)]


def plan(claim: Claim, scale: str, *, module: str, root: Path) -> CheckPlan:
    """Compose everything a check will run.

    Args:
        claim: the claim.
        scale: a scale it has a check for.
        module: module of the plugin's claims, for the hash of its code.
        root: folder of the claims' runs.

    Raises:
        ConfigError: the control differs in no config group or in several, or a config cannot be composed.
    """
    check = claim.checks[scale]
    groups = differing_groups(check)
    if len(groups) != 1:
        what = f"in {', '.join(groups)}" if groups else "in nothing"
        raise ConfigError(
            f"the control of {claim.id} ({scale}) differs {what}; it must differ in exactly one config group",
            where=f"{module}, control={check.control!r}",
            hint="let control change one top-level key; what both share belongs into overrides",
        )
    code = code_hash(module)
    worlds = worlds_of(check.worlds)
    seeds = seeds_of(check.seeds_of or claim.id, check.seeds)
    more = {arm: check.control if arm == "control" else () for arm in ARMS}
    configs = {arm: _composed(check, *more[arm], f"seed={seeds[0]}") for arm in ARMS}
    tasks = []
    for seed in seeds:
        for arm in ARMS:
            config = {**configs[arm], "seed": seed}
            key = json.dumps([config_hash(config), code, worlds], sort_keys=True)
            path = root / check.config / scale / f"{seed}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
            overrides = (*check.overrides, *more[arm], f"seed={seed}")
            tasks.append(Task(arm, seed, check.config, str(config["recipe"]), overrides, path))
    return CheckPlan(claim, scale, check, tuple(tasks), code, worlds, groups[0])
