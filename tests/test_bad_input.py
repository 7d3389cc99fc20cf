"""What a user can get wrong: one clear message, the documented exit code, earlier results untouched."""

import json
import shutil
import subprocess
import sys

import pytest

from tian.cli.main import main
from tian.hf.loading import SHIPPED

SMALL = ["tokens=16", "streams=1", "compare=[]", "checks=false", "threads=1"]
HOLD = """
import fcntl, os, sys
with open(sys.argv[1], "w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    file.write(f"pid {os.getpid()}")
    file.flush()
    print("held", flush=True)
    sys.stdin.read()
"""


def content(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """A finished run, and what is in it."""
    import tian

    root = tmp_path_factory.mktemp("earlier")
    (root / "text.txt").write_text("Better three hours too soon than a minute too late. " * 20, encoding="utf-8")
    path = tian.run("kvcache/stream", [*SMALL, f"text.path={root / 'text.txt'}"], root=root / "runs").path
    return root, path, content(path)


@pytest.fixture(autouse=True)
def workplace(earlier, monkeypatch):
    """Every test works beside the finished run, which must be the same afterwards."""
    root, path, before = earlier
    monkeypatch.chdir(root)
    yield
    assert content(path) == before


@pytest.fixture
def copy(earlier, tmp_path):
    """A copy of the finished run, to be damaged."""
    return shutil.copytree(earlier[1], tmp_path / "copy")


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("The quick brown fox jumps over the lazy dog. " * 20, encoding="utf-8")
    return path


def error_of(capsys, argv, code):
    """Run the command, which must fail with `code`; what it said as (what, where, do)."""
    got = main([str(a) for a in argv])
    out, err = capsys.readouterr()
    assert got == code, err
    assert out == ""
    assert "Traceback" not in err
    lines = err.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("error: "))
    assert len(lines) == start + 3, err
    what, where, do = lines[start:]
    assert where.startswith("  where: ")
    assert do.startswith("  do:    ")
    found = what.removeprefix("error: "), where.removeprefix("  where: "), do.removeprefix("  do:    ")
    assert all(part.strip() for part in found)
    return found


# -- names, keys and values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "what", "near"),
    [
        (["run", "kvcache/straem"], "kvcache/straem", "kvcache/stream"),
        (["run", "kvcahce/stream"], "kvcahce/stream", "kvcache/stream"),
        (["config", "demmo"], "demmo", "kvcache/demo"),
        (["list", "kv_polcy"], "kv_polcy", "kv_policy"),
        (["show", "kvcache/streeming"], "kvcache/streeming", "kvcache/streaming"),
        (["run", "kvcache/stream", "kv=streeming"], "streeming", "streaming"),
        (["run", "kvcache/stream", "kv.use=kvcahe/window"], "kvcahe/window", "kvcache/window"),
        (["run", "kvcache/stream", "kv.recnt=3"], "kv.recnt", "recent"),
        (["run", "kvcache/stream", "tokns=30"], "tokns", "tokens"),
        (["run", "kvcache/stream", "model.pth=x"], "model.pth", "path"),
        (["run", "kvcache/stream", "~tokns"], "tokns", "tokens"),
        (["runn", "kvcache/stream"], "runn", "run"),
    ],
)
def test_an_unknown_name_gets_the_nearest_one(capsys, argv, what, near):
    found = error_of(capsys, argv, 2)
    assert repr(what) in found[0]
    assert near in found[2]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("tokens=many", "must be int, got 'many' (str)"),
        ("tokens=1.5", "must be int, got 1.5 (float)"),
        ("checks=3", "must be bool, got 3 (int)"),
        ("kv.recent=true", "must be int, got True (bool)"),
        ("seed=x", "must be int, got 'x' (str)"),
        ("compare=full", "must be list"),
        ("text.packages=[1]", "must be list[str]"),
    ],
)
def test_a_value_of_the_wrong_type_is_quoted_with_the_type_that_is_right(capsys, override, words):
    what, where, _ = error_of(capsys, ["run", "kvcache/stream", override], 2)
    assert words in what
    assert where == f"override {override!r}"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("kv.recent=0", "recent must be >= 1"),
        ("kv.sinks=-1", "sinks must be >= 0"),
        ("tokens=4", "tokens must be >= 16"),
        ("streams=0", "streams must be >= 1"),
        ("save_every=0", "save_every must be > 0"),
        ("compare=[windo]", "windo"),
    ],
)
def test_a_value_out_of_range_is_refused_before_anything_is_read(capsys, override, words):
    what, where, _ = error_of(capsys, ["run", "kvcache/stream", override], 5)
    assert words in what
    assert where == f"override {override!r}"


