"""Sampling under further rules: every design obeys them, each is the cheapest, and nothing is lost or hidden."""

import dataclasses
import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from tian.errors import DataError, InvalidInput, RunError, UnknownName
from tian.runs.execute import run
from tian.runs.rundir import create
from tian_genco.levels.checker import grid_offence
from tian_genco.levels.files import load_levels
from tian_genco.levels.language import parse_rules
from tian_genco.levels.rules import LevelRules
from tian_genco.levels.tiles import DOOR, ENEMIES, KEY, PLAYER, WALL, to_grid, to_x
from tian_genco.sampling import sample as recipe
from tian_genco.sampling.draw import draw
from tian_genco.sampling.held_out import HELD_OUT
from tian_genco.sampling.options import SamplingOptions, rule_lines
from tian_genco.sampling.record import cells_of
from tian_genco.sampling.sample_report import sections
from tian_genco.sampling.source import load_source
from tian_genco.solving.diverse import Extended
from tian_genco.solving.highs import HighsSolver

spec = importlib.util.spec_from_file_location("sampling_runs", Path(__file__).with_name("sampling_runs.py"))
runs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(runs)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return runs.generator_run(tmp_path_factory.mktemp("source") / "run")


@pytest.fixture(scope="module")
def sampler(source, tmp_path_factory):
    here = create(tmp_path_factory.mktemp("sampler") / "run", OmegaConf.create({"seed": 0}))
    yield recipe.Sampler(load_source(source), SamplingOptions(from_=str(source), n=4, reference=4), here)
    here.release()


# -- the command line --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "lines"),
    [
        ("constraint=count(wall)<=60", ["count(wall)<=60"]),
        ("constraint=dist(player,key) >= 6", ["dist(player,key) >= 6"]),
        ("constraint=symmetric: lr", ["symmetric: lr"]),
        ("constraint=count(wall) <= 60; connected ;", ["count(wall) <= 60", "connected"]),
        (
            "constraint=[dist(player,key) >= 6, tile(3,4) == key, symmetric: lr]",
            ["dist(player,key) >= 6", "tile(3,4) == key", "symmetric: lr"],
        ),
        ("constraint=['dist(player,key) >= 6']", ["dist(player,key) >= 6"]),
        ("constraint=null", []),
    ],
)
def test_rules_come_off_the_command_line_as_they_were_written(given, lines):
    from tian.config.compose import compose

    assert list(compose("genco/sample", ["from=x", given])[0].constraint) == lines


def test_a_rule_that_is_no_text_is_refused():
    with pytest.raises(InvalidInput, match="a rule must be text, got 3"):
        rule_lines(["connected", 3])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n": 0}, "n >= 1"),
        ({"min_hamming": -1}, "min_hamming must be >= 0"),
        ({"time_limit_s": 0.0}, "time_limit_s must be > 0"),
        ({"held_out": True, "constraint": "connected"}, "brings its own rules"),
    ],
)
def test_options_out_of_range_are_named(options, said):
    with pytest.raises(InvalidInput, match=said):
        SamplingOptions(from_="x", **options)


# -- rules -------------------------------------------------------------------------------------------------------------


def place(grid, tile):
    return tuple(np.argwhere(grid == tile)[0].tolist())


def apart(grid, a, b):
    return sum(abs(u - v) for u, v in zip(place(grid, a), place(grid, b), strict=True))


READINGS = {
    "count(wall) >= 27": lambda g: (g == WALL).sum() >= 27,
    "count(enemy) == 2": lambda g: np.isin(g, ENEMIES).sum() == 2,
    "tile(2,3) == key": lambda g: g[2, 3] == KEY,
    "dist(player,key) >= 5": lambda g: apart(g, PLAYER, KEY) >= 5,
    "dist_path(player,door) <= 2": lambda g: apart(g, PLAYER, DOOR) <= 2,
    "symmetric: lr": lambda g: ((g == WALL) == (g[:, ::-1] == WALL)).all(),
    "connected": lambda g: not lonely(g),
}


def lonely(grid):
    """Whether an open cell has no open neighbour: enough to tell that not all are connected."""
    open_ = grid != WALL
    near = np.zeros_like(open_)
    near[1:-1, 1:-1] = open_[:-2, 1:-1] | open_[2:, 1:-1] | open_[1:-1, :-2] | open_[1:-1, 2:]
    return (open_ & ~near).any()


