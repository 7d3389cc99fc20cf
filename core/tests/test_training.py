"""Training: the order of data, the schedule, and a run that can be stopped anywhere without a trace in the result."""

import json
import math
import os
import signal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tian
from tian.cli.main import main
from tian.errors import DataError, NanError
from tian.hf import lm_train, token_cache
from tian.hf.loading import SHIPPED
from tian.hf.tokenizer import train_tokenizer
from tian.runs.rundir import Run
from tian.training.loader import StepLoader
from tian.training.module import TianModule, lr_share
from tian.training.options import OptimOptions

WORDS = "the cache keeps what the window loses and the sink holds the rest of the stream in place\n"
TINY = [
    "lm.vocab_size=300",
    "lm.d_model=16",
    "lm.layers=1",
    "lm.heads=2",
    "lm.kv_heads=1",
    "lm.ffn=16",
    "lm.context=16",
    "batch=2",
    "eval_tokens=64",
    "trainer.max_steps=6",
    "trainer.checkpoint_every=2",
    "trainer.log_every=1",
    "trainer.accelerator=cpu",
]


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    text = tmp_path_factory.mktemp("text") / "text.txt"
    text.write_text("".join(f"{i} {WORDS}" for i in range(60)), encoding="utf-8")
    return [*TINY, f"text.path={text}", f"held_out.path={text}"]


@pytest.fixture(scope="module")
def trained(options, tmp_path_factory):
    """Six steps without an interruption."""
    return tian.run("lm/train", options, folder=tmp_path_factory.mktemp("lm") / "run")


def weights(path):
    from safetensors.torch import load_file

    return load_file(path / "model" / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def state(path):
    return json.loads((path / "status.json").read_text())["state"]


def stop_at(monkeypatch, step, act):
    """Call `act` when the metrics of `step` are logged, once."""
    log, done = Run.log_metrics, []

    def logger(self, row):
        log(self, row)
        if row["step"] == step and not done:
            done.append(step)
            act()

    monkeypatch.setattr(Run, "log_metrics", logger)


# -- parts -----------------------------------------------------------------------------------------------------------


@given(steps=st.integers(1, 12), taken=st.integers(0, 12))
def test_a_loader_continues_where_its_state_says(steps, taken):
    taken = min(taken, steps)
    whole = [b["i"] for b in StepLoader(lambda i: {"i": i}, steps=steps)]
    assert whole == list(range(steps))
    first = StepLoader(lambda i: {"i": i}, steps=steps)
    iterator = iter(first)
    head = [next(iterator)["i"] for _ in range(taken)]
    second = StepLoader(lambda i: {"i": i}, steps=steps)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert head + [b["i"] for b in second] == whole
    assert len(second) == steps


def test_a_loader_starts_over_after_its_last_batch():
    loader = StepLoader(lambda i: {"i": i}, steps=3)
    assert [b["i"] for b in loader] == [b["i"] for b in loader] == [0, 1, 2]


@given(steps=st.integers(2, 500), warmup=st.floats(0, 0.5), final=st.floats(0, 1), data=st.data())
def test_the_learning_rate_rises_linearly_then_follows_a_cosine(steps, warmup, final, data):
    step = data.draw(st.integers(0, steps))
    rise = max(1, round(steps * warmup))
    got = lr_share(step, steps=steps, warmup=warmup, final=final)
    if step < rise:
        want = (step + 1) / rise
    else:
        want = (1 + final) / 2 + (1 - final) / 2 * math.cos(math.pi * (step - rise) / max(1, steps - rise))
    assert got == pytest.approx(want)
    assert 0 <= got <= 1 + 1e-9


def test_the_schedule_peaks_after_the_warm_up_and_ends_at_its_final_share():
    shares = [lr_share(s, steps=50, warmup=0.2, final=0.1) for s in range(51)]
    assert shares[9] == shares[10] == max(shares) == 1
    assert shares[50] == pytest.approx(0.1)
    assert shares[10:] == sorted(shares[10:], reverse=True)


def test_weight_decay_spares_vectors_and_frozen_parameters_are_left_out():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LayerNorm(3), torch.nn.Linear(3, 3))
    model[2].requires_grad_(False)
    made = TianModule(model, optim=OptimOptions(weight_decay=0.3), steps=5).configure_optimizers()
    decayed, spared = made["optimizer"].param_groups
    assert [p.shape for p in decayed["params"]] == [(3, 3)]
    assert decayed["weight_decay"] == 0.3
    assert [p.dim() for p in spared["params"]] == [1, 1, 1]
    assert spared["weight_decay"] == 0


# -- lm/train --------------------------------------------------------------------------------------------------------


