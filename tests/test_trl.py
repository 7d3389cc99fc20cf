"""A real trainer of trl in a run directory: stopped in any way and resumed, it ends like one that was not."""

import json
import os
import signal

import pytest
import torch
from omegaconf import OmegaConf

from tian.errors import DataError, NanError
from tian.hf.trainer import RunCallback, train
from tian.runs.rundir import Run, create

pytest.importorskip("trl")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # trl and the libraries below it warn of each other
]
STEPS = 8


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    from tian.hf.tokenizer import train_tokenizer

    made = train_tokenizer(["the sink holds the stream in place " * 20], vocab_size=300)
    made.pad_token = made.eos_token = made.bos_token
    return made


@pytest.fixture(scope="module")
def make(tokenizer, tmp_path_factory):
    """A function that makes the same trainer again and again."""
    from datasets import Dataset
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    elsewhere = tmp_path_factory.mktemp("elsewhere")

    def trainer(**more):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=300,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            attention_dropout=0.2,
        )
        options = {
            "output_dir": str(elsewhere),
            "max_steps": STEPS,
            "save_steps": 2,
            "logging_steps": 1,
            "per_device_train_batch_size": 2,
            "learning_rate": 1e-2,
            "use_cpu": True,
            "bf16": False,
            "report_to": "none",
            "disable_tqdm": True,
            "max_length": 32,
            "seed": 3,
        }
        return SFTTrainer(
            model=LlamaForCausalLM(config),
            args=SFTConfig(**options | more),
            processing_class=tokenizer,
            train_dataset=Dataset.from_dict({"text": [f"the sink {i} holds {i * i} the stream" for i in range(7)]}),
        )

    return trainer


@pytest.fixture
def run(tmp_path):
    made = create(tmp_path / "run", OmegaConf.create({"recipe": "toys/sft"}))
    yield made
    made.release()


def weights(trainer):
    return {k: v.clone() for k, v in trainer.model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def whole(make, tmp_path_factory):
    """Weights and rows of the uninterrupted training."""
    made = create(tmp_path_factory.mktemp("whole") / "run", OmegaConf.create({"recipe": "toys/sft"}))
    trainer = make()
    train(trainer, made)
    made.release()
    return weights(trainer), (made.path / "metrics.jsonl").read_bytes()


def saved(run):
    return sorted(p.name for p in (run.path / "checkpoints").glob("checkpoint-*"))


class Stop(Exception):
    pass


def at_row(monkeypatch, step, act):
    """Call `act` when the row of `step` is written, once."""
    log, done = Run.log_metrics, []

    def logger(self, row):
        log(self, row)
        if row["step"] == step and not done:
            done.append(step)
            act()

    monkeypatch.setattr(Run, "log_metrics", logger)


def crash():
    raise Stop


@pytest.mark.parametrize("at", [1, 4, 5])
def test_a_trainer_that_crashed_resumes_to_the_same_weights_and_rows(make, run, whole, monkeypatch, at):
    at_row(monkeypatch, at, crash)
    with pytest.raises(Stop):
        train(make(), run)
    trainer = make()
    train(trainer, run)
    assert same(weights(trainer), whole[0])
    assert (run.path / "metrics.jsonl").read_bytes() == whole[1]
    assert saved(run) == ["checkpoint-6", "checkpoint-8"]


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_saves_at_the_end_of_the_step(make, run, whole, monkeypatch, number, error):
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    at_row(monkeypatch, 4, lambda: os.kill(os.getpid(), number))
    with pytest.raises(error) as stop:
        train(make(), run)
    assert number == signal.SIGINT or stop.value.code == 143
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert (run.path / "checkpoints" / "checkpoint-5").exists()  # row 4 is written when step 4 is over
    trainer = make()
    train(trainer, run)
    assert same(weights(trainer), whole[0])
    assert (run.path / "metrics.jsonl").read_bytes() == whole[1]


def test_a_finished_trainer_stays_as_it_is(make, run, whole):
    train(make(), run)
    trainer = make()
    train(trainer, run)
    assert same(weights(trainer), whole[0])
    assert (run.path / "metrics.jsonl").read_bytes() == whole[1]


def test_rows_have_our_form_and_no_clock(make, run):
    train(make(max_steps=2), run)
    rows = run.metrics_rows()
    assert [r["step"] for r in rows] == [1, 2]
    assert {"step", "loss", "lr", "grad_norm"} <= set(rows[0])
    assert not [k for k in rows[0] if "time" in k or "second" in k]


def damage_state(path):
    (path / "trainer_state.json").unlink()


def damage_weights(path):
    os.truncate(path / "model.safetensors", 100)


def damage_optimizer(path):
    os.truncate(path / "optimizer.pt", 1000)


@pytest.mark.parametrize("damage", [damage_state, damage_weights, damage_optimizer])
def test_a_checkpoint_that_was_not_finished_is_passed_over(make, run, whole, monkeypatch, capsys, damage):
    at_row(monkeypatch, 5, crash)
    with pytest.raises(Stop):
        train(make(), run)
    damage(run.path / "checkpoints" / "checkpoint-4")
    trainer = make()
    train(trainer, run)
    assert "checkpoint-4 is not complete" in capsys.readouterr().err
    assert same(weights(trainer), whole[0])


def test_when_no_checkpoint_can_be_read_the_user_decides(make, run, monkeypatch):
    train(make(max_steps=4), run)
    for path in (run.path / "checkpoints").glob("checkpoint-*"):
        damage_weights(path)
    with pytest.raises(DataError, match="no checkpoint can be read: checkpoint-4, checkpoint-2"):
        train(make(), run)


def test_weights_that_overflow_are_not_saved(make, run, monkeypatch):
    def overflow():
        next(iter(trainer.model.parameters())).data.fill_(float("inf"))

    trainer = make()
    at_row(monkeypatch, 3, overflow)
    with pytest.raises(NanError, match=r"not finite|loss is"):
        train(trainer, run)
    assert saved(run) == ["checkpoint-2"]


def test_the_callback_alone_writes_rows_for_a_trainer_of_ones_own(make, run):
    trainer = make(max_steps=3, save_strategy="no")
    trainer.add_callback(RunCallback(run))
    trainer.train()
    assert [json.loads(line)["step"] for line in (run.path / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3]
