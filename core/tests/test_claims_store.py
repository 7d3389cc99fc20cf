"""What results depend on, what is kept of them, and when that is stale."""

import json
import sys

import pytest
from conftest_claims import install_toy
from test_report import parse

from tian.claims import Check, Claim, Le, World
from tian.claims.engine import Row
from tian.claims.fingerprint import code_hash, world_hash
from tian.claims.promises import Promise, promises, unanswered
from tian.claims.scoreboard import counts, promise_words, scoreboard
from tian.claims.store import stored
from tian.cli.main import main
from tian.errors import PluginError

GOOD = ("good", "Le(2.0)", ("it.at=1.0",), ("it.at=5.0",), {"seeds": 1}, {})
NASTY = "<script>alert('x')</script> & \"quotes\""


@pytest.fixture
def toy(install_plugin, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "toy.log"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return install_toy(install_plugin, GOOD) / "toy"


def test_the_code_hash_sees_every_measuring_file_and_no_other(toy):
    before = code_hash("toy.claims")
    (toy / "claims.py").write_text((toy / "claims.py").read_text() + "\n")
    (toy / "notes.txt").write_text("not code")
    (toy / "claims").mkdir()
    for name in ("claims/low.py", "report.py", "low_report.py"):  # they state and draw
        (toy / name).write_text("x = 1\n")
    assert code_hash("toy.claims") == before
    (toy / "conf" / "more.yaml").write_text("recipe: toy/measure\n")
    after = code_hash("toy.claims")
    assert after != before
    for name in ("reports.py", "reclaims.py"):  # these may measure
        (toy / name).write_text("x = 1\n")
        assert code_hash("toy.claims") != after
        (toy / name).unlink()
    (toy / "more.py").write_text("")
    assert code_hash("toy.claims") != after


def test_a_world_is_hashed_as_a_whole(toy):
    (toy / "data").mkdir()
    (toy / "data" / "a.txt").write_text("a")
    world = World("data", 1, "toy:data")
    before = world_hash(world)
    (toy / "data" / "b.txt").write_text("b")
    assert world_hash(world) != before
    assert world_hash(World("file", 1, "toy:data/a.txt")) != world_hash(World("file", 1, "toy:data/b.txt"))
    with pytest.raises(PluginError, match="which does not exist"):
        world_hash(World("gone", 1, "toy:gone"))
    with pytest.raises(PluginError, match="cannot be found"):
        world_hash(World("gone", 1, "no_such_package"))


def test_kept_results_come_back_with_hardware_and_date_and_are_stale_when_anything_changed(toy, capsys):
    assert main(["claims", "toy", "--store"]) == 0
    capsys.readouterr()
    kept = json.loads((toy / "results" / "tiny.json").read_text())["toy/good"]
    assert kept["row"]["verdict"] == "holds"
    assert kept["row"]["hardware"]
    assert kept["row"]["date"].endswith("Z")
    from toy.claims import CLAIMS

    (claim,) = CLAIMS
    row, stale = stored(claim, "tiny", "toy.claims")
    assert (row.values["claim"], stale) == ([1.0], "")
    other = Claim(claim.id, claim.says, claim.where, {"tiny": Check("toy/measure", "value", Le(3.0), ("it.at=5.0",))})
    assert stored(other, "tiny", "toy.claims")[1] == "the check has changed since"
    (toy / "work.py").write_text((toy / "work.py").read_text() + "\n")
    assert stored(claim, "tiny", "toy.claims")[1] == "the code has changed since"
    assert stored(claim, "cpu", "toy.claims") is None
    assert main(["claims", "toy", "--list"]) == 0  # nothing was run with the new code: what is kept is shown as stale
    assert "stale: the code has changed since" in capsys.readouterr().out
    (toy / "results" / "tiny.json").write_text("{")
    assert stored(claim, "tiny", "toy.claims") is None


def test_a_world_that_changed_voids_what_was_kept(toy, capsys):
    (toy / "data.txt").write_text("a")
    source = (
        (toy / "claims.py").read_text().replace("'seeds': 1", "'seeds': 1, 'worlds': (World('d', 1, 'toy:data.txt'),)")
    )
    (toy / "claims.py").write_text(source)
    assert main(["claims", "toy", "--store"]) == 0
    from toy.claims import CLAIMS

    assert stored(CLAIMS[0], "tiny", "toy.claims")[1] == ""
    (toy / "data.txt").write_text("b")
    assert stored(CLAIMS[0], "tiny", "toy.claims")[1] == "a world has changed since"
    capsys.readouterr()
    assert main(["claims", "toy", "--list"]) == 0
    assert "stale: a world has changed since" in capsys.readouterr().out


def page_of(row, **more):
    check = Check("a/b", NASTY, Le(2.0), (f"x={NASTY}",), stands_in=NASTY, by={"of": NASTY})
    claim = Claim("toy/a", NASTY, NASTY, {"tiny": check}, **more)
    found = [Promise("P1", NASTY, "", "toy", NASTY, open=True, not_testable="")]
    kept = {"toy/a": {"gpu": (Row("toy/a", "gpu", "fails", values={"claim": [1.0]}, hardware=NASTY), NASTY)}}
    return scoreboard([claim], "tiny", [row], kept, found)


def test_the_scoreboard_shows_verdict_bar_intervals_stand_in_and_other_scales():
    row = Row("toy/a", "tiny", "vacuous", NASTY, {"claim": [1.0, 1.2], "control": [1.5, 1.6]}, [17, 18], 3.0)
    reader = parse(page_of(row, expected="fails", because=NASTY))
    text = " ".join(reader.text)
    assert "1 vacuous" in text
    assert "script" not in reader.tags
    assert text.count(NASTY) >= 8
    assert "<= 2" in text
    assert "1.1 [" in text
    assert "Recorded as: fails" in text
    assert "gpu:" in text
    assert reader.tags.count("svg") == 1
    assert not [v for k, v in reader.attrs if k in ("src", "href") and v and v.startswith("http")]


def test_the_number_of_vacuous_claims_is_always_said():
    assert counts([Row("a/b", "tiny", "holds")]) == "1 holds, 0 vacuous"


# -- promises --------------------------------------------------------------------------------------------------------


def promise(name, **more):
    return Promise(name, "paper", "", "toy", "says", **{"open": False, "not_testable": "", **more})


def claim_of(*names):
    return Claim("toy/a", "s", "w", {"tiny": Check("a/b", "m", Le(1), ("x=1",))}, promises=names)


def test_each_promise_has_exactly_one_answer():
    good = [promise("A"), promise("B", open=True), promise("C", not_testable="needs a lab")]
    assert unanswered(good, [claim_of("A")]) == {}
    assert promise_words(good) == "1 of 3 promises are answered by a claim, 1 are not testable, 1 are open"
    assert "has no claim" in unanswered(good, [])["A"]
    assert "claimed and open" in unanswered(good, [claim_of("A", "B")])["B"]
    assert "not on the list" in unanswered(good, [claim_of("A", "Z")])["Z"]


def test_the_scoreboard_names_every_claim_that_answers_a_promise():
    both = [Claim(f"toy/{x}", "s", "w", claim_of().checks, promises=("A",)) for x in ("one", "two")]
    page = scoreboard(both, "tiny", [Row(c.id, "tiny", "not measured") for c in both], {}, [promise("A"), promise("B")])
    assert "toy/one, toy/two" in " ".join(parse(page).text)


def test_the_list_is_complete_and_in_order():
    found = promises()
    assert len(found) == len({p.id for p in found}) == 59
    papers = {p.arxiv for p in found if p.arxiv}
    assert len(papers) == 9
    assert all(p.says and p.plugin for p in found)
