"""`kvcache/sink-pretraining` end to end on a few training steps: what is shared, measured, resumed, said."""

import json
import math
import shutil

import pytest
import torch

import tian
from tian.errors import DataError, TianError
from tian.hf.loading import load_model
from tian.runs.rundir import open_existing
from tian_kvcache import reader, sink_table, sink_watch
from tian_kvcache.sink_table_options import TRAININGS
from tian_kvcache.sink_table_report import cells, headline, sections

COLUMNS = ["0+8", "1+7", "2+6", "4+4"]


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    text = tmp_path_factory.mktemp("text") / "text.txt"
    text.write_text("".join(f"{i} what the window loses the sink holds in place\n" for i in range(90)))
    shape = ["lm.vocab_size=300", "lm.d_model=16", "lm.layers=1", "lm.heads=2", "lm.kv_heads=1", "lm.ffn=16"]
    steps = ["trainer.max_steps=2", "trainer.accelerator=cpu", "trainer.log_every=1", "batch=2", "eval_tokens=64"]
    sizes = ["lm.context=16", "cache=8", "tokens=40", "streams=3"]
    return [*shape, *steps, *sizes, f"text.path={text}", f"held_out.path={text}"]


@pytest.fixture(scope="module")
def finished(options, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "sinks"
    return tian.run("kvcache/sink-pretraining", [*options, "compare=[vanilla]"], folder=folder)


def values(result):
    return {(m.name, *m.by.values()): m for m in result.measurements}


def nll(path, name, column):
    kept, recent = column.split("+")
    return reader.load_reading(path / "streams" / f"{name}-{kept}-{recent}.safetensors")[0].nll


def test_every_training_is_read_with_every_number_of_first_tokens(finished):
    found = values(finished)
    assert {k[1:] for k in found if k[0] == "perplexity"} == {(t, c) for t in ("token", "vanilla") for c in COLUMNS}
    assert finished.measurements[0].by == {"training": "token", "cache": "0+8"}  # the studied one comes first


def test_the_numbers_follow_from_the_readings(finished):
    """From the token after the training length on; ratios over the same streams."""
    found = values(finished)
    late = {(t, c): nll(finished.path, t, c)[:, 15:].mean(dim=1) for t in ("token", "vanilla") for c in COLUMNS}
    best = min(COLUMNS, key=lambda c: late["vanilla", c].mean())
    for (name, column), x in late.items():
        assert found["perplexity", name, column].value == pytest.approx(math.exp(x.mean()))
        over = found["perplexity over four kept", name, column]
        gap = x - late[name, "4+4"]
        assert over.value == pytest.approx(math.exp(gap.mean()))
        half = 1.96 * float(gap.std()) / math.sqrt(3)
        assert over.ci95[1] == pytest.approx(math.exp(gap.mean() + half))
        ours = found["perplexity over the best of vanilla", name, column].value
        assert ours == pytest.approx(math.exp((x - late["vanilla", best]).mean()))
    assert min(found["perplexity over the best of vanilla", "vanilla", c].value for c in COLUMNS) == 1


def test_a_reading_equals_one_forward_of_the_saved_model_until_the_cache_is_full(finished):
    from tian.hf.corpus import cut_streams, encode, read_text
    from tian.hf.loading import load_tokenizer
    from tian.hf.options import TextSource

    text = read_text(TextSource(path=finished.config.held_out.path)).text
    tokenizer = load_tokenizer(str(finished.path / "models" / "vanilla"))
    streams = cut_streams(encode(tokenizer, text), first=[], streams=3, tokens=40)
    for name, first in (("token", 0), ("vanilla", None)):
        ids = sink_table.begin_with(streams, first)
        logits = load_model(str(finished.path / "models" / name))(input_ids=ids[:, :8]).logits
        want = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:9], reduction="none")
        torch.testing.assert_close(nll(finished.path, name, "0+8")[:, :8], want.detach(), atol=1e-5, rtol=1e-5)


