"""Certificates: true ones verify, and no change of a sample goes unseen."""

import dataclasses
import json

import numpy as np
import pytest

from tian.errors import DataError, InvalidInput
from tian_genco.problem import Milp, Row
from tian_genco.solving import certificate
from tian_genco.solving.certificate import certify, fingerprint, read, verify, write
from tian_genco.solving.highs import HighsSolver

C, T = 5, 3
N = C * T


def cells(*, further=False):
    """Five cells of three tiles; with a continuous column tied to them, if wanted."""
    rows = [Row(np.arange(T) * C + i, np.ones(T), 1.0, 1.0, f"cell {i}") for i in range(C)]
    rows.append(Row(np.arange(C), np.ones(C), -np.inf, 3.0, "few"))
    m = N + further
    if further:
        rows.append(Row(np.array([0, 1, N]), np.array([1.0, 1.0, -1.0]), 0.0, 0.0, "tied"))
    return Milp.of(rows, n=N, lower=np.zeros(m), upper=np.ones(m), integer=np.arange(m) < N)


def made(folder, problem, count=5, seed=0):
    costs = np.random.default_rng(seed).normal(size=(count, N))
    batch = HighsSolver().solve_costs(problem.instance(), costs, time_limit_s=30)
    return costs, write(folder, certify(problem, costs, batch))


@pytest.mark.parametrize("further", [False, True])
def test_a_batch_verifies_and_is_read_back_as_written(tmp_path, further):
    problem = cells(further=further)
    costs, digest = made(tmp_path, problem)
    assert verify(tmp_path, problem, costs, digest=digest, solver=HighsSolver()) == []
    back = read(tmp_path)
    batch = HighsSolver().solve_costs(problem.instance(), costs, time_limit_s=30)
    assert back == certify(problem, costs, batch)
    assert all(c.residual <= 1e-6 and c.gap <= 1e-6 and c.verdict == "" for c in back)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["statuses"], summary["valid"], summary["digest"]) == ({"optimal": 5}, 5, digest)


def rewritten(folder, change, *, chained):
    """Change the fields of one certificate in its file; a thorough forger makes new digests as well."""
    lines = (folder / "certificates.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    change([r["certificate"] for r in records])
    (folder / "certificates.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    if chained:
        write(folder, read(folder))


@pytest.mark.parametrize("trials", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_no_flipped_entry_goes_unseen(tmp_path, trials):
    """The forger recomputes the objective, and in every second one gap and digests, too."""
    problem, rng = cells(), np.random.default_rng(0)
    costs, digest = made(tmp_path, problem, count=2)
    kept = {p: p.read_bytes() for p in tmp_path.iterdir()}
    seen = 0
    for trial in range(trials):
        k, entry, thorough = int(rng.integers(2)), int(rng.integers(N)), trial % 2 == 1

        def forge(all_, k=k, entry=entry, thorough=thorough):
            fields = all_[k]
            fields["x"][entry] = 1 - fields["x"][entry]
            fields["objective"] = float(costs[k] @ np.array(fields["x"], float))
            if thorough:
                fields["gap"] = (fields["objective"] - fields["bound"]) / max(1.0, abs(fields["objective"]))

        rewritten(tmp_path, forge, chained=thorough)
        found = verify(tmp_path, problem, costs)
        seen += any(f.startswith(f"certificate {k}:") for f in found)
        if trial < 20:
            assert any("published" in f for f in verify(tmp_path, problem, costs, digest=digest))
        for path, data in kept.items():
            path.write_bytes(data)
    assert seen == trials
    assert verify(tmp_path, problem, costs, digest=digest) == []


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("objective", -99.0, "objective is -99.0"),
        ("bound", 5.0, "bound 5.0 does not prove"),
        ("bound", -50.0, "bound -50.0 does not prove 'optimal'"),
        ("gap", 0.5, "gap is 0.5"),
        ("status", "infeasible", "status 'infeasible' with x"),
        ("residual", 0.25, "residual is 0.25"),
        ("residual", "nan", "residual is nan"),
        ("verdict", "cell 3", "verdict is 'cell 3'"),
        ("cost", "0" * 64, "cost is '000"),
        ("problem", "0" * 64, "problem is '000"),
        ("x", None, "status 'optimal' without x"),
        ("x", [0, 1], "x is not 15 finite numbers"),
    ],
)
def test_every_field_is_computed_again(tmp_path, field, value, named):
    costs, _ = made(tmp_path, cells())
    rewritten(tmp_path, lambda all_: all_[3].update({field: value}), chained=True)
    assert any(f.startswith("certificate 3:") and named in f for f in verify(tmp_path, cells(), costs))


def test_a_better_looking_bound_is_caught_by_solving_again(tmp_path):
    problem = cells()
    costs, _ = made(tmp_path, problem)

    def worse(all_):  # another valid x, with a bound that makes it optimal
        x = np.zeros((T, C))
        x[0, :3] = x[2, 3:] = 1.0
        value = float(costs[1] @ x.ravel())
        all_[1].update(x=x.ravel().tolist(), objective=value, bound=value, gap=0.0)

    rewritten(tmp_path, worse, chained=True)
    assert verify(tmp_path, problem, costs) == []  # nothing but the published digest, or solving, can show it
    found = verify(tmp_path, problem, costs, solver=HighsSolver())
    assert len(found) == 1
    assert found[0].startswith("certificate 1: bound")


def test_lines_that_are_dropped_swapped_or_damaged_are_named(tmp_path):
    costs, _ = made(tmp_path, cells())
    path = tmp_path / "certificates.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    found = verify(tmp_path, cells(), costs)
    assert "4 certificates for 5 costs" in found
    assert any(f.startswith("summary.json: certificates is 5") for f in found)
    path.write_text("".join([lines[1], lines[0], *lines[2:]]))
    assert "certificate 0: the chain of digests breaks here" in verify(tmp_path, cells(), costs)
    path.write_text("".join([*lines[:2], "{\n", *lines[3:]]))
    assert "line 3 is damaged" in verify(tmp_path, cells(), costs)[0]
    with pytest.raises(DataError, match="line 3"):
        read(tmp_path)
    path.write_text("".join(lines))
    (tmp_path / "summary.json").write_text("[]")
    assert verify(tmp_path, cells(), costs)
    (tmp_path / "summary.json").unlink()
    assert verify(tmp_path, cells(), costs)[0].startswith("summary.json: No such file")
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "nowhere")