@pytest.mark.parametrize("argument", ["tokens", "=3", "a b=3", "tokens=[1", "+", "~", "~a=3"])
def test_what_is_no_override_is_told_how_one_looks(capsys, argument):
    what, where, _ = error_of(capsys, ["run", "kvcache/stream", argument], 2)
    assert repr(argument) in what
    assert where == "command line"


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["run"],
        ["run", "--nonsense"],
        ["run", "kvcache/stream", "--dry-run", "tokens=20", "--nonsense"],
        ["report", "a", "--out"],
        ["claims", "--scale", "huge"],
        ["new-plugin", "x", "--role", "poet"],
        ["report"],
        ["run", "kvcache/stream", "--dir"],
    ],
)
def test_a_bad_command_line_is_one_message_and_not_a_usage_dump(capsys, argv):
    assert "--help" in error_of(capsys, argv, 2)[2]


def test_overrides_may_stand_before_and_behind_options(capsys):
    assert main(["run", "kvcache/stream", "tokens=20", "--dry-run", "streams=3", "--json", "kv.recent=5"]) == 0
    config = json.loads(capsys.readouterr().out)["config"]
    assert (config["tokens"], config["streams"], config["kv"]["recent"]) == (20, 3, 5)


# -- text and model --------------------------------------------------------------------------------------------------


def _missing(path):
    path.unlink()


def _empty(path):
    path.write_text("")


def _blank(path):
    path.write_text(" \n" * 100)


def _latin1(path):
    path.write_bytes(b"x" * 100 + "ü".encode("latin-1") + b"x" * 100)


def _folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_missing, "does not exist"),
        (_empty, "holds 0 characters"),
        (_blank, "holds 0 characters"),
        (_latin1, "not UTF-8: byte 100 is 0xfc"),
        (_folder, "holds no .txt file"),
    ],
)
def test_a_text_that_cannot_be_read(capsys, text, tmp_path, harm, words):
    harm(text)
    argv = ["run", "kvcache/stream", f"text.path={text}", *SMALL, "--dir", tmp_path / "run"]
    what, where, _ = error_of(capsys, argv, 5)
    assert str(text) in what
    assert words in what
    assert where == "text.path"
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "failed"


def test_a_text_from_a_package_that_is_not_installed(capsys, tmp_path):
    argv = ["run", "kvcache/stream", "text.packages=[no_such_package]", *SMALL, "--dir", tmp_path / "run"]
    assert "'no_such_package'" in error_of(capsys, argv, 5)[0]


def _no_model(path):
    shutil.rmtree(path)


def _file(path):
    shutil.rmtree(path)
    path.write_text("a model")


def _no_tokenizer(path):
    (path / "tokenizer.json").unlink()


def _no_config(path):
    (path / "config.json").unlink()


def _config_not_json(path):
    (path / "config.json").write_text("{'model_type': 'llama'")


def _config_binary(path):
    (path / "config.json").write_bytes(b"\xff\xfe\x00")


def _config_list(path):
    (path / "config.json").write_text("[1, 2]")


def _torn_tokenizer(path):
    (path / "tokenizer.json").write_text('{"version": "1.0", "mod')


def _no_weights(path):
    (path / "model.safetensors").unlink()


def _truncated(path):
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def _lacking(path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(path / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


def _other_shape(path):
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"intermediate_size": 100}))