@pytest.mark.parametrize("line", READINGS)
def test_every_kind_of_rule_holds_in_every_design(sampler, tmp_path, line):
    found = sampler.under([line], 0, tmp_path)
    assert len(found.grids) == 4
    assert all(READINGS[line](g) and grid_offence(g.tolist(), enemy_share=0.6) == "" for g in found.grids)
    assert (found.increase >= -1e-9).all()
    assert set(found.drawn.batch.status) == {"optimal"}


def test_asking_the_cheapest_question_first_changes_no_optimum(sampler, tmp_path):
    lines = ["dist(player,key) >= 3"]
    found = sampler.under(lines, 0, tmp_path)
    assert {"oracle", "mip"} == set(found.drawn.batch.route)  # else this test would say nothing
    problem = Extended.of(parse_rules(lines, sampler.base).level)
    plain = HighsSolver().solve_costs(problem.instance(), sampler.costs, time_limit_s=30)
    np.testing.assert_allclose(found.drawn.batch.objective, plain.objective, atol=1e-6)
    free = np.array([r == "oracle" for r in found.drawn.batch.route])
    assert (found.increase[free] == 0).all()


def test_a_run_leaves_levels_numbers_and_a_report(source, tmp_path):
    result = runs.sample(source, tmp_path / "run", "n=5", "constraint=[count(wall) <= 28, dist(player,key) >= 2]")
    grids = runs.designs(result.path)
    assert [runs.value(result, name, designs="ours") for name in ("valid", "designs")] == [1.0, 5]
    assert 0 <= runs.value(result, "pattern JSD over unconstrained", designs="ours") <= 1
    assert runs.value(result, "objective increase") >= 0
    levels = load_levels(result.path / "levels")
    assert (levels.grids == grids).all()
    assert levels.names[:2] == ("0000.txt", "0001.txt")
    page = (result.path / "report.html").read_text()
    assert "dist(player,key) &gt;= 2" in page
    assert "genco/verify" in page


def test_without_rules_the_oracle_serves(source, tmp_path):
    result = runs.sample(source, tmp_path / "run", "n=5")
    assert recipe_results(result)["routes"] == {"oracle, optimal": 5}
    assert runs.value(result, "objective increase") == 0


def recipe_results(result):
    import json

    return json.loads((result.path / "results.json").read_text())


# -- other costs than the generator's ----------------------------------------------------------------------------------


def test_repair_changes_as_few_cells_as_possible_of_the_generators_levels(source, tmp_path):
    rules = ["n=6", "constraint=[count(wall) <= 27, dist(player,key) >= 3]"]
    free = runs.designs(runs.sample(source, tmp_path / "free", "n=6").path)
    unruled = runs.designs(runs.sample(source, tmp_path / "unruled", "n=6", "costs=repair").path)
    assert (unruled == free).all()
    changed = {}
    for kind in ("repair", "generator"):
        result = runs.sample(source, tmp_path / kind, *rules, f"costs={kind}")
        assert runs.value(result, "valid", designs="ours") == 1
        changed[kind] = (runs.designs(result.path) != free).sum(axis=(1, 2))
    assert (changed["repair"] <= changed["generator"]).all()
    assert (changed["repair"] < changed["generator"]).any()


# -- conflicts ---------------------------------------------------------------------------------------------------------


def test_the_fewest_conflicting_rules_are_named_in_the_users_words(source, tmp_path):
    lines = "count(key) >= 1; count(wall)<=24 ; connected; count(wall)  >=  30"
    with pytest.raises(InvalidInput) as error:
        runs.sample(source, tmp_path / "run", "n=2", f"constraint={lines}")
    said = error.value.message
    assert "'count(wall)<=24' and 'count(wall)  >=  30'" in said
    assert "connected" not in said
    assert "count(key)" not in said


def test_a_rule_that_nothing_meets_is_named_alone(source, tmp_path):
    with pytest.raises(InvalidInput, match=r"no level of 6 x 7 cells meets the rule 'dist\(player,key\) >= 30'"):
        runs.sample(source, tmp_path / "run", "n=2", "constraint=connected; dist(player,key) >= 30")


