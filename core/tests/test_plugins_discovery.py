"""How plugins are found, ordered, switched on and off, and how little that costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import tian
from tian.errors import DataError
from tian.plugins.registry import get_registry

SOURCE = """
from tian import hookimpl

@hookimpl
def tian_register_solvers(register):
    register("choose", "tian.testing.fakes:FakeSolver", summary="choose k items")
"""


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def two(install_plugin):
    for name in ("zeta", "alpha"):
        install_plugin(f"dist-{name}", modules={f"{name}_plug.py": SOURCE}, entry_points={name: f"{name}_plug"})
    return install_plugin


def states():
    return {p.name: p.state for p in get_registry().plugins}


def test_plugins_are_sorted_by_name_with_the_built_in_first(two):
    names = [p.name for p in get_registry().plugins]
    assert names[0] == "lm"
    assert names[1:] == sorted(names[1:])
    assert {"alpha", "zeta"} <= set(names)


def test_the_built_in_plugin_takes_the_same_road(two):
    lm = get_registry().plugins[0]
    assert (lm.name, lm.dist, lm.version, lm.state) == ("lm", "tian-framework", tian.__version__, "loaded")
    assert get_registry().config_folders()["lm"].is_dir()


def test_only_the_named_plugins_load(two, monkeypatch):
    monkeypatch.setenv("TIAN_PLUGINS", "alpha")
    assert states()["alpha"] == "loaded"
    assert states()["zeta"] == "disabled"


def test_an_empty_list_loads_no_installed_plugin(two, monkeypatch):
    monkeypatch.setenv("TIAN_PLUGINS", "")
    assert {name for name, state in states().items() if state == "loaded"} <= {"lm"}


def test_a_misspelt_name_in_the_list_is_reported(two, monkeypatch):
    monkeypatch.setenv("TIAN_PLUGINS", "alhpa")
    info = next(p for p in get_registry().plugins if p.name == "alhpa")
    assert info.state == "broken"
    assert info.problems[0].hint == "did you mean 'alpha'?"


def test_a_disabled_plugin_is_not_imported(two, monkeypatch):
    monkeypatch.setenv("TIAN_DISABLE_PLUGINS", "zeta, lm")
    assert (states()["zeta"], states()["lm"], states()["alpha"]) == ("disabled", "disabled", "loaded")
    assert "zeta_plug" not in sys.modules


def test_fast_stops_at_the_metadata(two):
    found = {p.name: p.state for p in get_registry(fast=True).plugins}
    assert found["alpha"] == "installed"
    assert "alpha_plug" not in sys.modules


def test_two_distributions_with_one_plugin_name_are_told_apart(two):
    two("dist-alpha-copy", modules={"alpha_copy_plug.py": SOURCE}, entry_points={"alpha": "alpha_copy_plug"})
    first, second = (p for p in get_registry().plugins if p.name == "alpha")
    assert (first.dist, first.state) == ("dist-alpha", "loaded")
    assert (second.dist, second.state) == ("dist-alpha-copy", "broken")
    assert "another distribution, dist-alpha, already provides" in second.problems[0].message
    assert second.problems[0].where.endswith("dist_alpha_copy-1.0.dist-info/entry_points.txt:2")
    assert "pip uninstall dist-alpha-copy" in second.problems[0].hint
    assert get_registry().resolve("solver", "alpha/choose").dist == "dist-alpha"


def test_a_one_off_file_is_a_plugin_and_its_objects_are_targets(plugin_file):
    path = plugin_file(
        """
from tian import hookimpl
from tian.testing.fakes import FakeModel

class Mine(FakeModel):
    pass

@hookimpl
def tian_register_models(register):
    register("mine", Mine, summary="an object")
    register("also", "one_off:Mine", summary="by name")
"""
    )
    registry = get_registry(extra_files=[path])
    assert get_registry() is registry
    assert type(registry.load("model", "mine")) is type(registry.load("model", "one_off/also"))
    assert registry.resolve("model", "mine").where == f"{path}:10"


def test_a_one_off_file_may_not_hide_a_module(plugin_file):
    info = get_registry(extra_files=[plugin_file("", name="json")]).plugins[-1]
    assert info.state == "broken"
    assert "rename the file" in info.problems[0].message


def test_a_one_off_file_that_is_not_there_is_refused():
    with pytest.raises(DataError, match=r"no plugin file nowhere\.py"):
        get_registry(extra_files=[Path("nowhere.py")])


def test_listing_imports_nothing_heavy():
    code = (
        "import sys, tian; tian.list()\n"
        "print([m for m in ('torch','transformers','lightning','omegaconf','rich','numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_pytest_plugin_and_the_roles_import_nothing_heavy():
    code = (
        "import sys, tian.testing.plugin, tian.spec; from tian.spec import KVPolicy, Model, Planner, Solver\n"
        "from tian.spec import SparsityPredictor, RewardModel, Evaluator\n"
        "print([m for m in ('torch','transformers','lightning','omegaconf','rich','numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_version_is_that_of_the_distribution():
    from importlib.metadata import version

    assert tian.__version__ == version("tian-framework")
