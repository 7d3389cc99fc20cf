"""A new plugin is tried in a child process first; what that costs, what is remembered, and what voids it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from tian.errors import PluginError
from tian.plugins import probation, probe
from tian.plugins.registry import get_registry, reset_registry

GOOD = """
from tian import hookimpl

@hookimpl
def tian_register_solvers(register):
    register("choose", "tian.testing.fakes:FakeSolver", summary="choose k items")
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The cache file of this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tian" / "probation.json"


@pytest.fixture
def install(install_plugin):
    """Install a plugin `name` of one module; returns a function that discovers anew and gives its PluginInfo."""

    def one(source, *, name="bad"):
        install_plugin(f"dist-{name}", modules={f"{name}_plug.py": source}, entry_points={name: f"{name}_plug"})
        return lambda: find(name)

    return one


def find(name):
    reset_registry()
    return next(p for p in get_registry().plugins if p.name == name)


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Write modules, name to source, where child processes find them."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(**sources):
        for name, source in sources.items():
            (tmp_path / f"{name}.py").write_text(source)

    return write


@pytest.fixture
def tried(monkeypatch):
    """The modules handed to child processes, in order."""
    modules = []
    real = probe.try_imports

    def count(names, *, limit):
        modules.extend(names)
        return real(names, limit=limit)

    monkeypatch.setattr(probe, "try_imports", count)
    return modules


@pytest.fixture
def impatient(monkeypatch):
    """A limit that lets a hanging import end soon."""
    monkeypatch.setattr(probation, "LIMIT_SECONDS", 0.5)


@pytest.mark.parametrize(
    ("source", "message", "line"),
    [
        ("import os\n\nos._exit(9)\n", "ended the process with exit code 9", 3),
        ("import os\nos._exit(0)\n", "ended the process with exit code 0", 2),
        ("import os\nos.abort()\n", "ended the process with signal 6 (SIGABRT)", 2),
        ("import ctypes\n\n\nctypes.string_at(0)\n", "ended the process with signal 11 (SIGSEGV)", 4),
        ("import os\nos.kill(os.getpid(), 9)\n", "ended the process with signal 9 (SIGKILL)", None),
    ],
)
def test_an_import_that_ends_the_process_breaks_only_its_plugin(install, source, message, line):
    good = install(GOOD, name="zgood")
    info = install(source)()
    assert (info.state, info.entries) == ("broken", [])
    (problem,) = info.problems
    assert problem.message == f"importing bad_plug {message}"
    assert problem.where.endswith(f"bad_plug.py:{line}" if line else "bad_plug.py")
    assert "dist-bad" in problem.hint
    assert "TIAN_DISABLE_PLUGINS=bad" in problem.hint
    assert good().state == "loaded"


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("x = 0\nwhile True:\n    x += 1\n", (2, 3)),
        ("import threading\nthreading.Event().wait()\n", (2,)),
        ("import faulthandler, time\nfaulthandler.cancel_dump_traceback_later()\ntime.sleep(60)\n", ()),
    ],
    ids=["a loop", "waiting in C", "its limit switched off"],
)
def test_an_import_that_never_ends_is_ended_and_named(install, impatient, monkeypatch, source, line):
    monkeypatch.setattr(probe, "GRACE_SECONDS", 0.2)
    info = install(source)()
    assert info.state == "broken"
    (problem,) = info.problems
    assert problem.message == "importing bad_plug did not finish within 0.5 s"
    assert problem.where in [f"{probation.module_files('bad_plug')[-1]}{s}" for s in ("", *(f":{n}" for n in line))]
    assert problem.where.endswith(".py") is (not line)


def test_the_user_is_told_what_is_waited_for(install, impatient, monkeypatch, caplog):
    monkeypatch.setattr(probe, "PATIENCE_SECONDS", 0.1)
    with caplog.at_level(logging.WARNING, "tian"):
        install("import threading\nthreading.Event().wait()\n")()
    assert [r.message for r in caplog.records] == [
        "waiting for the plugin module bad_plug, new here, to import (at most 0.5 s)"
    ]


