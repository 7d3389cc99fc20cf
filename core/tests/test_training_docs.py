"""docs/training.md runs as printed."""

import re
from pathlib import Path

import pytest

import tian
from tian.runs.rundir import Run

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
FILES = {n: f"# {n}\n{t}" for n, t in re.findall(r"^```(?:python|yaml)\n# (src/\S+)\n(.*?)^```", PAGE, re.M | re.S)}


@pytest.fixture
def line(install_plugin):
    modules = {name.removeprefix("src/"): text for name, text in FILES.items()}
    install_plugin(
        "tian-plugin-line",
        modules={"tian_line/__init__.py": "", "tian_line/conf/__init__.py": "", **modules},
        entry_points={"line": "tian_line.plugin"},
    )


class Stop(Exception):
    pass


def test_the_plugin_of_the_page_trains_and_resumes_without_a_trace(line, tmp_path, monkeypatch):
    assert len(FILES) == 4
    whole = tian.run("line/train", folder=tmp_path / "whole")
    assert whole.measurements[0].value == pytest.approx(3, abs=0.2)
    log = Run.log_metrics

    def crash(self, row):
        log(self, row)
        if row["step"] == 50:
            raise Stop

    monkeypatch.setattr(Run, "log_metrics", crash)
    with pytest.raises(Stop):
        tian.run("line/train", folder=tmp_path / "run")
    monkeypatch.undo()
    tian.run("line/train", resume=tmp_path / "run")
    for name in ("metrics.json", "metrics.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_every_file_and_option_that_the_page_names_exists(line):
    from dataclasses import fields

    from tian.training.options import TrainerOptions

    named = set(re.findall(r"`trainer\.(\w+)", PAGE)) - {"add_callback"}
    assert named <= {f.name for f in fields(TrainerOptions)}
    assert {"strategy", "loggers", "devices", "max_steps", "clip"} <= named
