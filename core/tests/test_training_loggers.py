"""Loggers beside metrics.jsonl."""

import csv
from importlib.util import find_spec

import pytest
from omegaconf import OmegaConf
from toys import STEPS, Stop, crash, options, steps_of, train

from tian.errors import MissingDependency
from tian.runs.rundir import create
from tian.training import loggers


@pytest.fixture
def run(tmp_path):
    made = create(tmp_path / "run", OmegaConf.create({"recipe": "toys/train"}))
    yield made
    made.release()


def csv_steps(run):
    with (run.path / "logs" / "csv" / "metrics.csv").open() as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def test_csv_holds_every_row_also_after_a_resume(run):
    with pytest.raises(Stop):
        train("gan", run, at=6, act=crash, loggers=["csv"])
    assert csv_steps(run) == [1, 2, 3, 4, 5]
    train("gan", run, loggers=["csv"])
    assert csv_steps(run) == list(range(1, STEPS + 1)) == steps_of(run)
    with (run.path / "logs" / "csv" / "metrics.csv").open() as file:
        assert [float(row["critic"]) for row in csv.DictReader(file)] == [r["critic"] for r in run.metrics_rows()]


def test_tensorboard_gets_an_event_file_with_the_loss(run):
    train("regression", run, max_steps=3, loggers=["tensorboard"])
    (events,) = (run.path / "logs" / "tensorboard").glob("events.out.tfevents.*")
    assert events.read_bytes().count(b"loss") == 3


def test_values_a_module_logs_the_lightning_way_reach_the_loggers(run, monkeypatch):
    from tian.training.module import TianModule

    step = TianModule.training_step

    def logging_step(self, batch, batch_idx):
        self.log("mine", 7.0)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(TianModule, "training_step", logging_step)
    train("regression", run, max_steps=3, loggers=["csv"])
    with (run.path / "logs" / "csv" / "metrics.csv").open() as file:
        assert [row["mine"] for row in csv.DictReader(file) if row["mine"]] == ["7.0"] * 3


@pytest.mark.parametrize("name", ["wandb", "tensorboard"])
def test_a_logger_without_its_package_is_refused_before_the_first_step(run, monkeypatch, name):
    if name == "tensorboard":
        monkeypatch.setattr(loggers, "find_spec", lambda package: None)
    elif find_spec("wandb"):
        pytest.skip("wandb is installed here")
    with pytest.raises(MissingDependency) as error:
        train("regression", run, loggers=["csv", name])
    assert error.value.hint == f"pip install 'tian-framework[{name}]'"
    assert steps_of(run) == []


def test_wandb_stays_offline_unless_its_variable_is_set(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(loggers, "WandbLogger", lambda **options: made.append(options["offline"]))
    monkeypatch.setattr(loggers, "find_spec", lambda package: True)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    loggers.make_loggers(["wandb"], folder=tmp_path, step=0)
    monkeypatch.setenv("WANDB_MODE", "online")
    loggers.make_loggers(["wandb"], folder=tmp_path, step=0)
    assert made == [True, False]


def test_no_logger_is_made_unless_asked_for(run):
    train("regression", run, max_steps=2)
    assert not (run.path / "logs").exists()
    assert options().loggers == []
