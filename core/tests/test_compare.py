"""`tian report A B`: what differs between runs, in words, as JSON and on a page."""

import json

import pytest
from omegaconf import OmegaConf
from test_report import NASTY, parse

from tian.cli.main import main
from tian.files import write_atomic
from tian.runs.compare import change, config_diff, leaves, metric_diff
from tian.runs.rundir import create
from tian.types import Measurement


def make(path, config, measurements, rows=()):
    run = create(path, OmegaConf.create({"recipe": "toy/measure", **config}))
    write_atomic(path / "config.yaml", OmegaConf.to_yaml(run.config))
    run.set_status("finished", name="toy/measure")
    run.write_json("metrics.json", [m.as_dict() for m in measurements])
    for row in rows:
        run.log_metrics(row)
    run.release()
    return run


@pytest.fixture
def runs(tmp_path):
    curve = [{"step": s, "loss": 1.0 / s} for s in (1, 2, 3)]
    a = make(
        tmp_path / "a",
        {"lr": 0.1, "kv": {"use": "x", "n": 1}, "same": [1, 2]},
        [Measurement("loss", 2.0, n=4, ci95=(1.5, 2.5)), Measurement(NASTY, 1.0)],
        curve,
    )
    b = make(
        tmp_path / "b",
        {"lr": 0.2, "kv": {"use": NASTY}, "same": [1, 2]},
        [Measurement("loss", 3.0), Measurement("new", float("nan"), by={"of": "b"})],
        curve,
    )
    return a, b


def test_only_what_differs_is_listed_with_its_value_in_each_run(runs):
    assert config_diff(runs) == {"lr": [0.1, 0.2], "kv.use": ["x", NASTY], "kv.n": [1, None]}
    assert config_diff([runs[0], runs[0]]) == {}


def test_measurements_are_paired_by_name_and_labels(runs):
    rows = {m["name"]: m["runs"] for m in metric_diff(runs)}
    assert [c["value"] for c in rows["loss"]] == [2.0, 3.0]
    assert rows["new"][0] is None
    assert rows[NASTY][1] is None


@pytest.mark.parametrize(
    ("first", "other", "text"),
    [({"value": 2.0}, {"value": 3.0}, "x1.5"), ({"value": 0.0}, {"value": 3.0}, ""), (None, {"value": 1.0}, "")],
)
def test_a_change_is_a_factor_where_there_is_one(first, other, text):
    assert change(first, other) == text


def test_leaves_keep_lists_and_empty_mappings_whole():
    assert leaves({"a": {}, "b": [1], "c": {"d": {"e": None}}}) == {"a": {}, "b": [1], "c.d.e": None}


def test_the_command_prints_and_draws_the_comparison(runs, tmp_path, capsys):
    page = tmp_path / "both.html"
    argv = ["report", str(runs[0].path), str(runs[1].path), "--out", str(page)]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert [line.split() for line in out.splitlines() if line.split()[:1] == ["lr"]] == [["lr", "0.1", "0.2"]]
    assert [line.split() for line in out.splitlines() if line.split()[:1] == ["loss"]] == [["loss", "2", "3", "x1.5"]]
    reader = parse(page.read_text(encoding="utf-8"))
    text = " ".join(reader.text)
    assert "3 settings differ" in text
    assert "2 [1.5, 2.5]" in text
    assert "x1.5" in text
    assert NASTY in text
    assert "script" not in reader.tags
    assert reader.tags.count("svg") == 1  # the loss of both
    assert main([*argv, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["config"]["lr"] == [0.1, 0.2]
    assert answer["page"] == str(page)


def test_plugins_add_sections_to_a_comparison(runs, tmp_path, install_plugin, capsys):
    source = (
        "from tian import hookimpl\nfrom tian.types import Section\n"
        "@hookimpl\ndef tian_compare_sections(runs):\n    return [Section(f'{len(runs)} seen', '<p>from a plugin</p>')]\n"
    )
    install_plugin("dist-adds", modules={"adds.py": source}, entry_points={"adds": "adds"})
    page = tmp_path / "both.html"
    assert main(["report", *(str(r.path) for r in runs), "--out", str(page)]) == 0
    text = " ".join(parse(page.read_text(encoding="utf-8")).text)
    assert "2 seen" in text
    assert "from a plugin" in text


def test_what_cannot_be_compared_is_refused(runs, tmp_path, capsys):
    a, b = (str(r.path) for r in runs)
    for argv, code, word in [
        ([a, a], 5, "named twice"),
        ([a, str(tmp_path / "nothing")], 5, "not a directory"),
        ([a, b, "--out", str(tmp_path / "no" / "folder.html")], 5, "choose another --out"),
        ([a, "--out", "x.html"], 2, "--out is for comparisons"),
    ]:
        assert main(["report", *argv]) == code
        err = capsys.readouterr().err
        assert word in err
        assert "Traceback" not in err