def test_all_new_plugins_share_one_child_and_a_crash_starts_it_again(install_plugin, monkeypatch):
    children = []
    real = probe._one_child

    def count(modules, limit):
        children.append(list(modules))
        return real(modules, limit)

    monkeypatch.setattr(probe, "_one_child", count)
    for name, source in {"a": GOOD, "b": "import os\nos._exit(1)\n", "c": GOOD, "d": "import no_such\n"}.items():
        install_plugin(f"dist-{name}", modules={f"{name}_plug.py": source}, entry_points={name: f"{name}_plug"})
    states = {p.name: p.state for p in get_registry().plugins}
    assert (states["a"], states["b"], states["c"], states["d"]) == ("loaded", "broken", "loaded", "broken")
    mine = [[m for m in modules if m.endswith("_plug")] for modules in children]
    assert mine == [["a_plug", "b_plug", "c_plug", "d_plug"], ["b_plug", "c_plug", "d_plug"], ["c_plug", "d_plug"]]


def test_who_is_ended_by_what_an_earlier_plugin_left_behind_is_not_blamed(modules):
    leaves = "import os, threading\nthreading.Timer(0.2, os._exit, (4,)).start()\n"
    waits = "import threading\nthreading.Event().wait(0.6)\n"
    modules(leaves=leaves, innocent=waits)
    assert [end.message for end in probe.try_imports(["leaves", "innocent"], limit=5)] == ["", ""]


def test_a_verdict_is_remembered_and_costs_no_second_process(install, tried, cache):
    bad, good = install("import os\nos._exit(9)\n"), install(GOOD, name="zgood")
    assert (bad().state, good().state) == ("broken", "loaded")
    first = list(tried)
    assert {"bad_plug", "zgood_plug"} <= set(first)
    again = bad()
    assert (again.state, again.problems[0].message) == (
        "broken",
        "importing bad_plug ended the process with exit code 9",
    )
    assert good().state == "loaded"
    assert tried == first
    assert set(json.loads(cache.read_text())) == {"format", "verdicts"}


def test_a_changed_file_is_tried_again(install, tried):
    discover = install("import os\nos._exit(9)\n")
    assert discover().state == "broken"
    file = probation.module_files("bad_plug")[-1]
    file.write_text(GOOD + "# another length\n")
    assert discover().state == "loaded"
    assert tried.count("bad_plug") == 2


def test_a_change_in_the_file_where_it_crashed_voids_the_verdict(install_plugin, tried):
    modules = {
        "pack/__init__.py": "",
        "pack/plug.py": "import pack.inner\n",
        "pack/inner.py": "import os\nos.abort()\n",
    }
    folder = install_plugin("dist-pack", modules=modules, entry_points={"pack": "pack.plug"})
    info = find("pack")
    assert info.problems[0].where == f"{folder}/pack/inner.py:2"
    (folder / "pack" / "inner.py").write_text("repaired = True\n")
    assert find("pack").state == "loaded"


def test_the_package_above_a_module_is_not_imported_to_find_it(install_plugin):
    modules = {"deep/__init__.py": "import os\nos._exit(9)\n", "deep/plug.py": GOOD}
    folder = install_plugin("dist-deep", modules=modules, entry_points={"deep": "deep.plug"})
    info = find("deep")
    assert info.state == "broken"
    assert info.problems[0].where == f"{folder}/deep/__init__.py:2"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 1}', '{"format": 1, "verdicts": {"a": 3}}', "\udcff", "9"]
)
def test_a_damaged_cache_counts_as_empty_and_is_replaced(install, cache, content):
    cache.parent.mkdir(parents=True)
    cache.write_bytes(content.encode(errors="surrogateescape"))
    assert install(GOOD)().state == "loaded"
    assert json.loads(cache.read_text())["format"] == probation.FORMAT


@pytest.mark.parametrize(
    "damage", [{"problem": None}, {"files": {}, "problem": None}, {"files": {"a": 1}, "problem": [1]}]
)
def test_a_damaged_verdict_counts_as_none(install, cache, damage, tried):
    discover = install(GOOD)
    assert discover().state == "loaded"
    content = json.loads(cache.read_text())
    content["verdicts"] = dict.fromkeys(content["verdicts"], damage)
    cache.write_text(json.dumps(content))
    sys.modules.pop("bad_plug")
    assert discover().state == "loaded"
    assert tried.count("bad_plug") == 2


