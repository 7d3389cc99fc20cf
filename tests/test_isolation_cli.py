"""Bad plugins seen from the command line: everything else works, and each is named with its owner and its cause."""

import json

import pytest

import tian
from tian.cli.main import main

IMPORTS = "from tian import hookimpl\n"
POLICY = """
from tian import hookimpl

@hookimpl
def tian_register_kv_policies(register):
    register("window", "tian_kvcache.policies:Window", summary="another window", options="tian_kvcache.options:WindowOptions")
"""
BAD = {
    "raises": (IMPORTS + "raise ValueError('boom at import')\n", (), "broken", "ValueError: boom at import"),
    "exits": (IMPORTS + "import sys\nsys.exit(3)\n", (), "broken", "SystemExit: 3"),
    "lacks": (IMPORTS + "import no_such_library\n", (), "broken", "no_such_library"),
    "newer": (POLICY, ("tian-framework>=99",), "incompatible", "tian-framework>=99"),
    "hooked": (
        IMPORTS + "@hookimpl\ndef tian_register_solvers(register):\n    raise OSError('no disk')\n",
        (),
        "loaded",
        "in tian_register_solvers: OSError: no disk",
    ),
}
DRY = ["run", "kvcache/stream", "--dry-run", "kv=kvcache/window"]


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def clean(capsys, tmp_path, monkeypatch, fresh_registry):
    """What the commands print while all plugins are good."""
    monkeypatch.chdir(tmp_path)
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert main(DRY) == 0
    return listed, capsys.readouterr().out


@pytest.fixture
def all_bad(clean, install_plugin):
    for name, (source, requires, _, _) in BAD.items():
        install_plugin(
            f"dist-{name}",
            modules={f"{name}_plug.py": source},
            entry_points={name: f"{name}_plug"},
            version="2.5",
            requires=requires,
        )


def test_good_plugins_are_listed_and_run_as_if_the_bad_ones_were_not_there(capsys, clean, all_bad):
    assert main(["list"]) == 0
    out, err = capsys.readouterr()
    assert out == clean[0]
    assert all(name in err for name in BAD)
    assert main(DRY) == 0
    out, err = capsys.readouterr()
    assert out == clean[1]
    assert "Traceback" not in err


def test_each_bad_plugin_is_named_with_distribution_version_state_and_cause(capsys, all_bad):
    assert main(["plugins"]) == 0
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    for name, (_, _, state, cause) in BAD.items():
        (row,) = [line.split() for line in out.splitlines() if line.split()[:1] == [name]]
        assert row[1:4] == [state, f"dist-{name}", "2.5"]
        (problem,) = [line for line in out.splitlines() if line.startswith(f"{name}: error: ")]
        assert cause in problem
    assert main(["plugins", "--json"]) == 0
    found = {p["name"]: p for p in json.loads(capsys.readouterr().out)}
    assert found["kvcache"]["state"] == "loaded"
    for name, (_, _, state, cause) in BAD.items():
        info = found[name]
        assert (info["state"], info["dist"], info["version"]) == (state, f"dist-{name}", "2.5")
        assert cause in info["problems"][0]["message"]
        assert info["problems"][0]["where"]
        assert info["problems"][0]["hint"]


def test_doctor_says_no_and_names_each(capsys, all_bad):
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    for name, (_, _, _, cause) in BAD.items():
        (row,) = [line for line in out.splitlines() if f"plugin {name} " in line and not line.startswith("  do")]
        assert row.startswith("BAD")
        assert f"dist-{name} 2.5" in row
        assert cause in row
        assert f"  do (plugin {name}): " in out
    (good,) = [line for line in out.splitlines() if "plugin kvcache " in line]
    assert good.startswith("ok")


def doctor(capsys):
    """The checks of `tian doctor`, by name; it must say no."""
    assert main(["doctor", "--json"]) == 1
    return {c["name"]: c for c in json.loads(capsys.readouterr().out)}


def test_a_plugin_that_kills_the_process_on_import_is_survived_by_every_command(capsys, clean, install_plugin):
    install_plugin(
        "dist-dies",
        modules={"dies_plug.py": IMPORTS + "import os\nos._exit(9)\n"},
        entry_points={"dies": "dies_plug"},
    )
    assert main(["list"]) == 0
    out, err = capsys.readouterr()
    assert out == clean[0]
    assert "dies" in err
    assert main(DRY) == 0
    assert capsys.readouterr().out == clean[1]
    found = doctor(capsys)
    assert (
        "dist-dies 1.0: broken: importing dies_plug ended the process with exit code 9"
        in found["plugin dies"]["detail"]
    )
    assert "dies_plug.py:3)" in found["plugin dies"]["detail"]
    assert "TIAN_DISABLE_PLUGINS=dies" in found["plugin dies"]["hint"]
    assert found["plugin kvcache"]["ok"]


@pytest.mark.parametrize(("body", "says"), [("os._exit(9)", "ended with code 9"), ("os._exit(0)", "with code 0")])
def test_a_plugin_whose_hook_kills_the_process_is_survived_by_doctor(capsys, clean, install_plugin, body, says):
    source = f"{IMPORTS}import os\n@hookimpl\ndef tian_register_solvers(register):\n    {body}\n"
    install_plugin("dist-dies", modules={"dies_plug.py": source}, entry_points={"dies": "dies_plug"})
    found = doctor(capsys)
    assert says in found["plugin dies"]["detail"]
    assert "dies_plug.py" in found["plugin dies"]["detail"]
    assert found["plugin dies"]["hint"] == "pip uninstall dist-dies; or set TIAN_DISABLE_PLUGINS=dies"
    assert found["plugin kvcache"]["ok"]


def test_doctor_asks_again_about_a_plugin_once_found_broken(capsys, clean, install_plugin, tmp_path, fresh_registry):
    source = (
        f"{IMPORTS}import os, pathlib\nif not pathlib.Path({str(tmp_path / 'repaired')!r}).exists():\n    os._exit(9)\n"
    )
    install_plugin("dist-ill", modules={"ill_plug.py": source}, entry_points={"ill": "ill_plug"})
    assert not doctor(capsys)["plugin ill"]["ok"]
    (tmp_path / "repaired").touch()
    assert main(["doctor"]) == 0


def test_doctor_leaves_disabled_plugins_alone(capsys, clean, install_plugin, monkeypatch):
    install_plugin(
        "dist-dies", modules={"dies_plug.py": "import os\nos._exit(9)\n"}, entry_points={"dies": "dies_plug"}
    )
    monkeypatch.setenv("TIAN_DISABLE_PLUGINS", "dies")
    assert main(["doctor"]) == 0
    assert "plugin dies" in capsys.readouterr().out


def test_doctor_is_content_with_good_plugins(capsys, clean):
    assert main(["doctor"]) == 0
    assert "BAD" not in capsys.readouterr().out


def test_one_name_claimed_twice_is_ambiguous_until_it_is_qualified(capsys, clean, install_plugin):
    install_plugin("dist-rival", modules={"rival_plug.py": POLICY}, entry_points={"rival": "rival_plug"})
    assert main(["run", "kvcache/stream", "--dry-run", "--json", "kv={use: window}"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["class"] == "AmbiguousName"
    assert "kvcache/window, rival/window" in error["message"]
    assert main(["show", "window"]) == 0
    assert "rival/window" in capsys.readouterr().out
    for name in ("kvcache/window", "rival/window"):
        assert main(["run", "kvcache/stream", "--dry-run", f"kv={name}", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["config"]["kv"].items() >= {"use": name, "recent": 32}.items()
        assert tian.load("kv_policy", name, recent=3).capacity(0, 1, None) == 3
