"""Checkpoints: damaged ones are passed over, foreign ones refused without being run, a full disk costs nothing."""

import errno
import io
import os
import pickle
import resource
import zipfile
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from toys import STEPS, Gan, Stop, crash, options, regression, regression_batch, steps_of, train, weight_hash

from tian import files
from tian.errors import ContractError, DataError, ResumeMismatch, RunError
from tian.runs.rundir import Run, create
from tian.training.checkpoints import checkpoints, read_checkpoint
from tian.training.fit import fit
from tian.training.loader import StepLoader


@pytest.fixture
def run(tmp_path):
    made = create(tmp_path / "run", OmegaConf.create({"recipe": "toys/train"}))
    yield made
    made.release()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Weight hash and metrics.jsonl of the uninterrupted training."""
    made = create(tmp_path_factory.mktemp("whole") / "run", OmegaConf.create({"recipe": "toys/train"}))
    found = weight_hash(train("dropout", made)), (made.path / "metrics.jsonl").read_bytes()
    made.release()
    return found


@pytest.fixture
def stopped(run):
    """A training that was cut off in step 10: checkpoints of steps 4 and 8."""
    with pytest.raises(Stop):
        train("dropout", run, at=10, act=crash)
    assert [p.name for p in checkpoints(run.path / "checkpoints")] == ["step-0000004.ckpt", "step-0000008.ckpt"]
    return run


def rewrite(path, change):
    """Change a checkpoint's content by `change(content)`."""
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    """One wrong bit in the largest tensor; the archive still opens."""
    with zipfile.ZipFile(path) as archive:
        info = max(archive.infolist(), key=lambda i: i.file_size)
    data = bytearray(path.read_bytes())
    data[data.index(info.filename.encode()) + len(info.filename) + info.file_size // 2] ^= 1
    path.write_bytes(data)


def empty(path):
    path.write_bytes(b"")


def garbage(path):
    path.write_bytes(b"\x80\x04 not a checkpoint at all")


class Bomb:
    """Unpickling it makes a directory."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.mkdir, (self.mark,)


@pytest.mark.parametrize("damage", [truncate, flip, empty, garbage])
def test_a_damaged_checkpoint_is_passed_over_with_a_word(stopped, whole, capsys, damage):
    damage(stopped.path / "checkpoints" / "step-0000008.ckpt")
    got = train("dropout", stopped)
    err = capsys.readouterr().err
    assert "step-0000008.ckpt is damaged" in err
    assert "going on from the checkpoint before it" in err
    assert (weight_hash(got), (stopped.path / "metrics.jsonl").read_bytes()) == whole
    assert (stopped.path / "checkpoints" / "step-0000008.damaged").exists()  # kept for who wants to know


def test_when_none_can_be_read_the_user_decides(stopped):
    for path in checkpoints(stopped.path / "checkpoints"):
        truncate(path)
    for _ in range(2):  # asking again changes nothing
        with pytest.raises(DataError, match=r"no checkpoint can be read: step-0000008\.damaged, step-0000004") as error:
            train("dropout", stopped)
        assert "start this training over: rm" in error.value.hint
    assert steps_of(stopped)[-1] == 9


@pytest.mark.parametrize("wrapped", [True, False], ids=["in an archive", "bare"])
def test_a_pickle_bomb_is_refused_and_does_not_go_off(stopped, tmp_path, wrapped):
    mark = tmp_path / "boom"
    for path in checkpoints(stopped.path / "checkpoints"):
        if wrapped:
            torch.save({"tian": Bomb(mark)}, path)
        else:
            path.write_bytes(pickle.dumps(Bomb(mark)))
    raw = path.read_bytes()
    with pytest.raises(DataError, match=r"other objects than tensors|no checkpoint can be read"):
        train("dropout", stopped)
    assert not mark.exists()
    if wrapped:
        torch.load(io.BytesIO(raw), weights_only=False)
    else:
        pickle.loads(raw)
    assert mark.exists()  # it would have


def test_a_file_without_our_header_is_not_ours(stopped):
    rewrite(stopped.path / "checkpoints" / "step-0000008.ckpt", lambda content: content.pop("tian"))
    with pytest.raises(DataError, match="not a checkpoint of tian"):
        train("dropout", stopped)


def test_a_newer_format_asks_for_an_upgrade(stopped):
    rewrite(stopped.path / "checkpoints" / "step-0000008.ckpt", lambda content: content["tian"].update(format=2))
    with pytest.raises(ResumeMismatch, match="format 2") as error:
        train("dropout", stopped)
    assert error.value.hint == "upgrade tian-framework"


def test_a_checkpoint_of_another_config_is_refused(stopped):
    other = Run(stopped.path, OmegaConf.create({"recipe": "toys/train", "seed": 1}))
    with pytest.raises(ResumeMismatch, match="belongs to a run with config"):
        train("dropout", other)


def test_weights_of_another_module_are_refused_by_name(stopped):
    with pytest.raises(ResumeMismatch, match="holds other weights than Gan"):
        fit(Gan(), StepLoader(lambda i: {}, steps=STEPS), options(), run=stopped, seed=0)


def test_the_header_names_format_config_and_version(stopped):
    from importlib.metadata import version

    from tian.config.compose import config_hash

    header = read_checkpoint(stopped.path / "checkpoints" / "step-0000008.ckpt")["tian"]
    assert header == {"format": 1, "config": config_hash(stopped.config), "framework": version("tian-framework")}


def test_state_that_could_not_be_read_back_is_refused_at_the_first_checkpoint(run):
    module = regression()
    module.on_save_checkpoint = lambda checkpoint: checkpoint.update(mine=Path("x"))
    with pytest.raises(ContractError, match="cannot be in a checkpoint"):
        fit(module, StepLoader(regression_batch, steps=STEPS), options(), run=run, seed=0)
    assert not (run.path / "checkpoints").exists()


def test_half_written_files_of_a_killed_process_are_removed(stopped, whole):
    torn = stopped.path / "checkpoints" / ".step-0000012.ckpt.x1y2"
    torn.write_bytes(b"half")
    assert weight_hash(train("dropout", stopped)) == whole[0]
    assert not torn.exists()


# -- a full disk -----------------------------------------------------------------------------------------------------


def test_a_full_disk_ends_the_run_with_its_cause_and_keeps_what_was_saved(stopped, whole, monkeypatch):
    sync = os.fsync

    def full(handle):
        if ".ckpt" in str(Path(f"/proc/self/fd/{handle}").readlink()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(RunError, match=r"step-0000012.ckpt .* No space left on device \([\d.]+ MB free\)") as error:
        train("dropout", stopped)
    assert error.value.where == str(stopped.path / "checkpoints")
    assert error.value.exit_code == 6
    assert "free some space and resume" in error.value.hint
    monkeypatch.setattr(files.os, "fsync", sync)
    assert sorted(p.name for p in (stopped.path / "checkpoints").iterdir()) == [
        "step-0000004.ckpt",
        "step-0000008.ckpt",
    ]
    assert (weight_hash(train("dropout", stopped)), (stopped.path / "metrics.jsonl").read_bytes()) == whole


def test_a_row_that_does_not_fit_is_told_in_the_same_way(stopped, monkeypatch):
    def full(self, row):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Run, "log_metrics", full)
    with pytest.raises(RunError, match="the metrics of step 9 cannot be written: No space left"):
        train("dropout", stopped)


def test_a_limit_of_the_system_on_file_sizes_is_met_in_the_same_way(stopped, whole):
    size = (stopped.path / "checkpoints" / "step-0000008.ckpt").stat().st_size
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, old[1]))
    try:
        with pytest.raises(RunError, match=r"step-0000012\.ckpt .* File too large"):
            train("dropout", stopped)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert sorted(p.name for p in (stopped.path / "checkpoints").iterdir()) == [
        "step-0000004.ckpt",
        "step-0000008.ckpt",
    ]
    assert weight_hash(train("dropout", stopped)) == whole[0]
