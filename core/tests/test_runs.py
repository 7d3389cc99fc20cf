"""Run directories: files whole or not at all, states in order, one owner."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

import tian
from tian import files
from tian.errors import DataError, InvalidInput, RunBusy
from tian.files import write_atomic
from tian.runs.files import append_jsonl, read_json, read_jsonl, to_json, write_json
from tian.runs.rundir import Run, last_run, new_run_path, open_existing

RECIPE = """
from tian import hookimpl

BEHAVIOUR = {}

def recipe(cfg, run):
    BEHAVIOUR["seen"] = run.status()
    if "raise" in BEHAVIOUR:
        raise BEHAVIOUR["raise"]
    run.log_metrics({"x": 1})
    return []

@hookimpl
def tian_register_recipes(register):
    register("job", recipe, summary="for tests")

@hookimpl
def tian_register_configs(register):
    import pathlib
    register(pathlib.Path(__file__).parent / "job_conf")

@hookimpl
def tian_run_finished(run, outcome):
    BEHAVIOUR["outcome"] = outcome
"""


@pytest.fixture
def behaviour(install_plugin):
    """What the recipe `jobs/job` does and saw."""
    modules = {"jobs_plug.py": RECIPE, "job_conf/job.yaml": "# a job\nrecipe: jobs/job\n"}
    install_plugin("dist-jobs", modules=modules, entry_points={"jobs": "jobs_plug"})
    from tian.plugins.registry import get_registry

    get_registry()
    import jobs_plug

    return jobs_plug.BEHAVIOUR


def status(path):
    return json.loads((path / "status.json").read_text())


# -- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    file = tmp_path / "x.json"
    write_atomic(file, "old")

    def full(*_args):
        raise OSError("no space left on device")

    if step == "fsync":
        monkeypatch.setattr(files.os, "fsync", full)
    else:
        monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space"):
        write_atomic(file, "new and longer")
    monkeypatch.undo()
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_what_cannot_be_written_as_json_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", {"a": object()})
    assert read_json(tmp_path / "x.json") == {"a": 1}


def test_others_may_read_what_was_written(tmp_path):
    write_atomic(tmp_path / "x", b"abc")
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o644


def test_nan_and_infinity_become_strings_that_every_json_reader_takes():
    text = to_json({"a": [float("nan"), 1.5], "b": {"c": float("-inf")}, "d": (float("inf"),)})

    def refuse(name):
        raise AssertionError(name)

    read = json.loads(text, parse_constant=refuse)
    assert read == {"a": ["nan", 1.5], "b": {"c": "-inf"}, "d": ["inf"]}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(VALUES)
def test_any_plain_value_is_strict_json(value):
    def refuse(name):
        raise AssertionError(name)

    json.loads(to_json(value), parse_constant=refuse)


@settings(max_examples=40)
@given(rows=st.lists(st.dictionaries(st.text(), st.integers() | st.text()), min_size=1, max_size=4), data=st.data())
def test_a_last_line_torn_anywhere_costs_that_line_only(rows, data, tmp_path_factory):
    file = tmp_path_factory.mktemp("torn") / "rows.jsonl"
    for row in rows:
        append_jsonl(file, row)
    assert read_jsonl(file) == rows
    raw = file.read_bytes()
    last = raw.rstrip(b"\n").rfind(b"\n") + 1
    cut = data.draw(st.integers(last, len(raw) - 2))
    file.write_bytes(raw[:cut])
    assert read_jsonl(file) == rows[:-1]


def test_rows_after_a_torn_line_are_not_lost(tmp_path):
    file = tmp_path / "rows.jsonl"
    append_jsonl(file, {"step": 1})
    with file.open("a") as handle:
        handle.write('{"step": 2, "lo')  # killed here
    append_jsonl(file, {"step": 2})  # and resumed
    append_jsonl(file, {"step": 3})
    assert [r["step"] for r in read_jsonl(file)] == [1, 2, 3]


def test_no_file_means_no_rows(tmp_path):
    assert read_jsonl(tmp_path / "absent.jsonl") == []


# -- status ----------------------------------------------------------------------------------------------------------


def test_a_run_goes_from_running_to_finished(behaviour, tmp_path):
    path = tian.run("jobs/job", root=tmp_path).path
    assert behaviour["seen"]["state"] == "running"
    assert behaviour["seen"]["pid"] == os.getpid()
    assert behaviour["outcome"] == "finished"
    found = status(path)
    assert found["state"] == "finished"
    assert found["command"] == "tian run jobs/job"
    assert found["error"] is None
    assert read_json(path / "metrics.json") == []
    assert path.parent == tmp_path / "jobs" / "job"


@pytest.mark.parametrize(
    ("error", "state", "text"),
    [
        (InvalidInput("bad number"), "failed", "InvalidInput: bad number"),
        (ZeroDivisionError("oh"), "failed", "ZeroDivisionError: oh"),
        (KeyboardInterrupt(), "interrupted", None),
        (SystemExit(143), "interrupted", None),
        (SystemExit(0), "failed", "the recipe called sys.exit(0)"),
    ],
)
def test_a_run_that_ends_early_says_how_and_can_be_continued(behaviour, tmp_path, capsys, error, state, text):
    behaviour["raise"] = error
    with pytest.raises(type(error)):
        tian.run("jobs/job", ["seed=3"], folder=tmp_path / "run")
    assert behaviour["outcome"] == state
    found = status(tmp_path / "run")
    assert (found["state"], found["error"]) == (state, text)
    assert not (tmp_path / "run" / "metrics.json").exists()
    log = tmp_path / "run" / "logs" / "run.log"
    assert ("Traceback" in (log.read_text() if log.exists() else "")) == (type(error) is ZeroDivisionError)
    assert ("--resume" in capsys.readouterr().err) == (state == "interrupted")
    del behaviour["raise"]
    again = tian.run("jobs/job", resume=tmp_path / "run")
    assert again.config.seed == 3
    found = status(tmp_path / "run")
    assert (found["state"], found["error"], found["command"]) == ("finished", None, "tian run jobs/job seed=3")


def test_the_newest_run_is_the_last_one(behaviour, tmp_path):
    first = tian.run("jobs/job", root=tmp_path).path
    second = tian.run("jobs/job", root=tmp_path).path
    assert first != second
    assert last_run(tmp_path, "jobs/job") == second
    assert tian.run("jobs/job", resume="last", root=tmp_path).path == second


def test_a_tenth_run_within_one_second_is_newer_than_the_second(tmp_path):
    for i in range(12):
        path = new_run_path(tmp_path, "jobs/job", "abc")
        path.mkdir(parents=True)
        (path / "status.json").write_text("{}")
        os.utime(path / "status.json", ns=(i, i))
    assert last_run(tmp_path, "jobs/job") == path


def test_a_dry_run_writes_nothing(behaviour, tmp_path):
    result = tian.run("jobs/job", root=tmp_path / "runs", dry_run=True)
    assert result.path is None
    assert not (tmp_path / "runs").exists()
    assert "seen" not in behaviour


# -- ownership -------------------------------------------------------------------------------------------------------


def test_a_directory_has_one_owner_until_it_is_released(run_dir):
    other = Run(run_dir.path, OmegaConf.create({}))
    with pytest.raises(RunBusy, match=f"pid {os.getpid()}"):
        other.acquire()
    run_dir.release()
    other.acquire()
    other.release()


def test_a_finished_run_can_be_read_while_another_owns_it(behaviour, tmp_path):
    path = tian.run("jobs/job", folder=tmp_path / "run").path
    owner = open_existing(path)
    owner.acquire()
    assert open_existing(path).metrics_rows() == [{"x": 1}]
    owner.release()


def test_there_is_no_last_run(tmp_path):
    with pytest.raises(DataError, match="no run of jobs/job"):
        last_run(tmp_path, "jobs/job")
