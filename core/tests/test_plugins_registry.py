"""Names, loading, and the errors a user meets on the way."""

from __future__ import annotations

import hashlib
import re

import pytest

import tian
from tian.errors import (
    AmbiguousName,
    ConfigError,
    InvalidInput,
    MissingDependency,
    PluginError,
    PluginIncompatible,
    UnknownName,
)
from tian.plugins.provenance import provenance
from tian.plugins.registry import get_registry

PLUGIN = """
from tian import hookimpl

@hookimpl
def tian_register_kv_policies(register):
    register("tail", "alpha_parts:Tail", summary="keep the last tokens", options="alpha_parts:Options")
    register("plain", "tian.testing.fakes:FakeKVPolicy", summary="no options")
    register("needy", "alpha_parts:Tail", summary="s", needs=("no_such_library",))
    register("extra", "alpha_parts:Tail", summary="s", needs=("no.such_library",), extra="gpu")
    register("wrong", "tian.testing.fakes:FakeSolver", summary="another role")
    register("future", "alpha_parts:Tail", summary="s", spec=2)
    register("partial", "alpha_parts:Partial", summary="s")
    register("absent", "alpha_parts:Nothing", summary="s")
    register("crash", "alpha_parts:Crash", summary="s")
    register("odd", "alpha_parts:Tail", summary="s", options="alpha_parts:Tail")

@hookimpl
def tian_register_recipes(register):
    register("do", "alpha_parts:do", summary="a recipe")
"""
PARTS = """
from dataclasses import dataclass
from tian.spec import KVPolicy
from tian.testing.fakes import FakeKVPolicy

@dataclass
class Options:
    budget: int = 256  # tokens per layer and head

    def __post_init__(self):
        if self.budget < 1:
            raise ValueError(f"budget must be >= 1, got {self.budget}")

class Tail(FakeKVPolicy):
    def __init__(self, options):
        super().__init__(options.budget)

class Partial(KVPolicy):
    def capacity(self, layer, n_layers, prompt_len):
        return 1

class Crash(FakeKVPolicy):
    def __init__(self):
        raise KeyError("gone")

def do(cfg, run):
    return []
"""


@pytest.fixture(autouse=True)
def alpha(install_plugin):
    install_plugin(
        "dist-alpha",
        modules={"alpha_plug.py": PLUGIN, "alpha_parts.py": PARTS},
        entry_points={"alpha": "alpha_plug"},
        version="2.3",
    )
    return install_plugin


def test_a_component_is_built_with_its_options():
    assert tian.load("kv_policy", "alpha/tail", budget=7).budget == 7
    assert tian.load("kv_policy", "tail").budget == 256
    assert tian.load("kv_policy", "plain").budget == 8


def test_an_entry_says_who_registered_it_and_where():
    entry = get_registry().resolve("kv_policy", "tail")
    assert (entry.qualified, entry.dist, entry.version) == ("alpha/tail", "dist-alpha", "2.3")
    assert re.search(r"alpha_plug\.py:6$", entry.where)


def test_entries_are_sorted_and_listed_by_kind():
    entries = tian.list()
    assert [e.kind for e in entries if e.kind == "recipe"] == [e.kind for e in entries][-len(tian.list("recipe")) :]
    names = [e.qualified for e in tian.list("kv_policy")]
    assert names == sorted(names)


def test_a_shared_short_name_needs_the_plugin(alpha):
    alpha("dist-beta", modules={"beta_plug.py": PLUGIN}, entry_points={"beta": "beta_plug"})
    with pytest.raises(AmbiguousName, match="alpha/tail, beta/tail"):
        tian.load("kv_policy", "tail")
    assert tian.load("kv_policy", "beta/tail", budget=3).budget == 3


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(UnknownName) as caught:
        tian.load("kv_policy", "tial")
    assert caught.value.hint == "did you mean 'tail'?"


def test_an_unknown_role_gets_the_nearest():
    with pytest.raises(UnknownName) as caught:
        tian.list("kv_polcy")
    assert "kv_policy" in caught.value.hint


def test_a_disabled_plugin_is_named_when_asked_for(monkeypatch):
    monkeypatch.setenv("TIAN_DISABLE_PLUGINS", "alpha")
    with pytest.raises(UnknownName, match="plugin alpha is disabled"):
        tian.load("kv_policy", "alpha/tail")