def test_a_name_the_language_does_not_know_is_named(source, tmp_path):
    with pytest.raises(InvalidInput, match="position 7: unknown tile 'wal'") as error:
        runs.sample(source, tmp_path / "run", "constraint=count(wal) <= 60")
    assert error.value.hint == "did you mean wall?"


# -- diversity ---------------------------------------------------------------------------------------------------------


def test_a_least_distance_is_kept_by_option_and_by_rule(source, tmp_path):
    for name, more in (("a", "min_hamming=9"), ("b", "constraint=hamming(previous) >= 9")):
        result = runs.sample(source, tmp_path / name, "n=6", more)
        grids = runs.designs(result.path)
        pairs = [(a != b).sum() for a, b in itertools.combinations(grids, 2)]
        assert min(pairs) == runs.value(result, "least distance") >= 9
        assert runs.value(result, "no more exist") == 0


def test_no_more_exist_is_said_with_their_number(tmp_path):
    """Three cells in a row hold player, key and door; the door cannot be the middle one: four levels."""
    source = runs.generator_run(tmp_path / "source", height=3, width=5)
    result = runs.sample(source, tmp_path / "run", "n=10", "min_hamming=1", "constraint=connected")
    grids = runs.designs(result.path)
    rows = {tuple(g[1, 1:4].tolist()) for g in grids}
    assert rows == {r for r in itertools.permutations((PLAYER, KEY, DOOR)) if r[1] != DOOR}
    assert runs.value(result, "designs", designs="ours") == len(grids) == 4
    assert runs.value(result, "no more exist") == 1
    assert recipe_results(result)["exhausted"]
    assert "No more exist" in (result.path / "report.html").read_text()


def test_each_design_is_the_cheapest_that_is_far_enough(tmp_path):
    base, h = LevelRules(3, 5), 3
    every = []
    for row in itertools.permutations((PLAYER, KEY, DOOR)):
        grid = np.zeros((3, 5), np.uint8)
        grid[1, 1:4] = row
        if row[1] != DOOR:
            every.append(grid)
    costs = np.random.default_rng(0).normal(size=(6, base.n))
    here = create(tmp_path / "run", OmegaConf.create({}))
    drawn = draw(
        Extended.of(base), costs, solver=HighsSolver(), time_limit_s=9, run=here, min_hamming=h, cells=cells_of(base)
    )
    here.release()
    chosen = []
    for cost, x in zip(costs, drawn.batch.x[drawn.batch.found], strict=False):
        left = [g for g in every if all((g != c).sum() >= h for c in chosen)]
        best = min(left, key=lambda g: cost @ to_x(g))
        assert (to_grid(x, 3, 5) == best).all()
        chosen.append(best)
    assert drawn.exhausted
    assert len(chosen) == drawn.batch.found.sum() < len(every)


def test_repetitions_are_left_out_and_counted(tmp_path):
    source = runs.generator_run(tmp_path / "source", height=3, width=5)
    result = runs.sample(source, tmp_path / "run", "n=30", "dedupe=true", "constraint=connected")
    grids = runs.designs(result.path)
    assert len(np.unique(grids, axis=0)) == len(grids) < 30
    assert recipe_results(result)["repeated"] == 30 - len(grids)
    assert runs.value(result, "unique") == 1


# -- what goes wrong ---------------------------------------------------------------------------------------------------


class Slow(HighsSolver):
    """Ends every second row without an answer."""

    def solve_costs(self, inst, costs, *, time_limit_s, seed=0):
        batch = super().solve_costs(inst, costs, time_limit_s=time_limit_s, seed=seed)
        late = np.arange(len(costs)) % 2 == 1
        status = tuple("timeout" if gone else s for gone, s in zip(late, batch.status, strict=True))
        return dataclasses.replace(batch, found=batch.found & ~late, status=status)


@pytest.mark.parametrize("h", [0, 1])
def test_timeouts_are_counted_and_lose_no_other_design(sampler, tmp_path, monkeypatch, h):
    monkeypatch.setattr(sampler, "solver", Slow())
    found = sampler.under(["count(enemy) == 2"], h, tmp_path)
    late = found.drawn.batch.status.count("timeout")
    assert late >= 1
    assert len(found.grids) == 4 - late
    measured = {m.name: m.value for m in sampler.measure(found, by={})}
    assert measured["timeouts"] == late
    assert measured["designs"] == 4 - late
    assert len(list((tmp_path / "levels").iterdir())) == 4 - late


