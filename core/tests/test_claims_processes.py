"""The processes runs live in: forks of a nursery, and fresh interpreters."""

import json
import os
import sys
import time
from pathlib import Path

import pytest

from tian.claims.processes import Forked, Fresh, new_process

PLUGIN = """
from tian import hookimpl

@hookimpl
def tian_register_recipes(register):
    for name in ("count", "broken", "exits", "threads"):
        register(name, f"nest_{name}:measure", summary="toy")

    register("sleeps", "nest_count:sleep", summary="toy")

@hookimpl
def tian_register_configs(register):
    register("nest.conf")
"""
COUNT = """
import os
from tian.types import Measurement

seen = []
home = os.getpid()

def measure(cfg, run):
    seen.append(1)
    return [
        Measurement("runs in this memory", len(seen)),
        Measurement("threads", int(os.environ["OMP_NUM_THREADS"])),
        Measurement("imported by", home),
    ]

def sleep(cfg, run):
    import time
    time.sleep(3600)
"""
THREADS = """
import threading, time
from tian.types import Measurement
threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()

def measure(cfg, run):
    return [Measurement("threads", threading.active_count())]
"""


@pytest.fixture
def nest(install_plugin, monkeypatch, tmp_path):
    """A function that starts a recipe and returns exit code and answer; its process is closed after the test."""
    monkeypatch.chdir(tmp_path)
    names = ("count", "broken", "exits", "threads")
    install_plugin(
        "tian-plugin-nest",
        modules={
            "nest/__init__.py": "",
            "nest/plugin.py": PLUGIN,
            "nest_count.py": COUNT,
            "nest_broken.py": "raise ValueError('it is broken')\n",
            "nest_exits.py": "import os\nos._exit(7)\n",
            "nest_threads.py": THREADS,
            **{f"nest/conf/{n}.yaml": f"# toy\nrecipe: nest/{n}\n" for n in (*names, "sleeps")},
        },
        entry_points={"nest": "nest.plugin"},
    )
    made = []

    def start(process, name, folder, *, until=30.0):
        if process not in made:
            made.append(process)
        process.start(["run", f"nest/{name}", "--dir", str(tmp_path / folder), "--json"], f"nest/{name}")
        limit = time.monotonic() + until
        while process.poll() is None:
            assert time.monotonic() < limit
            process.cpu()  # of a fresh interpreter it is known only while it runs
            time.sleep(0.01)
        text = process.text()
        return process.poll(), json.loads(text) if text else {}

    yield start
    for process in made:
        process.close()


def measured(answer):
    return {m["name"]: m["value"] for m in answer["measurements"]}


@pytest.mark.parametrize("kind", [Forked, Fresh])
def test_a_run_finds_nothing_of_the_one_before_it(nest, kind):
    process = kind(1)
    for folder in ("a", "b"):
        code, answer = nest(process, "count", folder)
        assert code == 0
        assert (measured(answer)["runs in this memory"], measured(answer)["threads"]) == (1, 1)
        assert process.cpu() > 0


def test_a_nursery_imports_once_for_all_its_runs(nest):
    process = Forked(1)
    for folder in ("a", "b"):
        assert measured(nest(process, "count", folder)[1])["imported by"] == process._nursery.pid


@pytest.mark.parametrize("kind", [Forked, Fresh])
def test_a_recipe_that_cannot_be_imported_is_told_by_its_run(nest, kind):
    code, answer = nest(kind(1), "broken", "a")
    assert code == 3
    assert "it is broken" in answer["error"]["message"]


def test_an_import_that_ends_the_nursery_costs_only_its_own_run(nest):
    process = Forked(1)
    code, answer = nest(process, "exits", "a")
    assert (code, answer) == (7, {})
    assert nest(process, "count", "b")[0] == 0


def test_a_recipe_whose_import_starts_a_thread_is_not_forked(nest):
    """A fork would have lost the thread: the run is given an interpreter of its own."""
    code, answer = nest(Forked(1), "threads", "a")
    assert code == 0
    assert measured(answer) == {"threads": 2}


def test_a_forked_run_can_be_ended_and_the_nursery_goes_on(nest, tmp_path):
    process = Forked(1)
    assert nest(process, "count", "a")[0] == 0
    process.start(["run", "nest/count", "--dir", str(tmp_path / "b"), "--json"], "nest/count")
    process.end()
    assert process.poll() is not None
    assert nest(process, "count", "c")[0] == 0


def test_without_its_nursery_a_run_is_ended(nest, tmp_path):
    process = Forked(1)
    assert nest(process, "count", "a")[0] == 0
    process.start(["run", "nest/sleeps", "--dir", str(tmp_path / "b"), "--json"], "nest/sleeps")
    limit = time.monotonic() + 30
    while not (tmp_path / "b" / "status.json").exists():
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.01)
    process.poll()
    child = process._child
    process._nursery.kill()
    process._nursery.wait()
    assert process.poll() == -9
    while time.monotonic() < limit:  # its new parent may take a moment to bury it
        try:
            state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            break
        if state == "Z":
            break
        time.sleep(0.01)
    else:
        pytest.fail("the run goes on")


def test_only_single_threaded_runs_are_forked():
    assert isinstance(new_process(None), Fresh)
    process = new_process(1)
    assert isinstance(process, Forked if sys.platform == "linux" else Fresh)
    process.close()


def test_closing_leaves_no_process_and_no_folder(nest):
    process = Forked(1)
    nest(process, "count", "a")
    pid, folder = process._nursery.pid, process._folder.name
    process.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not Path(folder).exists()