def test_with_and_without_the_first_token_the_streams_have_the_same_targets():
    ids = torch.arange(1, 13).view(2, 6)
    with_first, without = sink_table.begin_with(ids, 0), sink_table.begin_with(ids, None)
    assert torch.equal(with_first[:, 1:], without[:, 1:])
    assert with_first[:, 0].tolist() == [0, 0]
    assert without[:, 0].tolist() == [1, 7]


def test_each_model_is_the_one_lm_train_makes(finished, options, tmp_path):
    ours = [o for o in options if not o.startswith(("cache", "tokens", "streams"))]
    tian.run("lm/train", [*ours, "lm.first=none", "text.packages=[]"], folder=tmp_path / "run")
    saved = [p / "model.safetensors" for p in (tmp_path / "run" / "model", finished.path / "models" / "vanilla")]
    assert saved[0].read_bytes() == saved[1].read_bytes()


def test_a_sink_in_the_softmax_reaches_the_folder(options, tmp_path):
    result = tian.run(
        "kvcache/sink-pretraining",
        [*options, "training=scalar", "compare=[softmax1]", "tokens=24", "streams=2"],
        folder=tmp_path / "run",
    )
    for name in ("scalar", "softmax1"):
        config = json.loads((tmp_path / "run" / "models" / name / "config.json").read_text())
        assert (config["attention_sink"], config["bos_token_id"]) == (name, None)
    assert "perplexity over the best of vanilla" not in {m.name for m in result.measurements}  # it was not trained


def test_a_run_that_was_stopped_trains_and_reads_only_what_lacks(finished, options, tmp_path, monkeypatch):
    arguments = [*options, "compare=[vanilla]"]
    trained, train = [], sink_table.train_folder

    def once(*args, part, **more):
        trained.append(part)
        if trained == ["token", "vanilla"]:
            raise KeyboardInterrupt
        return train(*args, part=part, **more)

    monkeypatch.setattr(sink_table, "train_folder", once)
    with pytest.raises(KeyboardInterrupt):
        tian.run("kvcache/sink-pretraining", arguments, folder=tmp_path / "run")
    again = tian.run("kvcache/sink-pretraining", resume=tmp_path / "run")
    assert trained == ["token", "vanilla", "vanilla"]
    assert [m.as_dict() for m in again.measurements] == [m.as_dict() for m in finished.measurements]


def test_the_report_says_what_was_measured(finished):
    run = open_existing(finished.path)
    data = run.read_json("sinks.json")
    first, second = sections(run)
    assert first.title == headline(data)
    ours = values(finished)["perplexity", "token", "1+7"].value
    assert f"perplexity {ours:.1f} with 1+7 tokens kept; vanilla at best" in first.title
    assert "<svg" in first.html
    assert all(c in second.html for c in COLUMNS)
    assert f"{ours:.2f}" in cells(data)
    assert (finished.path / "plots" / "sinks.svg").exists()


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("compare=[gated]", "vanilla, softmax1, token, scalar"),
        ("training=gated", "gated"),
        ("lm.sink=scalar", "training="),
        ("cache=4", "cache=32"),
        ("tokens=40", "cache + 16"),
        ("streams=1", ">= 2"),
    ],
)
def test_what_cannot_be_measured_is_refused(override, word):
    with pytest.raises(TianError) as caught:
        tian.compose("kvcache/sink-pretraining", [override])
    assert word in "\n".join(caught.value.lines())


def test_every_training_differs_from_vanilla_in_one_thing():
    plain = TRAININGS["vanilla"]
    changed = {name: sum(a != b for a, b in zip(kind, plain, strict=True)) for name, kind in TRAININGS.items()}
    assert changed == {"vanilla": 0, "softmax1": 1, "token": 1, "scalar": 1}