def _torn_index(path):
    (path / "model.safetensors.index.json").write_text('{"weight_')


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_no_model, "does not exist"),
        (_file, "is a file"),
        (_no_tokenizer, "has no tokenizer"),
        (_torn_tokenizer, "tokenizer"),
        (_no_config, "has no config.json"),
        (_config_not_json, "not valid JSON"),
        (_config_binary, "not valid JSON"),
        (_config_list, "model_type"),
        (_no_weights, "no .safetensors weights"),
        (_truncated, "truncated or damaged"),
        (_lacking, "model.layers.1.mlp.up_proj.weight"),
        (_other_shape, "cannot be loaded"),
        (_torn_index, "index"),
    ],
)
def test_a_model_folder_that_cannot_be_used(capsys, text, tmp_path, harm, words):
    model = shutil.copytree(SHIPPED, tmp_path / "model")
    harm(model)
    argv = ["run", "kvcache/stream", f"model.path={model}", f"text.path={text}", *SMALL, "--dir", tmp_path / "run"]
    what, where, _ = error_of(capsys, argv, 5)
    assert words in what
    assert str(model) in f"{what} {where}"


def saved(model, folder):
    """A model folder with the tokenizer of the shipped model."""
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(SHIPPED / name, folder / name)
    return folder


def test_an_architecture_that_is_not_supported(capsys, text, tmp_path):
    from transformers import BloomConfig, BloomForCausalLM

    model = saved(BloomForCausalLM(BloomConfig(vocab_size=1024, hidden_size=16, n_layer=1, n_head=2)), tmp_path / "m")
    argv = ["run", "kvcache/stream", f"model.path={model}", f"text.path={text}", *SMALL, "--dir", tmp_path / "run"]
    what, _, do = error_of(capsys, argv, 4)
    assert "bloom" in what
    assert "llama" in f"{what} {do}"  # what is supported is said


def test_learned_positions_that_would_have_to_move(capsys, text, tmp_path):
    from transformers import OPTConfig, OPTForCausalLM

    size = {"vocab_size": 1024, "hidden_size": 16, "ffn_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = saved(OPTForCausalLM(OPTConfig(**size, word_embed_proj_dim=16)), tmp_path / "opt")
    argv = ["run", "kvcache/stream", f"model.path={model}", f"text.path={text}", *SMALL]
    what, _, do = error_of(capsys, [*argv, "--dir", tmp_path / "a"], 4)
    assert "learned positions (table of 2048)" in what
    assert "kv.positions=original" in do
    followed = [*argv, "kv=h2o", "kv.heavy=8", "kv.recent=8", "kv.positions=original", "compare=[]"]
    assert main([str(a) for a in [*followed, "--dir", tmp_path / "b"]]) == 0


@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
def test_a_device_that_is_not_there(capsys, text, tmp_path, device):
    argv = ["run", "kvcache/stream", f"device={device}", f"text.path={text}", *SMALL, "--dir", tmp_path / "run"]
    what, _, do = error_of(capsys, argv, 4)
    assert repr(device) in what
    assert "device=cpu" in do


# -- directories -----------------------------------------------------------------------------------------------------


def test_an_existing_run_is_not_overwritten(capsys, earlier):
    what, _, do = error_of(capsys, ["run", "kvcache/stream", *SMALL, "--dir", earlier[1]], 6)
    assert "already holds a run" in what
    assert "--resume" in do


def test_a_folder_with_foreign_files_stays_as_it_is(capsys, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert "not a run's" in error_of(capsys, ["run", "kvcache/stream", *SMALL, "--dir", tmp_path], 6)[0]
    assert content(tmp_path) == {"thesis.tex": b"years of work"}


@pytest.mark.parametrize("below", [(), ("a",), ("a", "b")])
def test_a_file_is_not_a_place_for_a_run(capsys, text, below):
    before = text.read_bytes()
    what, _, _ = error_of(capsys, ["run", "kvcache/stream", *SMALL, "--dir", text.joinpath(*below)], 6)
    assert f"{text} is a file" in what
    assert text.read_bytes() == before


@pytest.mark.parametrize("command", [["run", "kvcache/stream", "--resume"], ["report"]])
@pytest.mark.parametrize("what", ["absent", "empty", "file"])
def test_what_is_no_run_cannot_be_continued_or_reported(capsys, text, tmp_path, command, what):
    (tmp_path / "empty").mkdir()
    place = {"absent": tmp_path / "absent", "empty": tmp_path / "empty", "file": text}[what]
    assert str(place) in error_of(capsys, [*command, place], 5)[0]
    assert not (tmp_path / "absent").exists()
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_run_of_another_name_is_continued_by_the_command_that_is_given(capsys, copy):
    before = content(copy)
    _, _, do = error_of(capsys, ["run", "kvcache/demo", "--resume", copy], 2)
    assert do == f"tian run kvcache/stream --resume {copy}"
    assert content(copy) == before


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("status.json", b'{"state": "fini'),
        ("status.json", b""),
        ("status.json", b"[]"),
        ("status.json", b'{"format": 1}'),
        ("status.json", b"\xff\xfe"),
        ("config.yaml", b"recipe: [1,\nb: }\n"),
        ("config.yaml", b""),
        ("config.yaml", b"- recipe\n"),
    ],
)
def test_a_damaged_run_is_named_and_left_alone(capsys, copy, name, damage):
    (copy / name).write_bytes(damage)
    before = content(copy)
    _, where, do = error_of(capsys, ["run", "kvcache/stream", "--resume", copy], 5)
    assert where == str(copy)
    assert do == "start a new run"
    assert content(copy) == before


