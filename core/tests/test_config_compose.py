"""Composing: files, groups, overrides, schema, origins; each error names the key, its origin and a remedy."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from tian.cli.cmd_config import leaves
from tian.config.compose import compose, config_hash, options_of
from tian.config.origin import key_lines
from tian.config.overrides import parse
from tian.errors import AmbiguousName, ConfigError, InvalidInput, UnknownName

PLUGIN = """
from tian import hookimpl

@hookimpl
def tian_register_kv_policies(register):
    register("keep", "toy_parts:Keep", summary="s", options="toy_parts:KeepOptions")
    register("bare", "toy_parts:Keep", summary="s")

@hookimpl
def tian_register_recipes(register):
    register("go", "toy_parts:go", summary="s", options="toy_parts:GoOptions")

@hookimpl
def tian_register_configs(register):
    register("toy_conf")
"""
PARTS = """
from dataclasses import dataclass, field
from typing import Any

@dataclass
class KeepOptions:
    budget: int = 8  # tokens
    share: float = 0.5  # of them

@dataclass
class Inner:
    lr: float = 0.1
    name: str | None = None

@dataclass
class GoOptions:
    steps: int = 3  # how many
    inner: Inner = field(default_factory=Inner)
    kv: dict[str, Any] = field(default_factory=lambda: {"use": "toy/keep"}, metadata={"role": "kv_policy"})
    also: list[Any] = field(default_factory=list, metadata={"role": "kv_policy"})
    free: dict[str, Any] = field(default_factory=dict)
    flag: bool = False