def test_what_is_trained_loads_with_transformers_and_brings_its_card(trained):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = trained.path / "model"
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    assert model.config.model_type == "llama"
    assert tokenizer.decode(tokenizer(WORDS, add_special_tokens=False)["input_ids"]) == WORDS
    assert len(tokenizer) == model.config.vocab_size
    card = json.loads((folder / "card.json").read_text())
    measured = {m.name: m.value for m in trained.measurements}
    assert card["held_out_perplexity"] == pytest.approx(measured["held-out perplexity"])
    assert card["recipe"]["trainer"]["max_steps"] == 6
    shipped = json.loads((SHIPPED / "card.json").read_text())
    assert {k: set(v) for k, v in card["recipe"].items() if isinstance(v, dict)} == {
        k: set(v) for k, v in shipped["recipe"].items() if isinstance(v, dict)
    }
    from tian.hf.lm_train import file_sha256

    assert card["weights_sha256"] == file_sha256(folder / "model.safetensors")


def test_the_run_logs_each_step_and_draws_a_report(trained):
    rows = [json.loads(line) for line in (trained.path / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert "Held-out perplexity" in (trained.path / "report.html").read_text()
    assert len(list((trained.path / "checkpoints").glob("*.ckpt"))) == 2


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(trained, options, tmp_path):
    again = tian.run("lm/train", options, folder=tmp_path / "again").path
    other = tian.run("lm/train", [*options, "seed=1"], folder=tmp_path / "other").path
    assert same(weights(again), weights(trained.path))
    assert not same(weights(other), weights(trained.path))


class Stop(Exception):
    pass


@pytest.mark.parametrize("step", [1, 3, 4, 5])
def test_training_that_was_cut_off_resumes_to_the_same_weights(trained, options, tmp_path, monkeypatch, step):
    def crash():
        raise Stop

    stop_at(monkeypatch, step, crash)
    with pytest.raises(Stop):
        tian.run("lm/train", options, folder=tmp_path / "run")
    assert state(tmp_path / "run") == "failed"
    assert not (tmp_path / "run" / "model").exists()
    tian.run("lm/train", resume=tmp_path / "run")
    assert state(tmp_path / "run") == "finished"
    assert same(weights(tmp_path / "run"), weights(trained.path))
    for name in ("metrics.jsonl", "metrics.json"):  # no step is logged twice
        assert (tmp_path / "run" / name).read_text() == (trained.path / name).read_text()


def test_a_finished_training_can_be_resumed_and_stays_the_same(trained, options, tmp_path):
    path = tian.run("lm/train", options, folder=tmp_path / "run").path
    tian.run("lm/train", resume=path)
    assert same(weights(path), weights(trained.path))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "terminated"]
)
def test_a_signal_interrupts_training_and_resuming_leaves_no_trace(
    trained, options, tmp_path, monkeypatch, capsys, number, code
):
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    stop_at(monkeypatch, 3, lambda: os.kill(os.getpid(), number))
    try:
        got = main(["run", "lm/train", *options, "--dir", str(tmp_path / "run")])
        after = signal.getsignal(signal.SIGINT)
    finally:
        for n, handler in handlers.items():
            signal.signal(n, handler)
    assert got == code
    assert after is handlers[signal.SIGINT]  # a second Ctrl-C still works
    assert state(tmp_path / "run") == "interrupted"
    err = capsys.readouterr().err
    assert "--resume" in err
    assert "Traceback" not in err
    assert main(["run", "lm/train", "--resume", str(tmp_path / "run")]) == 0
    signal.signal(signal.SIGTERM, handlers[signal.SIGTERM])
    assert same(weights(tmp_path / "run"), weights(trained.path))


def test_ctrl_c_in_the_python_api_is_a_keyboard_interrupt(options, tmp_path, monkeypatch):
    def press():
        raise KeyboardInterrupt

    stop_at(monkeypatch, 2, press)
    with pytest.raises(KeyboardInterrupt):
        tian.run("lm/train", options, folder=tmp_path / "run")
    assert state(tmp_path / "run") == "interrupted"


def test_a_loss_that_is_not_finite_ends_the_run_with_advice(options, tmp_path, monkeypatch, capsys):
    step = TianModule.training_step

    def nan_at_four(self, batch, index):
        loss = step(self, batch, index)
        if self.trainer.global_step == 3:
            loss = loss * float("nan")
            self.last_loss = loss.detach()
        return loss

    monkeypatch.setattr(TianModule, "training_step", nan_at_four)
    assert main(["run", "lm/train", *options, "--dir", str(tmp_path / "run")]) == NanError.exit_code == 6
    err = capsys.readouterr().err
    assert "error: the training loss is nan at step 4" in err
    assert "lower optim.lr" in err
    assert "Traceback" not in err
    assert state(tmp_path / "run") == "failed"
    # The last checkpoint is of a step before: resuming with the cause gone works.
    monkeypatch.undo()
    assert main(["run", "lm/train", "--resume", str(tmp_path / "run")]) == 0


