"""Checks of the plugin a registered name comes from: light, documented, and installable as declared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tian.plugins.guard import HEAVY
from tian.plugins.options import describe_options
from tian.plugins.registry import get_registry
from tian.testing.conformance.base import Checks, require, skip

if TYPE_CHECKING:
    from tian.plugins.installed import PluginInfo
    from tian.plugins.registrar import Entry

_IMPORT = """
import importlib, json, sys
import tian
before = set(sys.modules)
importlib.import_module(sys.argv[1])
print(json.dumps(sorted({m.partition(".")[0] for m in set(sys.modules) - before})))
"""
_STRICT = """
import json, sys
from tian.plugins.registry import get_registry
info = next(p for p in get_registry().plugins if p.name == sys.argv[1])
print(json.dumps([info.state, [p.message for p in info.problems]]))
"""


class PackagingChecks(Checks):
    """What holds for the plugin behind a registered name."""

    @property
    def entry(self) -> Entry:
        """The registered entry."""
        return get_registry().resolve(self.role, self.target)

    @property
    def plugin(self) -> PluginInfo:
        """The plugin that registered it."""
        return next(p for p in get_registry().plugins if p.name == self.entry.plugin)

    def test_pk01_the_registration_module_imports_nothing_heavy(self) -> None:
        """Importing the registration module imports none of torch, transformers, numpy and their like."""
        found = HEAVY & set(_python(_IMPORT, self.module))
        require(not found, f"{self.module} imports {', '.join(sorted(found))}; name targets as 'module:Class'")

    def test_pk02_the_plugin_has_no_problems_under_strict(self) -> None:
        """The plugin loads without a problem under TIAN_STRICT=1."""
        state, problems = _python(_STRICT, self.name, TIAN_STRICT="1", TIAN_PLUGINS=self.name)
        require(state == "loaded" and not problems, f"plugin {self.name} is {state}: {'; '.join(problems)}")

    def test_pk03_every_option_is_documented(self) -> None:
        """The component has a summary of one line, and every option a comment that documents it."""
        entry = self.entry
        require(entry.summary.strip() and "\n" not in entry.summary, f"the summary is {entry.summary!r}")
        bare = [o.name for o in describe_options(get_registry().options_class(entry)) if not o.doc]
        require(not bare, f"put a comment behind the fields {', '.join(bare)} of {entry.options}")

    def test_pk04_the_distribution_requires_tian_framework_with_bounds(self) -> None:
        """The distribution requires tian-framework with a lower and an upper bound."""
        from importlib.metadata import PackageNotFoundError, requires

        from packaging.requirements import Requirement
        from packaging.utils import canonicalize_name

        try:
            lines = requires(self.plugin.dist) or []
        except PackageNotFoundError:
            skip(f"{self.plugin.dist} is no installed distribution")
        if canonicalize_name(self.plugin.dist) == "tian-framework":
            skip("the built-in plugin is part of tian-framework")
        found = [r for r in map(Requirement, lines) if canonicalize_name(r.name) == "tian-framework"]
        require(found, f"{self.plugin.dist} does not require tian-framework")
        signs = {s.operator for r in found for s in r.specifier}
        bounded = bool(signs & {"~=", "=="}) or (bool(signs & {">=", ">"}) and bool(signs & {"<", "<="}))
        require(bounded, f"{found[0]} has no bounds on both sides; write tian-framework>=0.1,<1")

    def test_pk05_the_folder_of_configurations_is_shipped(self) -> None:
        """A registered folder of configurations exists where the package is installed and holds YAML."""
        folder = self.plugin.config_folder
        if folder is None:
            skip("the plugin registers no configurations")
        require(folder.is_dir() and any(folder.rglob("*.yaml")), f"{folder} holds no .yaml: declare package-data")

    @property
    def name(self) -> str:
        """Name of the plugin."""
        return self.plugin.name

    @property
    def module(self) -> str:
        """Its registration module."""
        return self.plugin.module


def _python(code: str, *arguments: str, **environment: str) -> list[str]:
    """Run code in a fresh interpreter and read the JSON it prints last."""
    path = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(  # what runs is the code above
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": path} | environment,
    )
    require(done.returncode == 0, f"a fresh interpreter could not import it:\n{done.stderr.strip()[-800:]}")
    out: list[str] = json.loads(done.stdout.splitlines()[-1])
    return out