def test_the_paper_scale_is_a_config_that_asks_for_its_text():
    with pytest.raises(TianError, match=r"text\.path"):
        tian.compose("kvcache/sink-pretraining-160m")
    config, _ = tian.compose("kvcache/sink-pretraining-160m", ["text.path=a.txt", "held_out.path=b.txt"])
    assert config.scale == "paper"
    assert (config.trainer.max_steps, config.batch, config.lm.layers) == (143_000, 256, 12)


def test_models_of_another_run_are_read_and_not_trained_again(finished, options, tmp_path, monkeypatch):
    monkeypatch.setattr(sink_table, "train_folder", None)
    again = tian.run(
        "kvcache/sink-pretraining",
        [*options, "compare=[vanilla]", f"models={finished.path / 'models'}"],
        folder=tmp_path / "run",
    )
    assert [m.as_dict() for m in again.measurements] == [m.as_dict() for m in finished.measurements]


def test_models_that_are_not_there_or_read_other_tokens_are_refused(finished, options, tmp_path):
    with pytest.raises(DataError, match="holds none of the models token, vanilla"):
        tian.run(
            "kvcache/sink-pretraining", [*options, "compare=[vanilla]", f"models={tmp_path}"], folder=tmp_path / "a"
        )
    shutil.copytree(finished.path / "models", tmp_path / "models")
    file = tmp_path / "models" / "vanilla" / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    vocab = tokenizer["model"]["vocab"]
    vocab["x"], vocab["y"] = vocab["y"], vocab["x"]
    file.write_text(json.dumps(tokenizer))
    with pytest.raises(DataError, match="token and vanilla have different tokens"):
        tian.run(
            "kvcache/sink-pretraining",
            [*options, "compare=[vanilla]", f"models={tmp_path / 'models'}"],
            folder=tmp_path / "b",
        )


def test_looks_at_the_first_token_leave_the_training_as_it_is(finished, options, tmp_path, monkeypatch):
    """A row every step; what the last look found stays in the rows between looks, also after a resume."""
    more = ["trainer.max_steps=5", "trainer.checkpoint_every=1", "compare=[]"]
    plain = tian.run("kvcache/sink-pretraining", [*options, *more], folder=tmp_path / "plain")
    watched = tian.run("kvcache/sink-pretraining", [*options, *more, "watch_every=2"], folder=tmp_path / "watched")
    saved = [run.path / "models" / "token" / "model.safetensors" for run in (plain, watched)]
    assert saved[0].read_bytes() == saved[1].read_bytes()
    rows = open_existing(watched.path).metrics_rows()
    mass = [row["first_token_mass"] for row in rows]
    assert mass[0] == 0 < mass[1] == mass[2] != mass[3] == mass[4]
    assert all(m < 1 for m in mass)

    looks, probe = [], sink_watch.probe_first_token

    def once(*args, **kwargs):
        looks.append(len(looks))
        if looks == [0, 1]:
            raise KeyboardInterrupt
        return probe(*args, **kwargs)

    monkeypatch.setattr(sink_watch, "probe_first_token", once)
    arguments = [*options, *more, "watch_every=2"]
    with pytest.raises(KeyboardInterrupt):
        tian.run("kvcache/sink-pretraining", arguments, folder=tmp_path / "cut")
    tian.run("kvcache/sink-pretraining", resume=tmp_path / "cut")
    assert open_existing(tmp_path / "cut").metrics_rows() == rows


def test_the_probe_agrees_with_the_library_about_the_first_token(finished):
    model = load_model(str(finished.path / "models" / "token"))
    ids = torch.arange(1, 15).view(1, 14)
    seen = sink_watch.probe_first_token(model, ids, recent=13).mass[0]
    model.set_attn_implementation("eager")
    with torch.no_grad():
        weights = model(input_ids=ids, output_attentions=True).attentions[0]
    assert seen == pytest.approx(float(weights[0, :, -1, 0].mean()), rel=1e-4)