def test_a_rare_log_does_not_let_nan_weights_into_a_checkpoint(options, tmp_path, monkeypatch):
    step = TianModule.training_step
    monkeypatch.setattr(TianModule, "training_step", lambda self, b, i: step(self, b, i) * float("nan"))
    with pytest.raises(NanError):
        tian.run("lm/train", [*options, "trainer.log_every=100"], folder=tmp_path / "run")
    assert list((tmp_path / "run").glob("checkpoints/*.ckpt")) == []


def test_weights_that_just_overflowed_do_not_get_into_a_checkpoint(options, tmp_path, monkeypatch):
    """The loss of the step was still finite: only the weights tell."""
    step = torch.optim.AdamW.step
    calls = []

    def overflow(self, *args, **kwargs):
        out = step(self, *args, **kwargs)
        calls.append(1)
        if len(calls) == 4:
            self.param_groups[0]["params"][0].data.fill_(float("inf"))
        return out

    monkeypatch.setattr(torch.optim.AdamW, "step", overflow)
    with pytest.raises(NanError, match="weight is not finite after step 4"):
        tian.run("lm/train", options, folder=tmp_path / "run")
    assert [p.name for p in (tmp_path / "run").glob("checkpoints/*.ckpt")] == ["step-0000002.ckpt"]


def test_too_little_text_is_refused_before_training(options, tmp_path):
    with pytest.raises(DataError, match="less than two samples"):
        tian.run("lm/train", [*options, "lm.context=100000"], folder=tmp_path / "run")


@settings(max_examples=20)
@given(step=st.integers(0, 10_000), seed=st.integers(0, 1000))
def test_a_batch_is_a_function_of_seed_and_step(step, seed):
    from tian.hf.small_lm import training_batch

    def make(step, seed):
        stream = torch.arange(1, 500)
        return training_batch(stream, step, batch=4, context=32, bos_id=0, copy_share=0.5, seed=seed)["input_ids"]

    first = make(step, seed)
    assert first.shape == (4, 32)
    assert (first[:, 0] == 0).all()
    assert torch.equal(first, make(step, seed))
    assert not torch.equal(first, make(step + 1, seed))
    assert not torch.equal(first, make(step, seed + 1))


@pytest.mark.parametrize(
    ("override", "code", "word"),
    [("trainer.accelerator=gpu", 4, "trainer.accelerator=cpu"), ("trainer.precision=17-odd", 5, "tian show lm/train")],
)
def test_a_trainer_that_cannot_be_built_is_an_input_error(options, tmp_path, capsys, override, code, word):
    if override.endswith("gpu") and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert main(["run", "lm/train", *options, override, "--dir", str(tmp_path / "run")]) == code
    assert word in capsys.readouterr().err


def test_lm_train_refuses_more_than_one_process_before_it_reads_the_text(tmp_path, capsys):
    argv = ["run", "lm/train", "trainer.devices=2", "text.path=absent", "--dir", str(tmp_path / "run")]
    assert main(argv) == 5
    err = capsys.readouterr().err
    assert "lm/train runs in one process, got trainer.devices=2" in err
    assert "docs/training.md" in err


def test_a_text_is_encoded_once_and_in_pieces(tmp_path, monkeypatch):
    """The ids of a second training come from the cache; pieces are handed over in groups, and none is lost."""
    text = "".join(f"{i} {WORDS}" for i in range(500))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(lm_train, "CHUNK", 100)
    monkeypatch.setattr(lm_train, "PIECES", 3)
    monkeypatch.setattr(token_cache, "LEAST", 10)
    tokenizer = train_tokenizer([text[:4000]], vocab_size=300)
    pieces = [text[i : i + 100] for i in range(0, len(text), 100)]
    expected = [t for piece in pieces for t in tokenizer(piece, add_special_tokens=False)["input_ids"]]
    assert lm_train.encode_pieces(tokenizer, text).tolist() == expected

    (tmp_path / "text.txt").write_text(text)
    options = [*TINY, "trainer.max_steps=1", f"text.path={tmp_path}/text.txt", f"held_out.path={tmp_path}/text.txt"]
    first = tian.run("lm/train", options, folder=tmp_path / "first")
    monkeypatch.setattr(lm_train, "encode_pieces", None)
    second = tian.run("lm/train", options, folder=tmp_path / "second")
    assert same(weights(first.path), weights(second.path))