def test_no_design_at_all_is_an_error(source, tmp_path):
    with pytest.raises(RunError, match=r"none of 2 solves ended with a design.*timeout"):
        runs.sample(source, tmp_path / "run", "n=2", "time_limit_s=1e-9", "constraint=count(enemy) == 2; connected")


def test_a_run_to_verify_must_be_named(tmp_path):
    with pytest.raises(InvalidInput, match="no run is named") as error:
        run("genco/verify", [], folder=tmp_path / "run")
    assert "from=DIR" in error.value.hint


def test_without_a_run_a_generator_is_trained_first(tmp_path):
    brief = ["train.plain=2", "train.through=1", "train.batch=4", "n=3", "reference=4", "constraint=count(wall) <= 60"]
    result = run("genco/sample", brief, folder=tmp_path / "run")
    assert next(m.value for m in result.measurements if m.name == "valid") == 1.0
    assert result.config.train.lr == 2e-3


def test_folders_that_are_no_trained_generator_are_named(tmp_path):
    with pytest.raises(DataError, match="is not a directory"):
        runs.sample(tmp_path / "nowhere", tmp_path / "a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="not a run directory"):
        runs.sample(tmp_path / "empty", tmp_path / "b")
    other = runs.generator_run(tmp_path / "other", recipe="lm/train")
    with pytest.raises(DataError, match="run of lm/train, which trains no level generator"):
        runs.sample(other, tmp_path / "c")
    unfinished = runs.generator_run(tmp_path / "unfinished", weights=False)
    with pytest.raises(DataError, match="no generator can be read"):
        runs.sample(unfinished, tmp_path / "d")
    tiles = runs.generator_run(tmp_path / "tiles", tiles=5)
    with pytest.raises(DataError, match="draws 5 tiles, levels have 8"):
        runs.sample(tiles, tmp_path / "e")
    with pytest.raises(UnknownName):
        runs.sample(tiles, tmp_path / "f", "solver=none")


def test_a_resumed_run_draws_the_same(source, tmp_path, monkeypatch):
    more = ["n=3", "constraint=count(wall) >= 27", "min_hamming=2"]
    whole = runs.sample(source, tmp_path / "whole", *more)
    with monkeypatch.context() as patch:
        patch.setattr(recipe, "save_levels", lambda *_args, **_more: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            runs.sample(source, tmp_path / "again", *more)
    again = run("genco/sample", resume=tmp_path / "again")
    assert (runs.designs(again.path) == runs.designs(whole.path)).all()
    names = ("certificates.jsonl", "summary.json")
    assert all((again.path / n).read_bytes() == (whole.path / n).read_bytes() for n in names)


# -- held-out rules ----------------------------------------------------------------------------------------------------


def test_the_held_out_sets_are_rules_and_all_different():
    base = LevelRules(9, 13)
    assert len(HELD_OUT) == len(set(HELD_OUT)) == 20
    assert all(parse_rules(lines, base).level.rules for lines in HELD_OUT)


def test_held_out_sets_are_measured_one_by_one_and_together(source, tmp_path, monkeypatch):
    sets = (("count(wall) >= 27",), ("dist(player,key) >= 4", "count(enemy) == 0"))
    monkeypatch.setattr(recipe, "HELD_OUT", sets)
    result = runs.sample(source, tmp_path / "run", "n=3", "held_out=true")
    assert runs.value(result, "valid under held-out rules") == 1
    each = [runs.value(result, recipe.JSD, rules="; ".join(lines)) for lines in sets]
    assert runs.value(result, recipe.JSD, rules="held-out") == pytest.approx(np.mean(each))
    assert runs.value(result, f"largest {recipe.JSD}") == max(each)
    page = (result.path / "report.html").read_text()
    assert f"{np.mean(each):.3f} bit in the mean over the sets, {max(each):.3f} at most" in page
    assert sorted(p.name for p in (result.path / "held_out").iterdir()) == ["01", "02"]
    assert run("genco/verify", [f"from={result.path}"], folder=tmp_path / "v").measurements[0].value == 6


def test_a_report_without_results_is_empty(tmp_path):
    here = create(tmp_path / "run", OmegaConf.create({"recipe": "genco/sample"}))
    assert sections(here) == []
    here.release()
