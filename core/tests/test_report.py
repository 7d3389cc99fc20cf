"""report.html: one page that needs nothing else, says nothing the data does not, and can be drawn again."""

import re
import shutil
from html.parser import HTMLParser

import pytest
from omegaconf import OmegaConf

from tian.cli.main import main
from tian.errors import DataError
from tian.files import write_atomic
from tian.runs.html import table
from tian.runs.report import measurement_rows, page, render
from tian.runs.rundir import Run
from tian.types import Measurement, Section

NASTY = "<script>alert('x')</script> & \"quotes\""
VOID = {"meta", "br", "hr", "path", "use", "input"}


class Reader(HTMLParser):
    """Checks that tags close, and collects text, tags and attributes."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attrs, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attrs += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parse(text):
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    return reader


@pytest.fixture
def run(tmp_path):
    """A run directory with hostile words wherever a user or a library has a say."""
    made = Run(tmp_path, OmegaConf.create({"recipe": "nobody/thing", "note": NASTY}))
    write_atomic(tmp_path / "config.yaml", OmegaConf.to_yaml(made.config))
    made.set_status("failed", name="nobody/thing", command=f"tian run {NASTY}", error=NASTY)
    rows = [
        Measurement(NASTY, 1.5, NASTY, 3, (1.0, 2.0), by={"policy": NASTY}).as_dict(),
        Measurement("loss", float("nan"), "1").as_dict(),
    ]
    made.write_json("metrics.json", rows)
    made.write_json("provenance.json", {"python": NASTY})
    return made


def test_what_users_and_libraries_say_is_text_and_never_markup(run):
    html = page(run, [Section(f"title {NASTY}", "<p>fine</p><!--plot--><svg></svg>")])
    reader = parse(html)
    assert "script" not in reader.tags
    whole = "".join(reader.text)
    # command, error, title, config, provenance, and three cells: each is shown as it is
    assert whole.count("<script>alert('x')</script>") >= 8
    assert "This run is failed." in whole
    assert "nan" in whole


def test_the_page_needs_no_other_file(run):
    html = page(run, [Section("a", "<p>a</p><!--plot--><svg></svg>"), Section("b", "<p>b</p>")])
    reader = parse(html)
    assert not {"link", "img", "iframe", "script", "object", "embed"} & set(reader.tags)
    assert not [v for k, v in reader.attrs if k in ("src", "href", "xlink:href") and not str(v).startswith("#")]
    assert not re.search(r"url\((?!#)|@import", html)


def test_the_first_section_is_the_first_screen(run):
    html = page(
        run, [Section("the answer", "<p>text</p><!--plot--><svg id='plot'></svg>"), Section("more", "<p>x</p>")]
    )
    assert "<h1>the answer</h1>" in html
    assert (
        html.index("<p>text</p>") < html.index("Reproduce it") < html.index("id='plot'") < html.index("<h2>more</h2>")
    )


def test_a_run_without_sections_has_a_page_all_the_same(run):
    assert "<h1>nobody/thing</h1>" in page(run, [])


def test_cells_are_escaped_and_intervals_written_out(run):
    assert "&lt;b&gt;" in table(["<b>"], [["<i>"]])
    assert "<i>" not in table(["<b>"], [["<i>"]])
    assert measurement_rows(run.read_json("metrics.json"))[0][2] == "1.5 [1, 2]"


def test_report_draws_the_page_again(run, capsys):
    first = render(run.path)
    before = first.read_text(encoding="utf-8")
    first.write_text("gone")
    assert main(["report", str(run.path)]) == 0
    assert capsys.readouterr().out.strip() == str(first)
    assert first.read_text(encoding="utf-8") == before
    run.set_status("finished", error=None)
    assert main(["report", str(run.path), "--json"]) == 0
    assert "This run is" not in first.read_text(encoding="utf-8")


def test_a_moved_run_can_still_be_reported(run, tmp_path_factory):
    place = shutil.copytree(run.path, tmp_path_factory.mktemp("moved") / "elsewhere")
    assert render(place).parent == place


def test_what_is_no_run_has_no_report(tmp_path):
    with pytest.raises(DataError, match="not a run directory"):
        render(tmp_path)


def test_a_plugin_that_fails_in_its_sections_does_not_cost_the_report(run, install_plugin):
    source = "from tian import hookimpl\n@hookimpl\ndef tian_report_sections(run):\n    raise OSError('no section')\n"
    install_plugin("dist-sour", modules={"sour_plug.py": source}, entry_points={"sour": "sour_plug"})
    assert "<h1>nobody/thing</h1>" in render(run.path).read_text(encoding="utf-8")
