"""Group choices: which file an override means, wherever the group stands; and files that are no configs."""

import pytest
from omegaconf import OmegaConf

from tian.cli.main import main
from tian.config.compose import compose
from tian.config.index import available_runs
from tian.errors import ConfigError, UnknownName

PLUGIN = """
from tian import hookimpl

@hookimpl
def tian_register_solvers(register):
    register("deep", "pick_parts:Deep", summary="s", options="pick_parts:DeepOptions")
    register("bare", "pick_parts:Deep", summary="s")

@hookimpl
def tian_register_recipes(register):
    register("go", "pick_parts:go", summary="s", options="pick_parts:GoOptions")

@hookimpl
def tian_register_configs(register):
    register("pick_conf")
"""
PARTS = """
from dataclasses import dataclass, field
from typing import Any

@dataclass
class DeepOptions:
    depth: int = 3  # levels

@dataclass
class Stage:
    solver: dict[str, Any] = field(default_factory=lambda: {"use": "pick/bare"}, metadata={"role": "solver"})
    rate: float = 1.0

@dataclass
class GoOptions:
    solver: dict[str, Any] = field(default_factory=lambda: {"use": "pick/deep"}, metadata={"role": "solver"})
    judge: dict[str, Any] = field(default_factory=lambda: {"use": "pick/deep"}, metadata={"role": "solver"})
    stage: Stage = field(default_factory=Stage)
    mode: str = "plain"
    steps: int = 1
"""
FILES = {
    "solver/far.yaml": "use: pick/deep\ndepth: 20\n",
    "solver/bare.yaml": "use: pick/bare\n",
    "stage/slow.yaml": "rate: 0.5\nsolver: {use: pick/deep, depth: 7}\n",
    "stage/nest.yaml": "defaults: [solver: far]\n",
    "db/sub/quick.yaml": "rate: 9.0\n",
    "silent.yaml": "# names no group\nrecipe: pick/go\n",
    "inline.yaml": "recipe: pick/go\nsolver: {use: pick/deep, depth: 9}\n",
    "placed.yaml": "defaults:\n  - solver@stage.solver: far\n  - _self_\nrecipe: pick/go\n",
    "both.yaml": "defaults:\n  - solver: far\n  - solver@stage.solver: far\n  - _self_\nrecipe: pick/go\n",
    "absolute.yaml": "defaults: [/stage/slow, _self_]\nrecipe: pick/go\n",
    "maybe.yaml": "defaults: [optional solver: gone, _self_]\nrecipe: pick/go\n",
    "clash.yaml": "defaults:\n  - _self_\n  - solver@steps.deep: far\nrecipe: pick/go\nsteps: 3\n",
    "lost.yaml": "# lost\ndefaults:\n  - solver: fra\nrecipe: pick/go\n",
    "mapping.yaml": "defaults: {solver: far}\nrecipe: pick/go\n",
    "entry.yaml": "defaults: [{solver: 3}]\nrecipe: pick/go\n",
    "twice.yaml": "recipe: pick/go\nsteps: 1\nsteps: 2\n",
    "list.yaml": "- recipe\n",
    "tagged.yaml": "recipe: !!python/object/apply:os.getcwd []\n",
    "snake.yaml": "recipe: pick/go\nmode: &x {b: *x}\n",
    "two.yaml": "recipe: pick/go\n---\nrecipe: pick/go\n",
    "open.yaml": "recipe: pick/go\nmode: ${\n",
    "none.yaml": "",
}
RIVAL = """
from tian import hookimpl

@hookimpl
def tian_register_configs(register):
    register("rival_conf")
"""


@pytest.fixture(autouse=True)
def pick(install_plugin):
    files = {f"pick_conf/{name}": text for name, text in {"__init__.py": "", **FILES}.items()}
    return install_plugin(
        "tian-plugin-pick",
        modules={"pick_plug.py": PLUGIN, "pick_parts.py": PARTS, **files},
        entry_points={"pick": "pick_plug"},
    )


def composed(name, *overrides):
    return OmegaConf.to_container(compose(f"pick/{name}", overrides)[0])


@pytest.mark.parametrize("run", ["silent", "inline", "both"])
def test_a_group_choice_counts_whether_or_not_the_run_names_the_group(run):
    assert composed(run, "solver=far")["solver"] == {"use": "pick/deep", "depth": 20}
    assert composed(run, "solver=bare")["solver"] == {"use": "pick/bare"}
    assert composed(run, "solver.depth=4", "solver=far")["solver"]["depth"] == 4


