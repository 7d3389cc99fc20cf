"""What the options' dataclasses make of a config: completeness, types, origins, and that the same stays the same."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from tian.cli.cmd_config import leaves
from tian.config.compose import compose, config_hash, options_of
from tian.config.overrides import parse
from tian.errors import ConfigError, PluginError, UnknownName

PLUGIN = """
from tian import hookimpl

@hookimpl
def tian_register_solvers(register):
    register("deep", "form_parts:Deep", summary="s", options="form_parts:DeepOptions")
    register("flat", "form_parts:Deep", summary="s")

@hookimpl
def tian_register_recipes(register):
    register("go", "form_parts:go", summary="s", options="form_parts:GoOptions")
    register("bare", "form_parts:go", summary="s")
    register("odd", "form_parts:go", summary="s", options="form_parts:OddOptions")

@hookimpl
def tian_register_configs(register):
    register("form_conf")
"""
PARTS = """
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

@dataclass
class DeepOptions:
    depth: int = 3  # levels

@dataclass
class Stage:
    rate: float = 1.0
    solver: dict[str, Any] = field(default_factory=lambda: {"use": "flat"}, metadata={"role": "solver"})

@dataclass
class GoOptions:
    steps: int = 1
    share: float = 0.5
    name: str = "x"
    flag: bool = False
    mode: Literal["fast", "slow"] = "fast"
    pair: tuple[float, float] = (0.9, 0.95)
    place: Path = Path("here")
    stage: Stage = field(default_factory=Stage)
    extra: Stage | None = None
    solvers: list[Any] = field(default_factory=list, metadata={"role": "solver"})
    judge: dict[str, Any] = field(default_factory=lambda: {"use": "deep"}, metadata={"role": "solver"})
    free: dict[str, Any] = field(default_factory=dict)
    total: int = field(default=0, init=False)

    def __post_init__(self):
        self.total = 2 * self.steps

@dataclass
class OddOptions:
    other: "NoSuchType" = None
