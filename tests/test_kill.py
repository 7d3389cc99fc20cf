"""A real `tian run lm/train` is killed with SIGKILL at random moments; what is resumed ends like what never was.

Moments are seeded: a number of further steps to wait for, or a delay within the time a run takes, so that some kills
hit the start, the evaluation and the saving of the model. Start-up is most of the time, hence several kills a run.
"""

import hashlib
import json
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tian.cli.main import main

STEPS = 60
OPTIONS = [
    "lm.vocab_size=300",
    "lm.d_model=32",
    "lm.layers=2",
    "lm.heads=2",
    "lm.kv_heads=1",
    "lm.ffn=64",
    "lm.context=64",
    "batch=8",
    "eval_tokens=256",
    f"trainer.max_steps={STEPS}",
    "trainer.checkpoint_every=5",
    "trainer.log_every=1",
    "trainer.accelerator=cpu",
]
LIMIT = 300  # s; a run that takes longer hangs


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """The same options for every run here; the text is this file, often."""
    text = tmp_path_factory.mktemp("text") / "text.txt"
    text.write_text(Path(__file__).read_text(encoding="utf-8") * 3, encoding="utf-8")
    return [*OPTIONS, f"text.path={text}", f"held_out.path={text}"]


@pytest.fixture(scope="module")
def uninterrupted(options, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "run"
    assert main(["run", "lm/train", *options, "--dir", str(path)]) == 0
    return outcome(path)


def outcome(path):
    """Hashes of all that must not depend on how often a run was killed."""
    names = ("metrics.json", "metrics.jsonl", "model/model.safetensors")
    return {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in names}


def lines(path, name):
    return (path / name).read_bytes().count(b"\n") if (path / name).exists() else 0


def steps_done(path):
    """Steps of all processes so far: throughput.jsonl, unlike metrics.jsonl, is never rewound."""
    return lines(path, "throughput.jsonl")


def state(path):
    return json.loads((path / "status.json").read_text())["state"] if (path / "status.json").exists() else "absent"


def start(options, path, **more):
    """Begin the run in `path`, or go on with it once there is something to go on with."""
    again = state(path) != "absent"
    argv = ["--resume", str(path)] if again else [*options, "--dir", str(path)]
    if not again and path.exists():  # killed between making the directory and its first file
        for file in path.iterdir():
            file.unlink()
    command = [sys.executable, "-m", "tian", "run", "lm/train", *argv]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **more)


def wait(process, done):
    """Poll until `done()`, or until the process ends."""
    limit = time.monotonic() + LIMIT
    while process.poll() is None and not done():
        assert time.monotonic() < limit
        time.sleep(0.002)


def kill_once(options, path, rng, seconds):
    """Start or resume, kill at a random moment.

    Args:
        options: of a fresh run.
        path: its directory.
        rng: draws the moment.
        seconds: longest delay, or None to go by steps only.

    Returns:
        What was waited for, and whether the process was still there to be killed.
    """
    before = steps_done(path)
    with start(options, path) as process:
        if seconds is not None and rng.random() < 0.2:
            delay = rng.uniform(0, seconds)
            moment, due = f"{delay:.1f} s", time.monotonic() + delay
            wait(process, lambda: time.monotonic() >= due)
        else:
            more = rng.randint(1, 15)
            moment = f"+{more} steps"
            wait(process, lambda: steps_done(path) >= before + more)
        alive = process.poll() is None
        process.kill()
        err = process.stderr.read()
    assert process.returncode in (0, -signal.SIGKILL), err
    return moment, process.returncode != 0 and alive


def finish(options, path):
    with start(options, path) as process:
        _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, err


@pytest.mark.timeout(600)  # five imports of torch and lightning, which a busy machine stretches
def test_training_killed_at_three_moments_ends_like_one_that_was_not(options, uninterrupted, tmp_path):
    path, rng = tmp_path / "run", random.Random(1)
    for _ in range(3):
        _, landed = kill_once(options, path, rng, None)
        assert landed
        assert state(path) == "running"  # no code of ours ran
    finish(options, path)
    assert state(path) == "finished"
    assert outcome(path) == uninterrupted


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fifty_kills_leave_no_trace(options, uninterrupted, tmp_path, capsys):
    begun = time.monotonic()
    finish(options, tmp_path / "timed")
    seconds = time.monotonic() - begun
    rng, kills, runs = random.Random(2), 0, 0
    with capsys.disabled():
        sys.stdout.write("\nkill  run    moment  rows  state\n")
    while kills < 50:
        path, runs, since = tmp_path / f"run{runs}", runs + 1, 0
        while state(path) != "finished" and kills < 50 and since < 8:
            moment, landed = kill_once(options, path, rng, seconds)
            if landed:
                kills, since = kills + 1, since + 1
                with capsys.disabled():
                    sys.stdout.write(
                        f"{kills:4} {runs:4} {moment:>9} {lines(path, 'metrics.jsonl'):5}  {state(path)}\n"
                    )
                    sys.stdout.flush()
        if state(path) != "finished":
            finish(options, path)
        assert outcome(path) == uninterrupted, path
    with capsys.disabled():
        sys.stdout.write(f"{kills} kills in {runs} runs: metrics and weights equal to the uninterrupted run's\n")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_living_training_keeps_its_directory_and_a_dead_one_gives_it_up(options, uninterrupted, tmp_path):
    path = tmp_path / "run"
    with start(options, path) as process:
        wait(process, lambda: steps_done(path) >= 3)
        process.send_signal(signal.SIGSTOP)  # alive, and in no hurry
        command = [sys.executable, "-m", "tian", "run", "lm/train", "--resume", str(path)]
        second = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
        before = steps_done(path)
        process.kill()
    assert second.returncode == 7, second.stderr
    assert f"is being written by pid {process.pid}" in second.stderr
    assert before < STEPS
    finish(options, path)
    assert outcome(path) == uninterrupted


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_full_disk_ends_with_code_6_and_the_run_can_go_on(options, uninterrupted, tmp_path):
    path = tmp_path / "run"
    with start(options, path) as process:
        wait(process, (path / "checkpoints" / "step-0000010.ckpt").exists)
        process.kill()
    size = min(p.stat().st_size for p in path.glob("checkpoints/step-*.ckpt"))

    def small_files_only():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, resource.RLIM_INFINITY))

    with start(options, path, preexec_fn=small_files_only) as process:
        _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 6, err
    assert "cannot be written: File too large" in err
    assert f"where: {path / 'checkpoints'}" in err
    assert "free some space and resume" in err
    assert "Traceback" not in err
    assert state(path) == "failed"
    assert not list((path / "checkpoints").glob(".*"))
    finish(options, path)
    assert outcome(path) == uninterrupted
