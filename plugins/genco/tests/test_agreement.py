"""Two solvers of levels compared: what a difference is, that a worse or broken answer shows, and that runs resume."""

from dataclasses import replace

import numpy as np
import pytest
from omegaconf import OmegaConf

from tian.errors import InvalidInput, RunError
from tian.runs.files import append_jsonl, read_jsonl
from tian.runs.rundir import create
from tian_genco import agreement
from tian_genco.agreement_options import KINDS, AgreementOptions
from tian_genco.agreement_report import sections
from tian_genco.levels.options import OracleOptions
from tian_genco.levels.oracle import LevelOracle
from tian_genco.solving.highs import HighsSolver

OPTIONS = AgreementOptions(n=12, sizes=[[5, 5], [5, 7]])


def directory(path):
    nodes = {"solver": {"use": "genco/level-oracle"}, "against": {"use": "genco/highs"}}
    return create(path, OmegaConf.create({"recipe": "genco/agreement", "seed": 0, **nodes}))


class Altered(LevelOracle):
    """The oracle, with one thing done to each answer."""

    def __init__(self, change):
        super().__init__(OracleOptions(limit="exact"))
        self.change, self.asked = change, 0

    def solve_costs(self, inst, costs, **how):
        self.asked += 1
        return self.change(super().solve_costs(inst, costs, **how), inst.payload)


def value(found, name, costs="all", route="any"):
    (one,) = [m for m in found if m.name == name and m.by["costs"] == costs and m.by["route"] == route]
    return one.value


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = directory(tmp_path_factory.mktemp("agreement") / "run")
    yield run, agreement.compare(LevelOracle(), HighsSolver(), OPTIONS, run, seed=0)
    run.release()


def test_the_oracle_agrees_on_every_kind(finished):
    run, found = finished
    rows = read_jsonl(run.path / agreement.FILE)
    assert [row["kind"] for row in rows] == list(KINDS) * 4
    assert [row["size"] for row in rows] == (["5x5"] * 3 + ["5x7"] * 3) * 2
    assert value(found, "largest difference") <= 1e-9
    assert value(found, "share valid") == 1
    assert value(found, "share above") == value(found, "share below") == 0
    assert value(found, "share of answers", route="oracle") + value(found, "share of answers", route="mip") == 1


def test_ratios_are_of_paired_times(finished):
    run, found = finished
    seconds = np.array([row["seconds"] for row in read_jsonl(run.path / agreement.FILE)])
    x = np.sort(seconds[:, 1] / seconds[:, 0])
    (median,) = [m for m in found if m.name.endswith("median") and (m.by["costs"], m.by["route"]) == ("all", "any")]
    assert median.value == pytest.approx(np.median(x))
    assert median.ci95 == (x[2], x[9])  # 12 values: 3rd and 10th, coverage 0.961
    assert value(found, "against over solver, CPU time, worst") == pytest.approx(x[0])


def test_prices_on_enemies_are_seen_to_be_worse(tmp_path):
    other = directory(tmp_path / "run")
    options = replace(OPTIONS, n=30, sizes=[[5, 7]], kinds=["gaussian"])
    found = agreement.compare(LevelOracle(OracleOptions(limit="multiplier")), HighsSolver(), options, other, seed=0)
    assert value(found, "largest difference") > 1e-3
    assert value(found, "share above") > 0.2
    assert value(found, "share below") == 0
    assert value(found, "share valid") == 1
    other.release()


def test_a_broken_level_counts_and_is_shown(tmp_path):
    def without_door(batch, rules):
        x = batch.x.copy()
        grid = x.reshape(8, -1)
        door = int(grid[3].argmax())
        grid[3, door], grid[1, door] = 0.0, 1.0
        return replace(batch, x=x)

    run = directory(tmp_path / "run")
    options = replace(OPTIONS, n=3, sizes=[[5, 5]])
    found = agreement.compare(Altered(without_door), LevelOracle(), options, run, seed=0)
    assert value(found, "share valid") == 0
    assert "no door" in sections(run)[0].html
    run.release()


