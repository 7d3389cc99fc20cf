"""Training with two real processes over gloo: stopped, resumed, and equal to one process up to the order of sums."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from tian.runs.rundir import create
from tian.training.checkpoints import checkpoints, read_checkpoint

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """Rows and final checkpoint of the same training in one process."""
    sys.path.insert(0, str(HERE))
    try:
        import ddp_fit
    finally:
        sys.path.remove(str(HERE))
    run = create(tmp_path_factory.mktemp("single") / "run", OmegaConf.create({"recipe": "toys/train"}))
    ddp_fit.train(ddp_fit.make(), run)
    run.release()
    return run.metrics_rows(), read_checkpoint(checkpoints(run.path / "checkpoints")[-1])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_train_like_one_also_when_stopped(strategy, single, tmp_path):
    path = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, str(HERE / "ddp_fit.py"), str(path), strategy],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [done.stdout.count(word) for word in ("stopped with 143", "finished")] == [2, 2]  # both processes, together
    assert done.stderr.count("training: 0/12") == 1  # one of them speaks,
    assert "training: 7/12" in done.stderr  # and goes on from the step in which it was terminated
    rows, content = single
    got = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in got] == [r["step"] for r in rows]  # one of them writes, and rows are rewound
    names = [p.name for p in checkpoints(path / "checkpoints")]
    assert names == ["step-0000008.ckpt", "step-0000012.ckpt"]
    mine = read_checkpoint(path / "checkpoints" / names[-1])
    # Two half batches are summed in another order than one whole: float32 rounding (6e-8 a step) grown by AdamW's
    # division over 12 steps. A process that took wrong rows would be off by the size of the weights, 1e-1.
    for a, b in zip(got, rows, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
    assert mine["state_dict"].keys() == content["state_dict"].keys()
    for name, value in content["state_dict"].items():
        torch.testing.assert_close(mine["state_dict"][name], value, rtol=0, atol=1e-4)
