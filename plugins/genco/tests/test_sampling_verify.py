"""Verification: a true record holds, and every file of a design that is changed is named, with the design."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tian.errors import DataError
from tian.runs.execute import run
from tian.runs.report import render
from tian_genco.sampling.record import check
from tian_genco.solving.certificate import read, write
from tian_genco.solving.highs import HighsSolver

spec = importlib.util.spec_from_file_location("sampling_runs", Path(__file__).with_name("sampling_runs.py"))
runs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(runs)


@pytest.fixture(scope="module", params=["rules", "apart"])
def made(request, tmp_path_factory):
    """A run with rules; and one with a least distance, where every design has a problem of its own."""
    folder = tmp_path_factory.mktemp(request.param)
    source = runs.generator_run(folder / "source", height=5, width=5)
    more = ["constraint=count(wall) >= 19"] + (["min_hamming=6"] if request.param == "apart" else [])
    return runs.sample(source, folder / "run", "n=4", *more).path


@pytest.fixture
def copied(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "copy"))


def verified(source, folder, *more):
    return run("genco/verify", [f"from={source}", *more], folder=folder)


def test_a_record_holds_with_and_without_solving_again(copied, tmp_path):
    digest = json.loads((copied / "results.json").read_text())["digest"]
    result = verified(copied, tmp_path / "v", "resolve=true", f"digest={digest}")
    assert [(m.name, m.value) for m in result.measurements] == [("certificates proven", 4), ("solved again", 4)]
    assert "4 certificates hold" in (result.path / "report.html").read_text()


def arrays(folder, change):
    with np.load(folder / "designs.npz") as file:
        kept = dict(file)
    change(kept)
    np.savez_compressed(folder / "designs.npz", **kept)


def certificates(folder, change):
    lines = (folder / "certificates.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    change(records[2]["certificate"])
    (folder / "certificates.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))


def forged(folder, change):
    """As before, by someone who makes new digests as well."""
    certificates(folder, change)
    write(folder, read(folder))


def other_tile(folder):
    arrays(folder, lambda a: a["designs"].__setitem__((2, 2, 2), (a["designs"][2, 2, 2] + 1) % 8))


def other_text(folder):
    file = folder / "levels" / "0002.txt"
    text = file.read_text()
    file.write_text(text.replace("A", ".", 1))


def moved_entry(fields):
    """Another tile in a cell: x stays one-hot."""
    x = np.array(fields["x"], float).reshape(8, 25)
    x[:, 12] = np.roll(x[:, 12], 1)
    fields["x"] = x.ravel().tolist()


CHANGES = {
    "a tile of the designs": (other_tile, "design 2: the design in designs.npz is another one"),
    "a character of a level": (other_text, "design 2: levels/0002.txt is not this level"),
    "a level that is gone": (lambda f: (f / "levels" / "0002.txt").unlink(), "levels/0002.txt"),
    "a cost": (lambda f: arrays(f, lambda a: a["costs"].__setitem__((2, 7), 0.5)), "design 2: cost is"),
    "an objective": (lambda f: certificates(f, lambda c: c.update(objective=-99.0)), "design 2: "),
    "a tile of a certificate": (lambda f: certificates(f, moved_entry), "design 2: "),
    "the same with new digests": (lambda f: forged(f, moved_entry), "design 2: "),
    "a status": (lambda f: forged(f, lambda c: c.update(status="infeasible")), "design 2: status 'infeasible' with x"),
    "a broken x": (lambda f: forged(f, lambda c: c.update(x=[1.0] * 200)), "design 2: "),
    "a short x": (lambda f: forged(f, lambda c: c.update(x=[1.0])), "design 2: "),
    "a stricter rule": (
        lambda f: (f / "problem.json").write_text((f / "problem.json").read_text().replace(">= 19", ">= 18")),
        "design 0: problem is",
    ),
    "the summary": (
        lambda f: (f / "summary.json").write_text((f / "summary.json").read_text().replace('"valid": 4', '"valid": 5')),
        "the whole: summary.json is not that of these certificates",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_named_with_its_design(copied, tmp_path, change):
    alter, named = CHANGES[change]
    before = {p.name: p.read_bytes() for p in copied.rglob("*") if p.is_file()}
    alter(copied)
    assert before != {p.name: p.read_bytes() for p in copied.rglob("*") if p.is_file()}
    with pytest.raises(DataError) as error:
        verified(copied, tmp_path / "v")
    assert named in error.value.message
    assert error.value.exit_code == 5
    render(tmp_path / "v")
    page = (tmp_path / "v" / "report.html").read_text()
    assert "Tampered with or damaged" in page


def test_a_bound_that_only_looks_right_is_caught_by_solving_again(copied):
    def worse(fields):
        fields.update(bound=fields["objective"] - 1e-5, gap=1e-5 / max(1.0, abs(fields["objective"])))

    def better(fields):
        fields.update(status="feasible", bound=fields["objective"], gap=0.0)

    forged(copied, worse)
    assert check(copied, solver=None, time_limit_s=9)[1] == []
    assert check(copied, solver=HighsSolver(), time_limit_s=9)[1] == []  # a lower bound that is weak is still one
    forged(copied, better)
    with np.load(copied / "designs.npz") as file:
        cost = file["costs"][2]
    optimum = read(copied)[2].objective
    assert check(copied, solver=None, time_limit_s=9)[1] == []

    def swapped(fields):
        """A level that is valid and dearer, called optimal."""
        first = read(copied)[0]
        value = float(cost @ np.array(first.x))
        assert value > optimum + 1e-3
        fields.update(x=list(first.x), objective=value, bound=value, gap=0.0, status="optimal")

    forged(copied, swapped)
    arrays(copied, lambda a: a["designs"].__setitem__(2, a["designs"][0]))
    (copied / "levels" / "0002.txt").write_bytes((copied / "levels" / "0000.txt").read_bytes())
    apart = json.loads((copied / "problem.json").read_text())["min_hamming"]
    trusted = check(copied, solver=None, time_limit_s=9)[1]
    assert bool(trusted) == bool(apart)  # with a least distance the copy is seen at once
    found = check(copied, solver=HighsSolver(), time_limit_s=9)[1]
    assert any(f.row == 2 and ("is above the optimum" in f.what or "places away" in f.what) for f in found)


def test_the_published_digest_shows_what_a_thorough_forger_hides(copied, tmp_path):
    digest = json.loads((copied / "results.json").read_text())["digest"]
    forged(copied, lambda c: c.update(route="guess"))
    assert verified(copied, tmp_path / "a").measurements[0].value == 4
    with pytest.raises(DataError, match=f"{digest} was published"):
        verified(copied, tmp_path / "b", f"digest={digest}")


def test_no_more_exist_is_proven_again(tmp_path):
    source = runs.generator_run(tmp_path / "source", height=3, width=5)
    made = runs.sample(source, tmp_path / "run", "n=10", "min_hamming=1").path
    assert verified(made, tmp_path / "v", "resolve=true").measurements[1].value == 5  # four levels and a proof


def test_folders_without_certificates_are_named(copied, tmp_path):
    with pytest.raises(DataError, match="is not a directory"):
        verified(tmp_path / "nowhere", tmp_path / "a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no certificates"):
        verified(tmp_path / "empty", tmp_path / "b")
    for i, name in enumerate(("designs.npz", "certificates.jsonl", "summary.json", "problem.json")):
        broken = Path(shutil.copytree(copied, tmp_path / f"broken{i}"))
        (broken / name).write_bytes(b"{")
        with pytest.raises(DataError, match=name.replace(".", r"\.")):
            verified(broken, tmp_path / f"v{i}")
