"""The claims engine on a toy plugin, through the command line and with real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest_claims import claims_source, install_toy

from tian.claims.engine import claims_of
from tian.claims.meter import Meter, Meters
from tian.claims.plan import plan
from tian.claims.stats import seeds_of
from tian.cli.main import main
from tian.errors import ConfigError

GOOD = ("good", "Le(2.0)", ("it.at=1.0",), ("it.at=5.0",), {"seeds": 2}, {})


@pytest.fixture
def toy(install_plugin, monkeypatch, tmp_path):
    """A function that installs claims, runs `tian claims toy ...` and returns exit code and JSON rows by id."""
    monkeypatch.chdir(tmp_path)
    log = tmp_path / "toy.log"
    monkeypatch.setenv("TOY_LOG", str(log))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two versions within a second must not share bytecode
    folder = []

    def install(*claims):
        if not folder:
            folder.append(install_toy(install_plugin, *claims))
        write(claims_source(*claims))
        return folder[0] / "toy"

    def write(source):
        (folder[0] / "toy" / "claims.py").write_text(source)
        sys.modules.pop("toy.claims", None)

    def run(capsys, *more):
        capsys.readouterr()
        code = main(["claims", "toy", "--json", *more])
        answer = json.loads(capsys.readouterr().out)
        return code, {c["claim"].removeprefix("toy/"): c for c in answer.get("claims", [])}, answer

    run.install = install
    run.write = write
    run.started = lambda: len(log.read_text().splitlines()) if log.exists() else 0
    return run


def test_every_verdict(toy, capsys):
    spread = {"seeds": 4}
    toy.install(
        GOOD,
        ("worse", "Le(0.5)", ("it.at=1.0",), ("it.at=5.0",), {"seeds": 1}, {}),
        ("vacuous", "Le(2.0)", ("it.at=1.0",), ("it.at=0.5",), {"seeds": 1}, {}),
        ("straddles", "Le(1.0)", ("it={at: 1.0, spread: 1.0}",), ("it.at=5.0",), spread, {}),
        ("raises", "Le(2.0)", ("it.act=raise",), ("it={act: '', at: 5.0}",), {"seeds": 1}, {}),
        ("refuses", "Le(2.0)", ("it.act=refuse",), ("it={act: '', at: 5.0}",), {"seeds": 1}, {}),
        ("absent", "Le(2.0)", (), ("it.at=5.0",), {"seeds": 1, "config": "toy/absent"}, {}),
        ("twice", "Le(2.0)", (), ("it.at=5.0", "other=1"), {"seeds": 1}, {}),
        ("same", "Le(2.0)", ("it.at=1.0",), ("it.at=1.0",), {"seeds": 1}, {}),
        ("unknown", "Le(2.0)", ("it.ta=1.0",), ("it.at=1.0",), {"seeds": 1}, {}),
        ("unmeasured", "Le(2.0)", ("it.at=1.0",), ("it.at=5.0",), {"seeds": 1, "by": {"of": "nothing"}}, {}),
        ("nan", "Le(2.0)", ("it.act=nan",), ("it={act: '', at: 5.0}",), {"seeds": 1}, {}),
    )
    code, rows, _ = toy(capsys)
    assert code == 1
    assert {k: r["verdict"] for k, r in rows.items()} == {
        "good": "holds",
        "worse": "fails",
        "vacuous": "vacuous",
        "straddles": "inconclusive",
        "raises": "error",
        "refuses": "error",
        "absent": "skipped",
        "twice": "error",
        "same": "error",
        "unknown": "error",
        "unmeasured": "error",
        "nan": "error",
    }
    assert "the control meets the bar as well" in rows["vacuous"]["reason"]
    assert "the recipe broke" in rows["raises"]["reason"]
    assert "no such data" in rows["refuses"]["reason"]
    assert "no_such_library" in rows["absent"]["reason"]
    assert "differs in it, other" in rows["twice"]["reason"]
    assert "differs in nothing" in rows["same"]["reason"]
    assert "it.ta" in rows["unknown"]["reason"]
    assert "measured no 'value' {'of': 'nothing'}" in rows["unmeasured"]["reason"]
    assert rows["good"]["values"] == {"claim": [1.0, 1.0], "control": [5.0, 5.0]}
    assert rows["good"]["seeds"] == seeds_of("toy/good", 2)


@pytest.mark.parametrize("act", ["work", "wait"])
def test_a_check_beyond_its_budget_is_stopped_and_said_to_be(toy, capsys, act):
    toy.install(("long", "Le(2.0)", (f"it.act={act}",), ("it={act: '', at: 5.0}",), {"seeds": 2, "budget_s": 0.8}, {}))
    code, rows, _ = toy(capsys, "--jobs", "2")
    assert code == 1
    assert rows["long"]["verdict"] == "error"
    assert "over the budget of 0.8 s" in rows["long"]["reason"]
    statuses = [json.loads(p.read_text())["state"] for p in Path("runs/claims/toy/measure").rglob("status.json")]
    assert "running" not in statuses  # what was started has been stopped


def test_a_budget_counts_all_runs_of_a_check_and_the_clock():
    meter = Meter(10.0)
    meter.add(4.0)
    meter.update(1, cpu=3.0, clock=3.0)
    meter.update(2, cpu=2.0, clock=2.0)
    assert not meter.over()
    meter.update(2, cpu=3.5, clock=3.5)
    assert meter.over()
    assert meter.finish(2) == 3.5
    assert meter.over()
    idle = Meter(10.0)
    idle.update(1, cpu=0.1, clock=51.0)
    assert idle.over()


def test_a_run_that_checks_share_counts_for_each_and_stops_when_no_budget_is_left():
    small, large = Meter(1.0), Meter(3.0)
    both = Meters([small, large])
    assert both.budget_s == 3.0
    both.update("run", cpu=2.0, clock=2.0)
    assert small.over()
    assert not both.over()  # the other check may still pay for it
    both.update("run", cpu=3.5, clock=3.5)
    assert both.over()
    assert both.finish("run") == 3.5
    small, large = Meter(10.0), Meter(10.0)
    Meters([small, large]).add(11.0)
    assert small.over()
    assert large.over()


CHAIN = (  # the control of the first is the claim of the second, whose control is the claim of the third
    ("low", "Le(2.0)", ("it.at=1.0",), ("it.at=5.0",), {"seeds": 2}, {}),
    ("middle", "Le(6.0)", ("it.at=5.0",), ("it.at=9.0",), {"seeds": 2, "seeds_of": "toy/low"}, {}),
    ("high", "Ge(8.0)", ("it.at=9.0",), ("it.at=1.0",), {"seeds": 1, "seeds_of": "toy/low"}, {}),
)


def test_claims_share_the_runs_they_have_in_common(toy, capsys):
    toy.install(*CHAIN)
    code, rows, _ = toy(capsys)
    assert code == 0
    assert {k: r["verdict"] for k, r in rows.items()} == dict.fromkeys(("low", "middle", "high"), "holds")
    assert {k: r["values"]["control"] for k, r in rows.items()} == {
        "low": [5.0, 5.0],
        "middle": [9.0, 9.0],
        "high": [1.0],
    }
    assert rows["high"]["seeds"] == rows["middle"]["seeds"][:1] == rows["low"]["seeds"][:1]
    assert toy.started() == 6  # three configurations, two seeds; alone they would take ten
    toy.install(CHAIN[0], ("middle", *CHAIN[1][1:4], {"seeds": 2}, {}))  # seeds of its own: nothing to share
    assert toy(capsys)[0] == 0
    assert toy.started() == 10


def test_the_seeds_of_a_claim_cannot_be_chosen(toy, capsys):
    for other in ("toy/lucky", "toy/middle"):  # no claim; one that borrows its seeds itself
        toy.install(*CHAIN[:2], ("high", *CHAIN[2][1:4], {"seeds_of": other}, {}))
        assert main(["claims", "toy"]) == 3
        assert "no claim with seeds of its own" in capsys.readouterr().err


def test_only_a_surprise_makes_the_exit_code_1(toy, capsys):
    because = {"expected": "fails", "because": "it is known not to"}
    toy.install(GOOD, ("worse", "Le(0.5)", ("it.at=1.0",), ("it.at=5.0",), {"seeds": 1}, because))
    code, rows, _ = toy(capsys)
    assert code == 0
    assert (rows["worse"]["verdict"], rows["worse"]["because"]) == ("fails", "it is known not to")
    assert main(["claims", "toy"]) == 0
    text = capsys.readouterr().out
    assert "recorded as: fails, because it is known not to" in text
    assert "1 holds, 1 fails, 0 vacuous" in text
    toy.install(("worse", "Le(2.0)", ("it.at=1.0",), ("it.at=5.0",), {"seeds": 1}, because))
    assert toy(capsys)[0] == 1  # it holds now: look into it


def test_what_was_measured_is_not_measured_again_until_code_or_config_change(toy, capsys):
    folder = toy.install(GOOD)
    assert toy(capsys)[0] == 0
    assert toy.started() == 4  # two seeds, claim and control
    toy(capsys)
    assert toy.started() == 4
    toy.install(("good", "Le(0.5)", *GOOD[2:]))  # another bar is no reason to run again
    assert toy(capsys)[1]["good"]["verdict"] == "fails"
    assert toy.started() == 4
    toy.install(("good", "Le(2.0)", ("it.at=1.5",), *GOOD[3:]))  # another config is
    assert toy(capsys)[1]["good"]["values"]["claim"] == [1.5, 1.5]
    assert toy.started() == 6
    toy(capsys, "--fresh")
    assert toy.started() == 10
    assert toy(capsys, "--list")[1]["good"]["verdict"] == "holds"
    (folder / "work.py").write_text((folder / "work.py").read_text() + "\n# changed\n")
    assert toy(capsys, "--list")[1]["good"]["verdict"] == "not measured"
    toy(capsys)
    assert toy.started() == 14


def test_an_unfinished_run_is_continued_and_a_damaged_one_replaced(toy, capsys):
    toy.install(GOOD)
    toy(capsys)
    runs = sorted(Path("runs/claims/toy/measure/tiny").iterdir())
    status = json.loads((runs[0] / "status.json").read_text())
    (runs[0] / "status.json").write_text(json.dumps({**status, "state": "running"}))
    (runs[1] / "metrics.json").write_text("{")
    (runs[1] / "config.yaml").unlink()
    code, rows, _ = toy(capsys)
    assert code == 0
    assert rows["good"]["values"]["claim"] == [1.0, 1.0]
    assert toy.started() == 6


def test_ctrl_c_stops_the_runs_and_the_next_call_goes_on(toy, capsys, tmp_path):
    toy.install(
        ("quick", "Le(2.0)", ("it.at=1.0",), ("it.at=5.0",), {"seeds": 1}, {}),
        ("waits", "Le(2.0)", ("it.act=wait",), ("it={act: '', at: 5.0}",), {"seeds": 1, "budget_s": 300}, {}),
    )
    argv = [sys.executable, "-m", "tian", "claims", "toy", "--jobs", "1"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            limit = time.monotonic() + 60
            while toy.started() < 3:  # the two of `quick`, then the one that waits
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < limit
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "Traceback" not in err
    (waiting,) = Path("runs/claims/toy/measure/tiny").glob(f"{seeds_of('toy/waits', 1)[0]}-*")
    status = json.loads((waiting / "status.json").read_text())
    assert status["state"] == "interrupted"
    with pytest.raises(ProcessLookupError):
        os.kill(status["pid"], 0)
    rows = toy(capsys, "--list")[1]
    assert {k: r["verdict"] for k, r in rows.items()} == {"quick": "holds", "waits": "not measured"}


def test_one_claim_can_be_picked_and_a_wrong_name_is_refused(toy, capsys):
    toy.install(GOOD, ("worse", "Le(0.5)", ("it.at=1.0",), ("it.at=5.0",), {"seeds": 1}, {}))
    assert list(toy(capsys, "--only", "good", "--list")[1]) == ["good"]
    assert main(["claims", "toy", "--only", "goood"]) == 2
    assert "toy/good" in capsys.readouterr().err
    assert main(["claims", "nobody"]) == 2
    assert "no plugin called 'nobody' has claims" in capsys.readouterr().err
    assert main(["claims", "toy", "--scale", "paper"]) == 0
    assert "no claim has a check at scale paper" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("source", "code", "word"),
    [
        ("import no_such_library\n", 3, "no_such_library"),
        ("CLAIMS = [1]\n", 3, "not a claim of plugin toy"),
        (
            "from tian.claims import *\nCLAIMS = 2 * [Claim('toy/a', 's', 'w', {'tiny': Check('a/b', 'm', Le(1), ('x=1',))})]\n",
            3,
            "uses an id twice",
        ),
        ("from tian.claims import *\nCLAIMS = [Check('a/b', 'm', Le(1), ())]\n", 5, "has no control"),
    ],
)
def test_a_damaged_list_of_claims_is_named(toy, capsys, source, code, word):
    toy.install(GOOD)
    toy.write(source)
    assert main(["claims", "toy"]) == code
    err = capsys.readouterr().err
    assert word in err
    assert "Traceback" not in err


def test_the_control_of_a_plan_differs_in_the_group_it_names(toy, tmp_path):
    toy.install(GOOD, ("twice", "Le(2.0)", (), ("it.at=5.0", "other=1"), {"seeds": 1}, {}))
    (good, module), (twice, _) = claims_of("toy")
    made = plan(good, "tiny", module=module, root=tmp_path)
    assert made.group == "it"
    assert [(t.arm, t.seed) for t in made.tasks[:2]] == [("claim", made.tasks[0].seed), ("control", made.tasks[0].seed)]
    assert len({t.path for t in made.tasks}) == 4
    with pytest.raises(ConfigError, match="exactly one config group"):
        plan(twice, "tiny", module=module, root=tmp_path)