def test_a_run_of_a_newer_format_is_refused(capsys, copy):
    status = json.loads((copy / "status.json").read_text())
    (copy / "status.json").write_text(json.dumps(status | {"format": 99}))
    assert "99" in error_of(capsys, ["run", "kvcache/stream", "--resume", copy], 7)[0]


@pytest.mark.parametrize("more", [["tokens=32"], ["--dir", "elsewhere"]])
def test_a_continued_run_keeps_its_own_config(capsys, copy, more):
    assert "its own config" in error_of(capsys, ["run", "kvcache/stream", *more, "--resume", copy], 2)[0]


def test_there_is_no_last_run_to_continue(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert error_of(capsys, ["run", "kvcache/stream", "--resume"], 5)[2] == "start one: tian run kvcache/stream"
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_a_living_process_is_busy_and_one_of_a_dead_process_is_taken_over(capsys, copy):
    before = content(copy)
    argv = [sys.executable, "-c", HOLD, str(copy / "lock")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout.readline() == "held\n"
        try:
            what, where, _ = error_of(capsys, ["run", "kvcache/stream", "--resume", copy], 7)
            assert f"pid {owner.pid}" in what
            assert where == str(copy)
            after = content(copy)
            del before["lock"], after["lock"]
            assert after == before
        finally:
            owner.kill()
    assert (copy / "lock").read_text() == f"pid {owner.pid}"  # what a dead owner leaves
    assert main(["run", "kvcache/stream", "--resume", str(copy)]) == 0
    assert json.loads((copy / "status.json").read_text())["state"] == "finished"


# -- JSON ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "name", "code"),
    [
        (["run", "kvcache/stream", "kv.recent=0", "--json"], "InvalidInput", 5),
        (["run", "kvcache/stream", "kv.recnt=0", "--json"], "ConfigError", 2),
        (["list", "kv_polcy", "--json"], "UnknownName", 2),
        (["report", "nowhere", "--json"], "DataError", 5),
        (["runn", "--json"], "ConfigError", 2),
    ],
)
def test_json_prints_the_error_as_json_too(capsys, argv, name, code):
    assert main(argv) == code
    out, err = capsys.readouterr()
    error = json.loads(out)["error"]
    assert error["class"] == name
    assert error["exit_code"] == code
    lines = [f"error: {error['message']}", f"  where: {error['where']}", f"  do:    {error['hint']}"]
    assert err.splitlines()[-3:] == lines
