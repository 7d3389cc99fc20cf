"""The pages about the plugin are true: their Python runs, their commands compose, their runs exist."""

import re
from pathlib import Path

import pytest

from tian.cli.main import main
from tian.config.compose import available_runs

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "genco.md").read_text()
README = (ROOT / "plugins" / "genco" / "README.md").read_text()
COMMANDS = [
    line.split("#")[0].strip().removeprefix("tian ")
    for block in re.findall(r"```sh\n(.*?)```", README, re.S)
    for line in block.splitlines()
    if line.startswith("tian ")
]


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", PAGE, re.S), ids=["problem", "layer"])
def test_the_examples_of_the_guide_run(code, capsys):
    exec(compile(code, "genco.md", "exec"), {})


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_the_readme_are_understood(command, capsys, tmp_path, monkeypatch):
    import shlex

    monkeypatch.chdir(tmp_path)
    assert main([*shlex.split(command), "--dry-run"]) == 0, capsys.readouterr().err


def test_every_run_is_in_the_table():
    mine = {r.name for r in available_runs() if r.name.startswith("genco/")}
    assert mine
    assert all(f"`{name}`" in README for name in mine)


def test_the_readmes_own_rules_make_designs(tmp_path, monkeypatch, capsys):
    (code,) = [c for c in re.findall(r"```python\n(.*?)```", README, re.S) if c.startswith("# myrules.py")]
    (tmp_path / "myrules.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["run", "genco/custom", "model.pyomo=myrules:build", "n=6", "min_hamming=2", "--dir", "out"]) == 0
    assert main(["run", "genco/verify", "from=out", "--dir", "checked"]) == 0


BAD = [  # command, exit code, what the message says
    (["genco/zelda", "train.through=-1"], 5, "steps"),
    (["genco/zelda", "data.path=nowhere"], 5, "nowhere"),
    (["genco/zelda", "grad.name=magic"], 2, "grad.name"),
    (["genco/zelda", "solver=genco/grid-path", "train.plain=1", "train.through=1", "train.batch=2"], 5, "kind"),
    (["genco/sample", "from=nowhere"], 5, "nowhere"),
    (["genco/sample", "constraint=count(wal) <= 60", "train.plain=1", "train.through=0"], 5, "wal"),
    (["genco/custom", "model.pyomo=nowhere:build"], 5, "nowhere"),
    (["genco/custom", "model.pyomo=json:loads"], 5, "json:loads"),
    (["genco/custom", "data.path=none.npy"], 5, "none.npy"),
    (["genco/verify"], 5, "no run is named"),
    (["genco/warcraft", "data.path=nowhere"], 5, "nowhere"),
    (["genco/device", "data.brush=pencil"], 5, "pencil"),
    (["genco/predict", "methods=[magic]"], 5, "magic"),
]


@pytest.mark.parametrize(("argv", "code", "says"), BAD, ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_bad_input_is_told_in_three_lines(argv, code, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run", *argv, "--dir", "run"]) == code
    text = capsys.readouterr().err
    assert "Traceback" not in text
    error = text[text.index("error: ") :]
    assert says in error
    assert 1 <= len(error.strip().splitlines()) <= 3