def test_a_cache_that_cannot_be_written_is_no_error(install, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # a folder cannot be made below it
    discover = install("import os\nos._exit(9)\n")
    assert discover().state == "broken"
    assert discover().state == "broken"


def test_without_a_home_there_is_no_cache(install, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert install("import os\nos._exit(9)\n")().state == "broken"


def test_a_relative_cache_folder_is_not_used(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert probation.cache_file() == Path.home() / ".cache" / "tian" / "probation.json"


def test_forgotten_verdicts_are_found_again(install, tried):
    discover = install("import os\nos._exit(9)\n")
    assert discover().state == "broken"
    probation.forget()
    probation.forget()
    assert discover().state == "broken"
    assert tried.count("bad_plug") == 2


def test_verdicts_about_files_that_are_gone_are_dropped(install, install_plugin, cache):
    assert install(GOOD, name="gone")().state == "loaded"
    Path(probation.module_files("gone_plug")[-1]).unlink()
    assert install(GOOD, name="stays")().state == "loaded"
    kept = json.loads(cache.read_text())["verdicts"]
    assert [key.split("|")[0] for key in kept if key.split("|")[0] in ("gone", "stays")] == ["stays"]


def test_disabled_plugins_are_not_tried(install, tried, monkeypatch):
    monkeypatch.setenv("TIAN_DISABLE_PLUGINS", "bad")
    assert install("import os\nos._exit(9)\n")().state == "disabled"
    monkeypatch.delenv("TIAN_DISABLE_PLUGINS")
    monkeypatch.setenv("TIAN_PLUGINS", "kvcache")
    assert find("bad").state == "disabled"
    assert "bad_plug" not in tried


def test_reading_metadata_only_tries_nothing(install, tried):
    install("import os\nos._exit(9)\n")
    assert {p.state for p in get_registry(fast=True).plugins} <= {"installed"}
    assert tried == []


def test_a_one_off_file_is_not_tried(plugin_file, tried):
    registry = get_registry(extra_files=[plugin_file(GOOD)])
    assert registry.plugins[-1].state == "loaded"
    assert "one_off" not in tried


def test_where_no_child_can_be_started_plugins_are_imported_unexamined(install, monkeypatch, cache):
    def refuse(*_args, **_options):
        raise OSError("no more processes")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    assert install(GOOD)().state == "loaded"
    assert not json.loads(cache.read_text())["verdicts"] if cache.exists() else True


def test_strict_mode_raises_the_verdict(install, monkeypatch):
    monkeypatch.setenv("TIAN_STRICT", "1")
    with pytest.raises(PluginError, match="ended the process with exit code 9") as caught:
        install("import os\nos._exit(9)\n")()
    assert caught.value.where.endswith("bad_plug.py:2")


def test_what_a_plugin_prints_or_asks_for_on_trial_stays_in_the_child(install, capfd):
    info = install("print('hello')\nimport sys\nif sys.stdin.read():\n    raise SystemExit\n" + GOOD)
    probation.examine([p for p in get_registry(fast=True).plugins if p.name == "bad"])
    assert capfd.readouterr() == ("", "")
    assert info


def test_the_child_imports_nothing_heavy_by_itself(modules):
    libraries = ("torch", "numpy", "omegaconf", "rich", "yaml", "packaging", "tian.plugins.registry")
    modules(look=f"import os, sys\nif any(m in sys.modules for m in {libraries}):\n    os._exit(1)\n")
    assert [end.message for end in probe.try_imports(["look"], limit=5)] == [""]


def test_what_lies_in_the_working_directory_is_not_run(modules, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    for name in ("json", "tian", "faulthandler", "select"):
        (here / f"{name}.py").write_text(f"open({str(tmp_path / 'was-run')!r}, 'w').close()\n")
    monkeypatch.chdir(here)
    modules(plain="")
    assert [end.message for end in probe.try_imports(["plain"], limit=5)] == [""]
    assert not (tmp_path / "was-run").exists()


def test_two_processes_may_start_at_once(install):
    install(GOOD, name="twice")
    code = "from tian.plugins.registry import get_registry; print({p.name: p.state for p in get_registry().plugins}['twice'])"
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [p.communicate() for p in both] == [("loaded\n", "")] * 2