"""
FILES = {
    "toy_conf/__init__.py": "",
    "toy_conf/kv/keep.yaml": "use: toy/keep\nbudget: 16\n",
    "toy_conf/kv/tiny.yaml": "use: toy/keep\nbudget: 2\n",
    "toy_conf/inner/fast.yaml": "lr: 1e-2\nname: fast\n",
    "toy_conf/go.yaml": "# go somewhere\ndefaults:\n  - kv: keep\n  - _self_\nrecipe: toy/go\nsteps: 5\ninner:\n  lr: 2e-3\n",
    "toy_conf/far.yaml": "# go far\ndefaults:\n  - go\n  - inner: fast\n  - _self_\nsteps: 50\n",
    "toy_conf/circle.yaml": "defaults: [round]\nrecipe: toy/go\n",
    "toy_conf/round.yaml": "defaults: [circle]\n",
    "toy_conf/torn.yaml": "recipe: toy/go\nsteps: [1,\n",
    "toy_conf/lost.yaml": "defaults:\n  - kv: kep\nrecipe: toy/go\n",
}


@pytest.fixture(autouse=True)
def toy(install_plugin):
    return install_plugin(
        "tian-plugin-toy", modules={"toy.py": PLUGIN, "toy_parts.py": PARTS, **FILES}, entry_points={"toy": "toy"}
    )


def test_files_groups_and_defaults_come_together():
    config, origins = compose("toy/go")
    assert OmegaConf.to_container(config) == {
        "kv": {"use": "toy/keep", "budget": 16, "share": 0.5},
        "recipe": "toy/go",
        "steps": 5,
        "inner": {"lr": 0.002, "name": None},
        "seed": 0,
        "scale": "tiny",
        "also": [],
        "free": {},
        "flag": False,
    }
    assert origins["kv.budget"] == "toy_conf/kv/keep.yaml:2" or origins["kv.budget"].endswith("keep.yaml:2")
    assert origins["steps"].endswith("go.yaml:6")
    assert origins["inner.lr"].endswith("go.yaml:8")
    assert "toy_parts:KeepOptions" in origins["kv.share"]


def test_a_config_can_build_on_another_and_the_last_word_wins():
    config, _ = compose("far")
    assert (config.steps, config.inner.lr, config.inner.name, config.kv.budget) == (50, 0.01, "fast", 16)


def test_group_choices_apply_before_values_whatever_the_order():
    for overrides in (["kv.budget=3", "kv=tiny"], ["kv=tiny", "kv.budget=3"]):
        assert compose("go", overrides)[0].kv.budget == 3
    assert compose("go", ["kv=tiny"])[0].kv.budget == 2


def test_a_component_without_a_group_choice_replaces_the_node():
    config, origins = compose("go", ["kv=toy/keep"])  # a choice of that name: the group file
    assert config.kv.budget == 16
    config, origins = compose("go", ["kv=bare"])
    assert OmegaConf.to_container(config.kv) == {"use": "bare"}
    assert origins["kv.use"] == "override 'kv=bare'"


@pytest.mark.parametrize(
    "overrides", [[], ["steps=7", "kv=tiny", "+free.a=1"], ["also=[toy/keep, {use: toy/keep, budget: 4}]"]]
)
def test_every_leaf_has_an_origin(overrides):
    config, origins = compose("go", overrides)
    for key, _ in leaves(OmegaConf.to_container(config)):
        assert origins[key], key


@pytest.mark.parametrize(
    ("overrides", "message", "remedy"),
    [
        (["stepz=3"], "'stepz'", "steps"),
        (["kv.budgte=3"], "'kv.budgte'", "budget"),
        (["inner.lrr=3"], "'inner.lrr'", "lr"),
        (["also=[{use: toy/keep, budgt: 4}]"], "budgt", "budget"),
        (["steps=abc"], "must be int, got 'abc'", ""),
        (["steps=3.5"], "must be int, got 3.5", ""),
        (["steps=off"], "must be int, got False", ""),  # YAML: off is a boolean
        (["inner.lr=fast"], "must be float", ""),
        (["flag=1"], "must be bool", ""),
        (["seed=1.5"], "'seed' must be int", ""),
        (["scale=huge"], "scale must be one of", ""),
        (["kv=[1]"], "kv", ""),
        (["steps.deep=1"], "steps", ""),
        (["~gone"], "'gone'", ""),
        (["steps"], "not an override", "key=value"),
        (["=3"], "not an override", ""),
        (["steps=[1"], "cannot be read", ""),
    ],
)
def test_a_wrong_override_says_what_where_and_how(overrides, message, remedy):
    with pytest.raises(ConfigError) as caught:
        compose("go", overrides)
    assert message in caught.value.message
    assert remedy in caught.value.hint


def test_an_error_in_a_file_names_the_line():
    with pytest.raises(ConfigError) as caught:
        compose("torn")
    assert "torn.yaml" in caught.value.where


def test_a_circle_of_defaults_is_shown():
    with pytest.raises(ConfigError, match=r"circle\.yaml -> .*round\.yaml -> .*circle\.yaml"):
        compose("circle")


@pytest.mark.parametrize(("name", "hint"), [("gone", "toy/go"), ("lost", "keep")])
def test_unknown_names_give_the_nearest(name, hint):
    with pytest.raises(UnknownName) as caught:
        compose(name)
    assert hint in caught.value.hint


def test_an_unknown_component_is_named_with_its_origin():
    with pytest.raises(UnknownName, match="'keeep'") as caught:
        compose("go", ["kv=keeep"])
    assert caught.value.where == "override 'kv=keeep'"


def test_a_short_name_two_plugins_share_is_ambiguous(install_plugin):
    other = PLUGIN.replace("toy_conf", "toy2_conf").replace('"keep"', '"keep2"').replace('"bare"', '"bare2"')
    install_plugin(
        "tian-plugin-toy2",
        modules={"toy2.py": other, "toy2_conf/__init__.py": "", "toy2_conf/go.yaml": "recipe: toy2/go\n"},
        entry_points={"toy2": "toy2"},
    )
    with pytest.raises(AmbiguousName) as caught:
        compose("go")
    assert "toy/go" in caught.value.hint
    assert compose("toy2/go")[0].recipe == "toy2/go"


def test_free_form_mappings_take_new_keys_and_deletion_restores_the_default():
    assert compose("go", ["+free.a.b=1"])[0].free.a.b == 1
    assert compose("go", ["~steps"])[0].steps == 3


def test_the_recipe_gets_its_own_dataclass():
    options = options_of(compose("go", ["inner.lr=1"])[0])
    assert type(options).__name__ == "GoOptions"
    assert (options.steps, options.inner.lr) == (5, 1.0)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("2e-3", 0.002),
        ("off", False),
        ("null", None),
        ("'010'", "010"),
        ("[1, 2]", [1, 2]),
        ("a=b", "a=b"),
        ("", None),
    ],
)
def test_values_are_yaml_as_omegaconf_reads_it(text, value):
    got = parse(f"k={text}").value
    assert got == value or (text == "" and got in ("", None))


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=20))
def test_parsing_never_raises_anything_but_our_error(text):
    for form in (text, f"k={text}", f"+k={text}", f"~{text}"):
        with contextlib.suppress(ConfigError):
            parse(form)


def test_the_hash_depends_on_content_alone():
    assert config_hash({"a": 1, "b": 2}) == config_hash({"b": 2, "a": 1}) != config_hash({"a": 1, "b": 3})


def test_key_lines_counts_from_one():
    assert key_lines("a: 1\nb:\n  c: 2\n") == {"a": 1, "b": 2, "b.c": 3}


def test_an_out_of_range_value_keeps_its_origin():
    with pytest.raises(InvalidInput) as caught:
        compose("kvcache/stream", ["kv.recent=0"])
    assert caught.value.where == "override 'kv.recent=0'"