def test_a_component_counts_too_and_its_options_may_be_typed_first():
    for run in ("silent", "inline"):
        assert composed(run, "judge.depth=5", "judge=pick/deep")["judge"] == {"use": "pick/deep", "depth": 5}
        assert composed(run, "stage.solver=pick/deep")["stage"]["solver"] == {"use": "pick/deep", "depth": 3}


def test_a_group_at_a_package_is_chosen_at_that_package():
    assert composed("placed")["stage"]["solver"]["depth"] == 20
    assert composed("placed", "stage.solver=bare")["stage"]["solver"] == {"use": "pick/bare"}
    config = composed("placed", "solver=bare")
    assert config["solver"] == {"use": "pick/bare"}
    assert config["stage"]["solver"]["depth"] == 20


def test_a_choice_of_a_mapping_and_one_below_it_go_together_in_either_order():
    for overrides in (["stage=slow", "stage.solver=bare"], ["stage.solver=bare", "stage=slow"]):
        assert composed("silent", *overrides)["stage"] == {"rate": 0.5, "solver": {"use": "bare"}}
    assert composed("silent", "stage=nest")["stage"]["solver"]["depth"] == 20
    assert composed("silent", "stage=nest", "stage.solver=bare")["stage"]["solver"] == {"use": "pick/bare"}


def test_absolute_and_optional_entries():
    assert composed("absolute")["stage"]["rate"] == 0.5
    assert composed("absolute", "stage=nest")["stage"]["rate"] == 1.0
    assert composed("maybe")["solver"] == {"use": "pick/deep", "depth": 3}
    assert composed("maybe", "solver=far")["solver"]["depth"] == 20


def test_a_choice_the_recipe_has_no_place_for_is_refused_and_not_dropped():
    with pytest.raises(ConfigError, match="no option 'kv'") as caught:
        compose("lm/train", ["kv=window"])  # a group of another plugin
    assert caught.value.where == "override 'kv=window'"


def test_a_folder_of_another_plugin_does_not_change_what_a_plain_value_means(install_plugin):
    install_plugin(
        "tian-plugin-rival",
        modules={"rival_plug.py": RIVAL, "rival_conf/__init__.py": "", "rival_conf/mode/plain.yaml": "a: 1\n"},
        entry_points={"rival": "rival_plug"},
    )
    assert composed("silent", "mode=plain")["mode"] == "plain"
    assert composed("silent", "mode=other")["mode"] == "other"


def test_an_unknown_choice_names_the_nearest_and_the_override():
    with pytest.raises(UnknownName, match="'slo'") as caught:
        compose("pick/silent", ["stage=slo"])
    assert caught.value.where == "override 'stage=slo'"
    assert "slow" in caught.value.hint


@pytest.mark.parametrize(
    ("run", "message", "where"),
    [
        ("lost", "'fra'", "pick_conf/lost.yaml:2"),
        ("clash", "'steps.deep' lies below", "far.yaml"),
        ("mapping", "defaults must be a list", "pick_conf/mapping.yaml:1"),
        ("entry", "not a defaults entry", "pick_conf/entry.yaml:1"),
        ("twice", "duplicate key", "pick_conf/twice.yaml:"),
        ("list", "must be a mapping", "pick_conf/list.yaml"),
        ("tagged", "python/object", "pick_conf/tagged.yaml:1"),
        ("snake", "recursive", "pick_conf/snake.yaml:2"),
        ("two", "another document", "pick_conf/two.yaml:2"),
        ("open", "unreadable", "pick_conf/open.yaml"),
        ("none", "names no recipe", "pick_conf/none.yaml"),
    ],
)
def test_a_file_at_fault_is_named_with_what_to_do(run, message, where, capsys):
    assert main(["config", f"pick/{run}"]) == 2
    what, place, do = capsys.readouterr().err.splitlines()
    assert message in what
    assert where in place
    assert do.startswith("  do:    ")


def test_unreadable_files_of_one_plugin_hide_nothing_of_the_others(pick, capsys):
    (pick / "pick_conf" / "folder.yaml").mkdir()
    (pick / "pick_conf" / "latin.yaml").write_bytes(b"# f\xfcr alle\nrecipe: pick/go\n")
    names = [r.name for r in available_runs()]
    assert {"kvcache/stream", "lm/train", "pick/silent", "pick/latin"} <= set(names)
    assert "pick/folder" not in names
    assert main(["list"]) == 0
    assert "kvcache/stream" in capsys.readouterr().out
    assert composed("silent")["steps"] == 1
    with pytest.raises(ConfigError, match="utf-8") as caught:
        compose("pick/latin")
    assert caught.value.where == "pick_conf/latin.yaml"