"""
FILES = {
    "go.yaml": "# go\nrecipe: form/go\nsteps: 4\nstage:\n  rate: 2e-3\n",
    "bare.yaml": "# no options\nrecipe: form/bare\n",
    "odd.yaml": "# annotations at fault\nrecipe: form/odd\n",
    "open.yaml": "# a value to be given\nrecipe: form/go\nname: ???\n",
}
VALUES = ["steps=7", "share=1", "name=y", "flag=true", "mode=slow", "stage.rate=3", "free.a=1", "seed=5"]


@pytest.fixture(autouse=True)
def form(install_plugin):
    files = {f"form_conf/{name}": text for name, text in {"__init__.py": "", **FILES}.items()}
    install_plugin(
        "tian-plugin-form",
        modules={"form_plug.py": PLUGIN, "form_parts.py": PARTS, **files},
        entry_points={"form": "form_plug"},
    )


def test_a_config_is_plain_data_that_gives_the_same_options_again(tmp_path):
    overrides = ["extra={}", "pair=[1, 2]", "place=there", "solvers=[flat, {use: deep}]"]
    config, origins = compose("form/go", overrides)
    assert "total" not in config  # computed by the dataclass, nothing to set
    assert config.place == "there"
    OmegaConf.save(config, tmp_path / "config.yaml")
    again = OmegaConf.load(tmp_path / "config.yaml")
    assert again == config
    assert config_hash(again) == config_hash(config)
    options = options_of(again)
    assert options == options_of(config)
    assert (options.total, options.pair, options.place.name) == (8, (1.0, 2.0), "there")
    assert options.solvers == ["flat", {"use": "deep", "depth": 3}]
    assert all(origins[key] for key, _ in leaves(OmegaConf.to_container(config)))


def test_the_origin_of_a_default_is_the_class_with_file_and_line():
    _, origins = compose("form/go", ["stage.solver=deep"])
    assert origins["share"] == "default of form_parts:GoOptions (form_parts.py:15)"
    assert origins["stage.solver.depth"] == "default of form_parts:DeepOptions (form_parts.py:6)"
    assert origins["stage.rate"] == "form_conf/go.yaml:5"
    assert compose("kvcache/stream")[1]["save_every"].startswith(
        "default of tian_kvcache.options:StreamOptions (tian_kvcache/options.py:"
    )


@pytest.mark.parametrize(
    ("override", "message", "hint"),
    [
        ("extra={solver: {use: deep, dept: 1}}", "'extra.solver.dept'", "depth"),
        ("stage.solver={use: deep, dept: 1}", "'stage.solver.dept'", "depth"),
        ("stage.solver={depth: 1}", "has no option 'depth'", "leave it out"),
        ("stage.solver.use=null", "'stage.solver' names no component", "stage.solver.use=NAME"),
        ("stage.solver.depth=1", "has no option 'depth'", "leave it out"),
        ("solvers=[{use: deep, depth: x}]", "'solvers.0.depth' must be int, got 'x'", "int"),
        ("mode=fats", "'mode' must be", "fast"),
        ("pair=[1]", "'pair' must be tuple", ""),
        ("name=???", "'name' must be given", "set name="),
        ("free={a: ['???']}", "'free.a.0' must be given", ""),
        ("staeg.rate=3", "'staeg'", "stage"),
        ("steps.x=1", "'steps", ""),
        ("name.x=1", "'name", ""),
        ("total=3", "'total'", ""),
        ("recipe=3", "'recipe' must be str", "str"),
    ],
)
def test_what_does_not_fit_is_named_with_its_override(override, message, hint):
    with pytest.raises(ConfigError) as caught:
        compose("form/go", [override])
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.where == f"override {override!r}"


def test_an_option_alone_belongs_to_the_component_of_the_default():
    config, origins = compose("form/go", ["judge.depth=5"])
    assert OmegaConf.to_container(config.judge) == {"use": "deep", "depth": 5}
    assert origins["judge.use"].startswith("default of form_parts:GoOptions")
    assert OmegaConf.to_container(compose("form/go", ["judge.x=1", "judge=flat", "~judge.x"])[0].judge) == {
        "use": "flat"
    }


def test_a_value_still_to_be_given_is_named_with_its_line_until_it_is_given():
    with pytest.raises(ConfigError, match="'name' must be given") as caught:
        compose("form/open")
    assert caught.value.where == "form_conf/open.yaml:3"
    assert compose("form/open", ["name=me"])[0].name == "me"


def test_another_recipe_brings_its_own_options():
    assert OmegaConf.to_container(compose("form/bare")[0]) == {"recipe": "form/bare", "seed": 0, "scale": "tiny"}
    with pytest.raises(ConfigError, match="'form/bare' has no option 'steps'") as caught:
        compose("form/go", ["recipe=form/bare"])
    assert caught.value.where == "form_conf/go.yaml:3"
    with pytest.raises(UnknownName, match="'form/og'") as unknown:
        compose("form/go", ["recipe=form/og"])
    assert unknown.value.where == "override 'recipe=form/og'"
    assert "form/go" in unknown.value.hint


def test_an_options_class_at_fault_is_the_plugins_error():
    for overrides in ([], ["other=1"], ["other=x"]):
        with pytest.raises(PluginError, match="OddOptions"):
            compose("form/odd", overrides)


def test_the_traps_of_yaml_on_the_command_line():
    """`off` is a boolean and `010` is octal, as in OmegaConf's files; quotes make them text."""
    assert compose("form/go", ["steps=010"])[0].steps == 8
    assert compose("form/go", ["flag=on"])[0].flag is True
    with pytest.raises(ConfigError, match="'name' must be str, got False"):
        compose("form/go", ["name=off"])
    assert compose("form/go", ["name='off'"])[0].name == "off"
    assert compose("form/go", ["share=1e-3"])[0].share == 0.001
    assert compose("form/go", ["name=a=b:c"])[0].name == "a=b:c"
    assert parse("name=a=b").value == "a=b"


SAME_FIXTURE = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SAME_FIXTURE
@given(chosen=st.sets(st.sampled_from(VALUES)), seed=st.integers(0, 99))
def test_the_order_of_independent_overrides_changes_nothing(chosen, seed):
    overrides = sorted(chosen)
    shuffled = random.Random(seed).sample(overrides, len(overrides))
    config, origins = compose("form/go", overrides)
    other, other_origins = compose("form/go", shuffled)
    assert config == other
    assert config_hash(config) == config_hash(other)
    assert dict(origins) == dict(other_origins)
    for key, _ in leaves(OmegaConf.to_container(config)):
        assert origins[key]
    for text in overrides:
        assert origins[text.partition("=")[0]] == f"override {text!r}"


@SAME_FIXTURE
@given(
    key=st.sampled_from(
        ["steps", "share", "name", "mode", "stage", "stage.solver", "solvers", "free", "extra", "gone", "recipe"]
    ),
    value=st.text(st.characters(codec="utf-8"), max_size=12)
    | st.sampled_from(["{use: deep}", "[1, {a: b}]", "${seed}", "???", "!!x y"]),
)
def test_no_value_leads_to_anything_but_a_config_or_our_error(key, value):
    from tian.errors import TianError

    try:
        config, _ = compose("form/go", [f"{key}={value}"])
    except TianError as error:
        assert error.message  # noqa: PT017 - most examples do compose or all of them raise, as they like
    else:
        assert options_of(config).total == 2 * config.steps


@SAME_FIXTURE
@given(steps=st.integers(-(10**12), 10**12), share=st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_arrive_as_they_were_written(steps, share):
    config, _ = compose("form/go", [f"steps={steps}", f"share={share!r}"])
    assert (config.steps, config.share) == (steps, share)