def test_an_instance_without_solution_has_a_certificate_too(tmp_path):
    rows = [*cells().rows(), Row(np.arange(C), np.ones(C), 4.0, np.inf, "many")]
    problem = Milp.of(rows, n=N, lower=np.zeros(N), upper=np.ones(N), integer=np.ones(N, bool))
    costs, digest = made(tmp_path, problem, count=2)
    assert verify(tmp_path, problem, costs, digest=digest, solver=HighsSolver()) == []
    assert [c.status for c in read(tmp_path)] == ["infeasible"] * 2
    claim = dataclasses.replace(read(tmp_path)[0], problem=fingerprint(cells()))
    write(tmp_path, [claim])
    assert "status 'infeasible'" in verify(tmp_path, cells(), costs[:1], solver=HighsSolver())[0]


def test_an_invalid_x_is_certified_as_what_it_is(tmp_path):
    problem, costs = cells(), np.zeros((1, N))
    batch = HighsSolver().solve_costs(problem.instance(), costs, time_limit_s=9)
    batch.x[0, 0] = 1.0 - batch.x[0, 0]
    made_ = certify(problem, costs, batch)
    assert made_[0].verdict
    assert made_[0].residual == 1.0
    write(tmp_path, made_)
    assert verify(tmp_path, problem, costs) == [f"certificate 0: x is not valid: {made_[0].verdict}"]


def test_the_checker_has_a_say_of_its_own(tmp_path):
    class Strict(Milp):
        def broken(self, x):
            return "no wall in cell 0" if x[0] < 0.5 else ""

    problem = Strict(**{f.name: getattr(cells(), f.name) for f in dataclasses.fields(Milp)})
    costs = np.eye(N)[:1]
    write(tmp_path, certify(problem, costs, HighsSolver().solve_costs(problem.instance(), costs, time_limit_s=9)))
    assert verify(tmp_path, problem, costs) == ["certificate 0: x is not valid: no wall in cell 0"]


def test_fingerprints_tell_problems_apart_and_batches_must_fit():
    changed = cells().with_rows([Row(np.arange(2), np.ones(2), 0.0, 9.0, "more")])
    other = dataclasses.replace(changed, row_upper=changed.row_upper + 1)
    assert len({fingerprint(p) for p in (cells(), changed, other)}) == 3
    assert fingerprint(cells()) == fingerprint(cells())
    batch = HighsSolver().solve_costs(cells().instance(), np.zeros((2, N)), time_limit_s=9)
    with pytest.raises(InvalidInput, match="do not belong"):
        certify(cells(), np.zeros((3, N)), batch)


def test_numbers_json_does_not_know_survive(tmp_path):
    c = certificate.Certificate(
        "p", "c", None, float("nan"), float("-inf"), float("nan"), "timeout", "mip", float("nan"), ""
    )
    write(tmp_path, [c])
    assert "NaN" not in (tmp_path / "certificates.jsonl").read_text()
    assert repr(read(tmp_path)) == repr([c])
