"""A real `tian run` gets Ctrl-C, a termination or a kill; what is resumed ends like what was never interrupted."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tian.cli.main import main

OPTIONS = ["tokens=450", "streams=1", "compare=[]", "checks=false", "threads=1", "save_every=0.1"]


def state(path):
    return json.loads((path / "status.json").read_text())


def perplexity(path):
    rows = json.loads((path / "metrics.json").read_text())
    return [(m["name"], m["value"], m["n"]) for m in rows if "perplexity" in m["name"]]


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """The same options for every run here; the text is this file, twice."""
    text = tmp_path_factory.mktemp("text") / "text.txt"
    text.write_text(Path(__file__).read_text(encoding="utf-8") * 2, encoding="utf-8")
    return [*OPTIONS, f"text.path={text}"]


@pytest.fixture(scope="module")
def uninterrupted(options, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "run"
    assert main(["run", "kvcache/stream", *options, "--dir", str(path)]) == 0
    return perplexity(path)


@pytest.mark.parametrize(
    ("number", "code", "status"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "interrupted"),
        (signal.SIGKILL, -signal.SIGKILL, "running"),  # no code of ours runs
    ],
)
def test_a_stopped_run_resumes_to_the_same_result(tmp_path, options, uninterrupted, number, code, status):
    from tian_kvcache.reader import load_reading

    path = tmp_path / "run"
    argv = [sys.executable, "-m", "tian", "run", "kvcache/stream", *options, "--dir", str(path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            limit = time.monotonic() + 60
            while not list(path.glob("streams/*.safetensors")):
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < limit
                time.sleep(0.01)
            process.send_signal(number)
            _, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert state(path)["state"] == status
    assert not (path / "metrics.json").exists()
    (saved,) = path.glob("streams/*.safetensors")
    reading, cache = load_reading(saved)
    assert 0 < reading.done < 449
    assert cache
    if number != signal.SIGKILL:
        assert f"tian run kvcache/stream --resume {path}" in err
    assert main(["run", "kvcache/stream", "--resume", str(path)]) == 0
    assert state(path)["state"] == "finished"
    assert perplexity(path) == uninterrupted
    assert (path / "report.html").exists()