def test_a_missing_need_gives_the_pip_line():
    with pytest.raises(MissingDependency) as caught:
        tian.load("kv_policy", "needy")
    assert caught.value.hint == "pip install no_such_library"
    with pytest.raises(MissingDependency) as caught:
        tian.load("kv_policy", "extra")
    assert caught.value.hint == "pip install 'dist-alpha[gpu]'"


def test_a_class_of_another_role_is_refused():
    with pytest.raises(PluginError, match=r"'alpha/wrong' is not a subclass of tian\.spec\.KVPolicy"):
        tian.load("kv_policy", "wrong")


def test_a_class_with_gaps_is_refused_by_the_names_of_the_gaps():
    with pytest.raises(PluginError, match="lacks select"):
        tian.load("kv_policy", "partial")


def test_a_component_for_a_later_contract_is_refused():
    with pytest.raises(PluginIncompatible) as caught:
        tian.load("kv_policy", "future")
    assert caught.value.hint == "pip install -U tian-framework"


@pytest.mark.parametrize(("name", "text"), [("absent", "Nothing"), ("crash", "KeyError: 'gone'")])
def test_a_plugins_own_error_names_the_distribution_and_the_line(name, text):
    with pytest.raises(PluginError, match=text) as caught:
        tian.load("kv_policy", name)
    assert "dist-alpha 2.3" in caught.value.where
    assert re.search(r"\.py:\d+", caught.value.where)


def test_options_that_are_no_dataclass_are_the_plugins_fault():
    with pytest.raises(PluginError, match="not a dataclass"):
        tian.load("kv_policy", "odd")


def test_an_unknown_option_gets_the_nearest():
    with pytest.raises(ConfigError) as caught:
        tian.load("kv_policy", "tail", budgt=3)
    assert caught.value.hint == "did you mean 'budget'?"
    with pytest.raises(ConfigError, match="has no options"):
        tian.load("kv_policy", "plain", budget=3)


def test_a_plain_value_error_of_an_options_class_is_an_input_error():
    with pytest.raises(InvalidInput, match="budget must be >= 1, got 0"):
        tian.load("kv_policy", "tail", budget=0)


def test_provenance_is_the_hash_of_the_defining_file(tmp_path):
    record = provenance(get_registry().resolve("kv_policy", "tail"))
    assert record["sha256"] == hashlib.sha256((tmp_path / "site" / "alpha_parts.py").read_bytes()).hexdigest()
    assert (record["dist"], record["version"], record["target"]) == ("dist-alpha", "2.3", "alpha_parts:Tail")


def test_a_recipe_is_imported_not_constructed():
    registry = get_registry()
    assert registry.target(registry.resolve("recipe", "alpha/do")).__name__ == "do"


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ('register("a/b", "m:C", summary="s")', "no slash"),
        ('register("a", "m.C", summary="s")', "module:Attribute"),
        ('register("a", "m:C", summary="s", options="m.O")', "module:Attribute"),
        ('register("a", "m:C", summary=" ")', "empty summary"),
        ('register("a", "m:C", summary="s", needs="torch")', "tuple of import names"),
        ('register("a", "m:C", summary="s"); register("a", "m:D", summary="s")', "registered twice"),
        ('register("a", "m:C")', "summary"),
    ],
)
def test_a_malformed_registration_is_reported_at_its_line(plugin_file, call, text):
    path = plugin_file(f"from tian import hookimpl\n@hookimpl\ndef tian_register_models(register):\n    {call}\n")
    info = get_registry(extra_files=[path]).plugins[-1]
    assert info.entries == []
    (problem,) = info.problems
    assert text in problem.message
    assert problem.where == f"{path}:4"


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ('register("no_such_package.conf")', "does not exist"),
        ('register("json"); register("json")', "second configuration folder"),
    ],
)
def test_a_bad_configuration_folder_is_reported(plugin_file, call, text):
    path = plugin_file(f"from tian import hookimpl\n@hookimpl\ndef tian_register_configs(register):\n    {call}\n")
    info = get_registry(extra_files=[path]).plugins[-1]
    assert info.config_folder is None
    assert text in info.problems[0].message
