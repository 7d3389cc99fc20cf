"""Whatever `fit` trains, stopped anywhere and called again, ends as if it had never been stopped."""

import os
import signal
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from toys import KINDS, STEPS, Gan, Stop, crash, options, regression, regression_batch, steps_of, train, weight_hash

from tian.errors import ContractError, InvalidInput
from tian.runs.rundir import create
from tian.training import rows
from tian.training.fit import fit
from tian.training.loader import StepLoader
from tian.training.rng import RngState, generator_states, set_generator_states
from tian.training.step_end import StepEnd


@pytest.fixture
def new_run(tmp_path):
    """A function that opens a fresh run directory."""
    from omegaconf import OmegaConf

    made = []

    def make(name="run"):
        made.append(create(tmp_path / name, OmegaConf.create({"recipe": "toys/train"})))
        return made[-1]

    yield make
    for run in made:
        run.release()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Kind -> (weight hash, metrics.jsonl) of the uninterrupted training."""
    from omegaconf import OmegaConf

    known = {}

    def get(kind):
        if kind not in known:
            run = create(tmp_path_factory.mktemp(kind) / "run", OmegaConf.create({"recipe": "toys/train"}))
            known[kind] = weight_hash(train(kind, run)), (run.path / "metrics.jsonl").read_bytes()
            run.release()
        return known[kind]

    return get


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [(3,), (6,), (5, 6, 10), (12,)], ids=lambda at: "-".join(map(str, at)))
def test_a_training_that_crashed_resumes_to_the_same_weights_and_rows(kind, at, new_run, whole):
    run = new_run()
    for step in at:
        with pytest.raises(Stop):
            train(kind, run, at=step, act=crash)
    assert (weight_hash(train(kind, run)), (run.path / "metrics.jsonl").read_bytes()) == whole(kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_ends_the_step_and_leaves_its_checkpoint(kind, number, error, new_run, whole):
    run = new_run()
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(error) as stop:
        train(kind, run, at=7, act=lambda: os.kill(os.getpid(), number))
    assert number == signal.SIGINT or stop.value.code == 143
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    assert steps_of(run)[-1] == 7
    assert (run.path / "checkpoints" / "step-0000007.ckpt").exists()
    assert (weight_hash(train(kind, run)), (run.path / "metrics.jsonl").read_bytes()) == whole(kind)


def test_a_signal_in_the_last_step_still_counts_and_nothing_is_left_to_train(new_run, whole):
    run = new_run()
    with pytest.raises(SystemExit):
        train("gan", run, at=STEPS, act=lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert weight_hash(train("gan", run, at=STEPS, act=crash)) == whole("gan")[0]


def test_a_second_signal_acts_at_once(new_run):
    run = new_run()
    with pytest.raises(KeyboardInterrupt):
        train("regression", run, at=7, act=lambda: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)])
    assert steps_of(run)[-1] == 6
    assert not (run.path / "checkpoints" / "step-0000007.ckpt").exists()


@pytest.mark.parametrize("kind", ["dropout", "generators", "gan"])
def test_without_the_generators_states_a_resumed_training_differs(kind, new_run, whole, monkeypatch):
    """The test of the tests above: they would notice."""
    monkeypatch.setattr(RngState, "load_state_dict", lambda self, state: None)
    run = new_run()
    with pytest.raises(Stop):
        train(kind, run, at=6, act=crash)
    assert weight_hash(train(kind, run)) != whole(kind)[0]


def test_a_checkpoint_from_before_the_modules_own_hook_would_differ(new_run, whole, monkeypatch):
    """The codebook changes in `on_train_batch_end`, which Lightning calls after the callbacks."""
    monkeypatch.setattr(StepEnd, "before_callbacks", lambda self, module: nullcontext())
    run = new_run()
    with pytest.raises(Stop):
        train("vqvae", run, at=6, act=crash)
    assert weight_hash(train("vqvae", run)) != whole("vqvae")[0]


def test_the_generators_come_back_to_where_they_were():
    import random

    import numpy as np

    random.gauss(0, 1)  # leaves its second number for the next call, as numpy does
    np.random.randn()
    saved = generator_states()
    first = [random.gauss(0, 1), np.random.randn(), np.random.rand(), torch.rand(1).item(), random.random()]
    set_generator_states(saved)
    assert [random.gauss(0, 1), np.random.randn(), np.random.rand(), torch.rand(1).item(), random.random()] == first


def test_steps_are_batches_although_three_optimizers_step_in_each(new_run):
    run = new_run()
    train("gan", run, max_steps=6, checkpoint_every=2, log_every=3)
    assert steps_of(run) == [3, 6]
    assert [p.name for p in sorted((run.path / "checkpoints").iterdir())] == ["step-0000004.ckpt", "step-0000006.ckpt"]


def test_rows_hold_what_the_module_measures(new_run):
    run = new_run()
    train("gan", run, max_steps=2)
    (row, _) = run.metrics_rows()
    assert list(row) == ["step", "loss", "critic"]  # two optimizers: no single learning rate
    other = new_run("other")
    train("ppo", other, max_steps=2)
    assert list(other.metrics_rows()[0]) == ["step", "loss", "lr", "reward"]


def test_a_row_that_a_crash_tore_leaves_no_trace(new_run, whole):
    run = new_run()
    with pytest.raises(Stop):
        train("regression", run, at=6, act=crash)
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    train("regression", run)
    assert (run.path / "metrics.jsonl").read_bytes() == whole("regression")[1]


def test_two_trainings_of_one_run_keep_apart(new_run):
    def both(run, at=None):
        first = train("vqvae", run, part="codes")
        return [weight_hash(first), weight_hash(train("dropout", run, part="prior", at=at, act=crash))]

    run, again = new_run(), new_run("again")
    want = both(run)
    with pytest.raises(Stop):
        both(again, at=6)
    assert both(again) == want
    assert (again.path / "metrics.jsonl").read_bytes() == (run.path / "metrics.jsonl").read_bytes()
    assert steps_of(again, "part") == ["codes"] * STEPS + ["prior"] * STEPS


def test_speed_is_kept_apart_from_the_metrics(new_run):
    import json

    run = new_run()
    module = regression()
    ids = torch.zeros(2, 8)
    module.training_step = lambda batch, batch_idx: type(module).training_step(module, regression_batch(batch_idx), 0)
    fit(module, StepLoader(lambda i: {"input_ids": ids}, steps=4), options(max_steps=4, log_every=2), run=run, seed=0)
    speeds = [json.loads(line) for line in (run.path / "throughput.jsonl").read_text().splitlines()]
    assert [r["step"] for r in speeds] == [2, 4]
    assert all(r["tokens_per_s"] == pytest.approx(16 * r["batches_per_s"]) for r in speeds)
    assert set(run.metrics_rows()[0]) == {"step", "loss", "lr"}


def test_the_heart_beats_every_ten_seconds_at_most(monkeypatch):
    now, beats = [100.0], []
    monkeypatch.setattr(rows, "time", SimpleNamespace(monotonic=lambda: now[0]))
    heart = rows.Heartbeat(SimpleNamespace(path=Path(), beat=lambda: beats.append(now[0])))
    for now[0] in (101, 109.9, 110.5, 112, 120.4, 120.5, 140):
        heart.on_train_batch_end(SimpleNamespace(is_global_zero=True))
    assert beats == [110.5, 120.5, 140]
    now[0] = 200
    heart.on_train_batch_end(SimpleNamespace(is_global_zero=False))
    assert len(beats) == 3


def test_a_beat_changes_the_heartbeat_and_nothing_else(new_run):
    run = new_run()
    run.set_status("running", name="x", heartbeat="2020-01-01T00:00:00Z")
    old = run.status()
    run.beat()
    new = run.status()
    assert new.pop("heartbeat") > old.pop("heartbeat")
    assert new == old


def test_a_module_without_metrics_is_refused_before_it_trains(new_run):
    class Mute(Gan):
        def __init__(self):
            super().__init__()
            del self.metrics

    with pytest.raises(ContractError, match="Mute has no `metrics`") as error:
        fit(Mute(), StepLoader(lambda i: {}, steps=STEPS), options(), run=new_run(), seed=0)
    assert "{'loss': ...}" in error.value.hint


@pytest.mark.parametrize("given", [{"lost": 1.0}, {"loss": "small"}, {"loss": torch.ones(2)}, 3.0])
def test_metrics_that_are_no_numbers_are_the_modules_fault(given, new_run, monkeypatch):
    module = regression()
    monkeypatch.setattr(type(module), "metrics", property(lambda self: given))
    with pytest.raises(ContractError, match="metrics"):
        fit(module, StepLoader(regression_batch, steps=STEPS), options(), run=new_run(), seed=0)


def test_too_few_batches_are_refused(new_run):
    with pytest.raises(InvalidInput, match=r"5 batches, trainer\.max_steps is 12"):
        fit(regression(), StepLoader(regression_batch, steps=5), options(), run=new_run(), seed=0)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_the_generators_do_not_take_is_refused(seed, new_run):
    with pytest.raises(InvalidInput, match=r"seed must be within 0\.\.4294967295"):
        fit(regression(), StepLoader(regression_batch, steps=STEPS), options(), run=new_run(), seed=seed)


def test_fsdp_needs_a_module_that_shares_its_parameters_out(new_run):
    with pytest.raises(InvalidInput, match=r"needs Gan\.configure_model"):
        fit(Gan(), StepLoader(lambda i: {}, steps=STEPS), options(strategy="fsdp"), run=new_run(), seed=0)


def test_a_longer_loader_stops_at_max_steps(new_run):
    run = new_run()
    fit(regression(), StepLoader(regression_batch, steps=50), options(), run=run, seed=0)
    assert steps_of(run)[-1] == STEPS


def test_each_process_takes_its_rows():
    loader = StepLoader(lambda i: {"x": torch.arange(6) + 10 * i, "n": torch.tensor(3)}, steps=2)
    parts = [list(loader.for_rank(r, 3, before=lambda: None)) for r in range(3)]
    assert [p[1]["x"].tolist() for p in parts] == [[10, 13], [11, 14], [12, 15]]
    assert parts[0][0]["n"] == 3
    with pytest.raises(InvalidInput, match="'x' has 6 rows, which 4 processes cannot share"):
        list(loader.for_rank(0, 4, before=lambda: None))


@pytest.mark.parametrize("bad", [{"strategy": "horovod"}, {"loggers": ["mlflow"]}, {"loggers": ["csv", "csv"]}])
def test_an_unknown_strategy_or_logger_is_refused_with_the_known_ones(bad):
    with pytest.raises(InvalidInput, match=r"ddp|tensorboard"):
        options(**bad)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["regression", "gan"])
def test_a_compiled_training_learns_the_same_under_the_same_names(kind, new_run):
    eager, compiled = train(kind, new_run("eager")), train(kind, new_run("compiled"), compile=True)
    assert eager.state_dict().keys() == compiled.state_dict().keys()
    for name, value in eager.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], value, atol=1e-5, rtol=1e-4)
