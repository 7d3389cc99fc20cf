"""How the command ends when the world does not play along: closed pipes, recipes that exit, plugins that vanish."""

import json
import os
import subprocess
import sys

import pytest

from tian.cli.main import main

EXITS = """
import sys
from tian import hookimpl

@hookimpl
def tian_register_recipes(register):
    register("go", go, summary="exits")

@hookimpl
def tian_register_configs(register):
    register("exits_conf")

def go(config, run):
    sys.exit({code})
"""
VANISHES = """
import os
from tian import hookimpl

if os.environ.get("TIAN_PLUGINS") == "vanishes":
    os._exit(0)
"""


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["list"], 0),
        (["--help"], 0),
        (["show", "kv_policy"], 0),
        (["list", "kv_polcy", "--json"], 2),
        (["runn", "--json"], 2),
    ],
)
def test_a_reader_that_has_gone_changes_neither_the_code_nor_the_calm(argv, code):
    read, write = os.pipe()
    os.close(read)
    try:
        command = [sys.executable, "-m", "tian", *argv]
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    finally:
        os.close(write)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.parametrize("code", ["0", "3", "None", "'gone'"])
def test_a_recipe_that_exits_has_not_finished_whatever_code_it_gives(
    code, install_plugin, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # for the file with the traceback
    install_plugin(
        "tian-plugin-exits",
        modules={
            "exits_plug.py": EXITS.replace("{code}", code),
            "exits_conf/__init__.py": "",
            "exits_conf/go.yaml": "# exits\nrecipe: exits/go\n",
        },
        entry_points={"exits": "exits_plug"},
    )
    assert main(["run", "exits/go", "--dir", str(tmp_path / "run"), "--json"]) == 70
    out, err = capsys.readouterr()
    assert "unexpected SystemExit" in json.loads(out)["error"]["message"]
    assert "Traceback" not in err
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] != "finished"


def test_a_termination_is_143_at_any_time(monkeypatch):
    import tian.cli.cmd_list
    from tian.cli.main import _terminate

    monkeypatch.setattr(tian.cli.cmd_list, "main", lambda _args: _terminate(15, None))
    assert main(["list"]) == 143


def test_doctor_names_a_plugin_that_ends_the_process_without_a_word(install_plugin, capsys):
    install_plugin("dist-vanishes", modules={"vanishes_plug.py": VANISHES}, entry_points={"vanishes": "vanishes_plug"})
    assert main(["doctor", "--json"]) == 1
    found = {c["name"]: c for c in json.loads(capsys.readouterr().out)}
    assert not found["plugin vanishes"]["ok"]
    assert "dist-vanishes 1.0: ended the process while loading" in found["plugin vanishes"]["detail"]
    assert found["plugin kvcache"]["ok"]


def test_strict_lets_a_bug_through(monkeypatch):
    import tian.cli.cmd_list

    def broken(_args):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(tian.cli.cmd_list, "main", broken)
    monkeypatch.setenv("TIAN_STRICT", "1")
    with pytest.raises(ZeroDivisionError):
        main(["list"])