def test_objectives_told_by_a_solver_play_no_part(tmp_path):
    run = directory(tmp_path / "run")
    lie = Altered(lambda batch, _: replace(batch, objective=batch.objective - 1e6))
    found = agreement.compare(lie, LevelOracle(), replace(OPTIONS, n=6), run, seed=0)
    assert value(found, "largest difference") == 0
    run.release()


def test_no_answer_ends_the_run_with_the_instance(tmp_path):
    run = directory(tmp_path / "run")
    none = Altered(lambda batch, _: replace(batch, found=np.zeros(1, bool), status=("timeout",)))
    with pytest.raises(RunError, match="Altered left instance 0 without an answer: timeout"):
        agreement.compare(none, LevelOracle(), OPTIONS, run, seed=0)
    run.release()


def test_a_resumed_run_goes_on_where_it_was(finished, tmp_path):
    run, found = finished
    rows = read_jsonl(run.path / agreement.FILE)
    other = directory(tmp_path / "run")
    for row in rows[:10]:
        append_jsonl(other.path / agreement.FILE, row)
    with (other.path / agreement.FILE).open("a") as file:
        file.write('{"kind": "one-h')  # torn by a crash
    same = Altered(lambda batch, _: batch)
    again = agreement.compare(same, HighsSolver(), OPTIONS, other, seed=0)
    assert same.asked == 2 + 1  # two rows, and their one size to warm up
    assert [row["difference"] for row in read_jsonl(other.path / agreement.FILE)] == [row["difference"] for row in rows]
    timed = "against over solver"
    assert [m for m in again if timed not in m.name] == [m for m in found if timed not in m.name]
    other.release()


def test_instances_depend_on_the_seed_and_their_number_only():
    costs = [agreement.instance_of(7, OPTIONS, seed)[2] for seed in (1, 1, 2)]
    assert np.array_equal(costs[0], costs[1])
    assert not np.array_equal(costs[0], costs[2])
    longer = agreement.instance_of(7, replace(OPTIONS, n=1000), 1)[2]
    assert np.array_equal(costs[0], longer)


@pytest.mark.parametrize("kind", KINDS)
def test_costs_are_what_their_kind_says(kind):
    cost = agreement.draw_cost(kind, 30, 40, np.random.default_rng(0)).reshape(8, -1)
    if kind == "soft":
        assert cost.sum(0) == pytest.approx(-1)
        assert (cost[:2].mean(1) < 3 * cost[2:].mean()).all()
    if kind == "one-hot":
        assert np.array_equal(np.round(cost), cost.round(5))
        assert (np.round(cost).sum(0) == -1).all()
        assert 0 < np.abs(cost - np.round(cost)).max() <= 1e-6
    if kind == "gaussian":
        assert abs(cost.mean()) < 0.05
        assert cost.std() == pytest.approx(1, abs=0.05)


def test_the_report_has_the_plot_and_every_group(finished, tmp_path):
    run, _ = finished
    first, second = sections(run)
    assert "differ by" in first.title
    assert "<svg" in first.html
    assert all(kind in second.html for kind in KINDS)
    empty = directory(tmp_path / "empty")
    assert sections(empty) == []
    empty.release()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kinds": ["hard"]}, r"kinds holds \['hard'\]"),
        ({"kinds": []}, "kinds holds nothing"),
        ({"sizes": []}, "sizes must be pairs"),
        ({"sizes": [[9, 13, 1]]}, "sizes must be pairs"),
        ({"sizes": [[4, 9]]}, "each >= 5"),
        ({"n": 5}, "n must be >= 6"),
        ({"time_limit_s": 0.0}, "time_limit_s must be > 0"),
    ],
)
def test_options_out_of_range_are_named(options, said):
    with pytest.raises(InvalidInput, match=said):
        AgreementOptions(**options)
