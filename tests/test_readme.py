"""The README is true: its Python runs, its commands compose, its targets exist."""

import re
from pathlib import Path

import pytest

from tian.cli.main import build_parser, main

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, flags=re.DOTALL)
COMMANDS = [
    line.split("#")[0].split()[1:]
    for kind, block in BLOCKS
    if kind == "sh"
    for line in block.splitlines()
    if line.startswith("tian ")
]


def test_the_python_example_runs(capsys):
    (code,) = [block for kind, block in BLOCKS if kind == "python"]
    exec(compile(code, "README.md", "exec"), {})
    assert "def mean(values):" in capsys.readouterr().out


@pytest.mark.parametrize("command", [c for c in COMMANDS if c[0] != "doctor"], ids=" ".join)
def test_its_commands_are_understood(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if command[0] == "report":  # the directories are the reader's
        assert build_parser().parse_args(command).dirs == command[1:]
        return
    if command[0] == "claims":
        command = [*command, "--list"]
    if command[0] == "run" and "--resume" not in command:
        command = [*command, "--dry-run"]  # DIR and FILE are the reader's; everything else is checked
    assert main(command) == 0, capsys.readouterr().err


def test_its_links_and_make_targets_exist():
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (ROOT / target).exists(), target
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", TEXT, flags=re.MULTILINE):
        assert f"\n{target}:" in makefile
