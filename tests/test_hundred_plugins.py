"""A hundred plugins, ten of them broken in ten ways: everything else works, and each of the ten is named."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "hundred_plugins.py"
ALWAYS = 2  # lm, kvcache

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def hundred():
    """The module that writes them."""
    spec = importlib.util.spec_from_file_location("hundred_plugins", SCRIPT)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def tian(hundred, tmp_path_factory):
    """A function that runs `tian` where the hundred are installed: `(code, stdout, stderr)`."""
    folder = tmp_path_factory.mktemp("hundred")
    hundred.write(folder)

    def run(*argv):
        done = subprocess.run(
            [sys.executable, "-m", "tian", *argv],
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
            env=hundred.environment(folder),
            timeout=200,
        )
        assert "Traceback" not in done.stdout + done.stderr
        return done.returncode, done.stdout, done.stderr

    run.folder = folder
    return run


def test_there_are_a_hundred_and_ten_are_broken(tian, hundred):
    code, out, _ = tian("plugins", "--fast", "--json")
    assert code == 0
    assert len(json.loads(out)) == 100 + ALWAYS
    assert len(hundred.BAD) == 10


def test_all_good_ones_are_listed(tian):
    code, out, err = tian("list")
    assert code == 0
    assert [f"good{i:02}/choose" for i in range(90) if f"  good{i:02}/choose " not in out] == []
    assert "kvcache/streaming" in out
    assert "not loaded in full: crash, exits, " in err


def test_plugins_says_of_each_what_is_wrong_where_and_what_to_do(tian, hundred):
    code, out, _ = tian("plugins", "--json")
    assert code == 0
    found = {p["dist"]: p for p in json.loads(out)}
    for name, bad in hundred.BAD.items():
        info = found[f"dist-{name}"]
        assert info["state"] == bad.state, name
        (problem,) = info["problems"]
        assert bad.says in problem["message"], name
        file, _, line = problem["where"].rpartition(":")
        assert Path(file).is_relative_to(tian.folder), problem
        assert int(line) == bad.line, name
        assert problem["hint"], name
    assert all(p["state"] == "loaded" and not p["problems"] for d, p in found.items() if d[:9] == "dist-good")


def test_what_does_not_need_them_works(tian):
    assert tian("show", "good42/choose")[0] == 0
    code, out, _ = tian("run", "kvcache/stream", "--dry-run", "--json")
    assert code == 0
    assert json.loads(out)["config"]["recipe"] == "kvcache/stream"


def test_doctor_says_no_and_names_each(tian, hundred):
    code, out, err = tian("doctor")
    assert code == 1
    lines = out.splitlines()
    for name, bad in hundred.BAD.items():
        (row,) = [line for line in lines if f"dist-{name} 1.0: {bad.state}" in line]
        assert bad.says in row
        assert f":{bad.line})" in row
        plugin = "good00" if name == "zcopy" else name
        assert row.startswith("ok") is (name in hundred.SLOW)
        assert "import it inside" in row or any(line.startswith(f"  do (plugin {plugin}): ") for line in lines)
    good = [line for line in lines if line.startswith("ok") and ": loaded" in line and "dist-good" in line]
    assert len(good) == 90
    assert "checking plugins: 102/102" in err
