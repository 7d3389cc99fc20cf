"""`tian doctor`: is this installation sound, and is each plugin?"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from tian import __version__
from tian.cli.console import columns, out, out_json
from tian.plugins import probation
from tian.plugins.guard import guard
from tian.plugins.installed import CORE_DIST, Problem
from tian.plugins.registry import get_registry
from tian.runs.progress import Progress
from tian.types import Check

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from tian.plugins.installed import PluginInfo

PLUGIN_SECONDS = 15.0  # to load one, beside others; a hanging import ends sooner, in probation
AT_ONCE = 4  # processes
FOREIGN = ("tian", "tian-core")  # names on the public registry that belong to others
LIBRARIES = ("torch", "lightning", "omegaconf", "pluggy")
_PROBE = (
    "import json,sys,os\n"
    "os.environ['TIAN_PLUGINS']=sys.argv[1]\n"
    "from dataclasses import asdict\n"
    "from tian.plugins.registry import get_registry\n"
    "found=[p for p in get_registry().plugins if p.name==sys.argv[1] and p.dist==sys.argv[2]]\n"
    "print('\\n'+json.dumps([[p.state,[asdict(q) for q in p.problems]] for p in found]))\n"
)


def main(args: argparse.Namespace) -> int:
    """Print one line a check; 1 when any is not ok."""
    checks = [*_versions(), *_foreign(), _device(), _kernels(), *_plugins()]
    broken = {c.name.split()[1] for c in checks if c.name.startswith("plugin ") and not c.ok}
    checks.extend(_from_plugins(broken))
    if args.json:
        out_json([asdict(c) for c in checks])
    else:
        out(columns([["ok " if c.ok else "BAD", c.name, c.detail] for c in checks]))
        for c in checks:
            if not c.ok and c.hint:
                out(f"  do ({c.name}): {c.hint}")
    return 0 if all(c.ok for c in checks) else 1


def _versions() -> list[Check]:
    found = [Check("python", sys.version_info >= (3, 11), platform.python_version(), "use Python 3.11 or newer")]
    found.append(Check("tian", ok=True, detail=__version__))
    for library in LIBRARIES:
        try:
            found.append(Check(library, ok=True, detail=version(library)))
        except PackageNotFoundError:
            found.append(Check(library, ok=False, detail="not installed", hint=f"pip install {library}"))
    return found


def _foreign() -> list[Check]:
    out_ = []
    for name in FOREIGN:
        try:
            found = version(name)
        except PackageNotFoundError:
            continue
        out_.append(
            Check(
                f"distribution {name}",
                ok=False,
                detail=f"{found} is installed; it is not ours and may shadow tian ({CORE_DIST})",
                hint=f"pip uninstall {name}, then pip install --force-reinstall --no-deps {CORE_DIST}",
            )
        )
    return out_


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _device() -> Check:
    result = guard(_has_cuda)
    if result.error is not None:
        return Check("device", ok=False, detail=f"torch does not import: {result.error}", hint="pip install torch")
    return Check(
        "device", ok=True, detail="cuda" if result.value else "cpu (no CUDA device; everything runs on the CPU)"
    )


def _kernels() -> Check:
    """What `kernel=auto` picks here."""
    from tian.hf.kernels import describe

    result = guard(describe)
    if result.error is not None:
        return Check("kernels", ok=False, detail=f"tian-kernels does not import: {result.error}", hint="reinstall it")
    return Check("kernels", ok=True, detail=str(result.value))


def _plugins() -> list[Check]:
    """A check for each installed plugin: all imports are tried anew, then each is loaded in a process of its own."""
    from concurrent.futures import ThreadPoolExecutor

    infos = get_registry(fast=True).plugins
    with Progress(len(infos), "checking plugins") as progress:
        probation.forget()
        probation.examine([i for i in infos if i.state == "installed"])

        def check(info: PluginInfo) -> Check:
            found = _load(info) if info.state == "installed" else _check(info, info.state, info.problems)
            progress.advance()
            return found

        with ThreadPoolExecutor(min(AT_ONCE, os.cpu_count() or 1)) as pool:
            return list(pool.map(check, infos))


def _load(info: PluginInfo) -> Check:
    """Load one plugin in a process of its own: a crash, an exit or a hang of its hooks becomes a line."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _PROBE, info.name, info.dist],
            capture_output=True,
            text=True,
            timeout=PLUGIN_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _bad(info, f"does not load within {PLUGIN_SECONDS:.0f} s")
    if done.returncode != 0:
        return _bad(info, f"the process ended with code {done.returncode} while loading it")
    try:
        found = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):  # os._exit(0) leaves no answer and no complaint
        return _bad(info, "ended the process while loading, with code 0")
    if not found:
        return _check(info, "not loaded here", [])
    state, problems = found[0]
    return _check(info, state, [Problem(**q) for q in problems])


def _bad(info: PluginInfo, what: str) -> Check:
    """A plugin that ended its process without a word: its module is all that is known of the place."""
    where = next(map(str, reversed(probation.module_files(info.module))), info.module)
    return _check(info, "", [Problem("error", what, where, f"pip uninstall {info.dist}")])


def _check(info: PluginInfo, state: str, problems: Sequence[Problem]) -> Check:
    """The line of one plugin."""
    title, owner = f"plugin {info.name}", f"{info.dist} {info.version}"
    errors = [q for q in problems if q.severity == "error"]
    if errors:
        detail = ": ".join(filter(None, [owner, state, f"{errors[0].message} ({errors[0].where})"]))
        remedy = errors[0].hint
        if "TIAN_DISABLE_PLUGINS" not in remedy and info.dist != "?":
            remedy = "; or ".join(filter(None, [remedy, f"set TIAN_DISABLE_PLUGINS={info.name}"]))
        return Check(title, ok=False, detail=detail, hint=remedy)
    warned = f"; warning: {problems[0].message} ({problems[0].where}); {problems[0].hint}" if problems else ""
    return Check(title, ok=True, detail=f"{owner}: {state}{warned}")


def _from_plugins(broken: set[str]) -> list[Check]:
    """Checks the plugins bring; not asked when a plugin could take this process down."""
    if broken:
        return []
    out_ = []
    for plugin, found in get_registry().call_each("tian_doctor_checks"):
        for check in found or []:
            result = guard(check.run)
            if isinstance(result.value, Check):
                out_.append(result.value)
            else:
                out_.append(
                    Check(f"{plugin}: {check.name}", ok=False, detail=f"the check itself failed: {result.error}")
                )
    return out_
