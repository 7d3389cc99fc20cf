"""The laboratory: its exact gradient is exact, its ruler unbiased, its controls fail, its rows resume."""

import json
import math

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from tian.errors import InvalidInput
from tian.runs.rundir import create
from tian_genco.grad import laboratory as lab
from tian_genco.grad.laboratory_report import sections
from tian_genco.grad.noise import draw, generator
from tian_genco.grad.options import LaboratoryOptions
from tian_genco.grad.oracle import Oracle
from tian_genco.grad.placement import Placement, PlacementSolver

SMALL = Placement(2, 2)
COST = torch.tensor([0.3, -0.4, 0.1, 0.0], dtype=torch.float64)


def points(problem, count, seed=0):
    return draw("normal", (count, problem.n), generator(seed, 9))


# -- exact -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", [SMALL, Placement(3, 3), Placement(3, 8)])
@pytest.mark.parametrize("sigma", [0.05, 0.5, 3.0])
def test_chances_add_up_and_are_unmoved_by_more_nodes(problem, sigma, monkeypatch):
    c = points(problem, 1)[0]
    chances = problem.chances(c, sigma)
    assert abs(float(chances.sum()) - 1) < 1e-12
    assert chances.min() >= 0
    monkeypatch.setattr("tian_genco.grad.placement.NODES", 800)
    assert torch.allclose(problem.chances(c, sigma), chances, atol=1e-12)


def test_chances_of_two_cells_are_in_closed_form():
    # two of four cells, one always in, one never: a duel of the others
    c = torch.tensor([-9.0, 0.2, 0.5, 9.0], dtype=torch.float64)
    chances = SMALL.chances(c, 0.7)
    first = 0.5 * (1 + math.erf(0.3 / (0.7 * math.sqrt(2)) / math.sqrt(2)))
    expected = {(0, 1): first, (0, 2): 1 - first}
    for chosen, chance in zip(SMALL.sets().tolist(), chances.tolist(), strict=True):
        assert abs(chance - expected.get(tuple(chosen), 0.0)) < 1e-12


def test_chances_are_the_frequencies_of_the_solver():
    problem, draws = Placement(3, 3), 40_000
    c = points(problem, 1)[0]
    oracle = Oracle(PlacementSolver(), problem, time_limit_s=1.0)
    x = oracle(c + 0.4 * draw("normal", (draws, 9), generator(1, 1)))
    chances = problem.chances(c, 0.4)
    counts = (x @ problem.vertices().T == 3).double().sum(0)
    assert counts.sum() == draws
    error = (draws * chances * (1 - chances)).sqrt()
    assert ((counts - draws * chances).abs() <= 4.5 * error + 1).all()  # of 84 sets; 4.5 leaves no doubt


def test_exact_gradients_are_finite_differences_and_differ_from_each_other():
    loss, step = lab.Loss(SMALL, 0), 1e-5
    exact = lab.exact_gradients(SMALL, loss, COST, 0.5)
    vertices = SMALL.vertices()

    def of_loss(c):
        return float(SMALL.chances(c, 0.5) @ loss(vertices))

    def of_mean(c):
        return float(loss((SMALL.chances(c, 0.5) @ vertices)[None]))

    for value, gradient in ((of_loss, exact.of_loss), (of_mean, exact.of_mean)):
        for i, e in enumerate(torch.eye(4, dtype=torch.float64)):
            difference = (value(COST + step * e) - value(COST - step * e)) / (2 * step)
            assert abs(difference - float(gradient[i])) < 1e-8
        assert abs(float(gradient.sum())) < 1e-12  # a constant on all cells changes nothing
    assert (exact.of_loss - exact.of_mean).norm() > 0.05 * exact.of_loss.norm()


def test_vertices_are_the_valid_ones_and_the_solver_finds_the_least():
    problem = Placement(3, 3)
    vertices = problem.vertices()
    assert len(vertices) == math.comb(9, 3)
    assert all(problem.broken(v.numpy()) == "" for v in vertices)
    assert problem.broken(np.eye(9)[0]) == "1 cells are marked, not 3"
    assert problem.broken(np.full(9, 1 / 3)) == "cell (0, 0) is 0.333333"
    c = points(problem, 50).numpy()
    found = PlacementSolver().solve_costs(problem.instance(), c, time_limit_s=1.0)
    assert np.allclose(found.objective, (c @ vertices.numpy().T).min(1), atol=1e-14)
    with pytest.raises(InvalidInput, match="NaN"):
        PlacementSolver().solve(problem.instance(np.full(9, np.nan)), time_limit_s=1.0)
    with pytest.raises(InvalidInput, match="not solved here"):
        PlacementSolver().solve(lab.QPTL(problem).milp.instance(), time_limit_s=1.0)


# -- the ruler ---------------------------------------------------------------------------------------------------------


def test_the_score_function_is_unbiased():
    problem, repeats = Placement(3, 3), 20_000
    loss = lab.Loss(problem, 0)
    oracle = Oracle(PlacementSolver(), problem, time_limit_s=1.0)
    for c in points(problem, 2):
        z = draw("normal", (repeats, 4, 9), generator(3, 1))
        found = lab.score_function(oracle, loss, c.expand(repeats, -1), 0.3, z)
        error = found.std(0) / repeats**0.5
        exact = lab.exact_gradients(problem, loss, c, 0.3).of_loss
        assert ((found.mean(0) - exact).abs() <= 4 * error).all()
        assert exact.norm() > 5 * error.norm()  # sharp enough to see a bias


def test_numbers_of_few_estimates_have_no_bias():
    # five estimates of mean h with unit noise in six entries, many times over
    source = torch.Generator().manual_seed(0)
    h, g = torch.randn(2, 6, generator=source, dtype=torch.float64)
    exact = lab.Exact(of_loss=g, of_mean=2 * g)
    trials = [lab.numbers(h + torch.randn(5, 6, generator=source).double(), exact) for _ in range(3000)]
    expected = {"dot": h @ g, "dot_mean": 2 * h @ g, "square": h @ h, "variance": 6.0, "exact": g @ g}
    for name, value in expected.items():
        found = np.array([trial[name] for trial in trials])
        assert abs(found.mean() - float(value)) <= 4 * found.std() / 3000**0.5 + 1e-12


def test_figures_of_estimates_that_are_known():
    # 0.5 g, exactly: right direction, half the length
    g = torch.tensor([1.0, 4.0, 9.0, 2.0])
    row = {"solves": 2.0, "dot": (g / 2).tolist(), "dot_mean": (-g / 2).tolist(), "square": (g / 4).tolist()}
    row |= {"variance": [0.0] * 4, "exact": g.tolist(), "exact_mean": g.tolist()}
    expected = {"cosine": 1, "cosine, loss of the mean": -1, "scale": 0.5, "relative bias": 0.5, "noise": 0}
    found = lab.figures(row)
    for name, value in expected.items():
        assert found[name] == (pytest.approx(value, abs=1e-7), pytest.approx(0, abs=1e-7))
    assert found["progress per solve"][0] == pytest.approx(0.5)
    row["variance"] = (3 * g / 4).tolist()
    assert lab.figures(row)["noise"][0] == pytest.approx(3**0.5)
    assert lab.figures(row)["progress per solve"][0] == pytest.approx(0.125)


def test_the_jackknife_error_of_a_mean_is_its_standard_error():
    values = [0.2, 0.9, 0.4, 0.7, 0.1]
    row = {"solves": 1.0, "dot": values, "dot_mean": values, "square": [1.0] * 5, "variance": [0.0] * 5}
    row |= {"exact": [1.0] * 5, "exact_mean": [1.0] * 5}
    assert lab.figures(row)["scale"] == (
        pytest.approx(np.mean(values)),
        pytest.approx(np.std(values, ddof=1) / 5**0.5),
    )


# -- the recipe --------------------------------------------------------------------------------------------------------

OPTIONS = LaboratoryOptions(points=12, repeats=100, lams=[0.3, 3.0], samples=[4])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = create(tmp_path_factory.mktemp("lab") / "run", OmegaConf.create({"recipe": "genco/estimators", "seed": 0}))
    found = lab.compare(OPTIONS, run, seed=0)
    yield run, found
    run.release()


def values(found, name):
    return {m.by["estimator"]: m for m in found if m.name == name}


def test_estimators_are_ranked_as_theory_says(finished):
    _, found = finished
    cosine, noise = values(found, "cosine"), values(found, "noise")
    scale = values(found, "scale")["score function, 4 samples"]
    assert cosine["score function, 4 samples"].value > 0.95
    assert abs(scale.value - 1) <= 3 * (scale.ci95[1] - scale.value) / 1.96
    # a longer step is more biased and less noisy
    assert cosine["blackbox, lambda 0.3"].value > cosine["blackbox, lambda 3"].value
    assert noise["blackbox, lambda 0.3"].value > noise["blackbox, lambda 3"].value
    # a perturbed optimum is made for the loss of the mean
    assert values(found, "cosine, loss of the mean")["perturbed, 4 samples"].value > 0.9
    assert all(m.value > 0 for name, m in cosine.items() if "control" not in name)


def test_the_wrong_sign_is_seen(finished):
    _, found = finished
    cosine = values(found, "cosine")
    assert cosine["wrong sign (control)"].value == pytest.approx(-cosine["identity"].value, abs=1e-12)
    assert cosine["wrong sign (control)"].ci95[1] < 0 < cosine["identity"].ci95[0]


def test_solves_are_counted(finished):
    run, _ = finished
    rows = run.read_json(lab.FILE)["rows"]
    # at most: rows of which nothing comes from above need no second solve
    most = {"identity": 1, "blackbox, lambda 0.3": 2, "perturbed, 4 samples": 4, "imle two-sided, lambda 3": 12}
    for name, count in most.items():
        assert 0.9 * count <= rows[name]["solves"] <= count


def test_a_resumed_run_keeps_finished_rows_and_ends_alike(finished, tmp_path, monkeypatch):
    run, found = finished
    data = run.read_json(lab.FILE)
    kept = {label: row for label, row in data["rows"].items() if "identity" not in label and "control" not in label}
    other = create(tmp_path / "run", OmegaConf.create({"recipe": "genco/estimators", "seed": 0}))
    other.write_json(lab.FILE, {**data, "rows": kept})
    original, measured = lab.measure, []
    monkeypatch.setattr(lab, "measure", lambda arm, *rest: measured.append(arm.label) or original(arm, *rest))
    again = lab.compare(OPTIONS, other, seed=0)
    other.release()
    assert sorted(again, key=str) == sorted(found, key=str)
    assert measured == ["identity", "wrong sign (control)"]


def test_the_report_has_a_plot_every_row_and_says_it_is_constructed(finished, tmp_path):
    run, _ = finished
    first, second = sections(run)
    assert "<svg" in first.html
    assert (run.path / "plots" / "estimators.svg").exists()
    for name in run.read_json(lab.FILE)["rows"]:
        assert name in second.html
    assert "onstructed" in first.html
    assert "onstructed" in second.title
    empty = create(tmp_path / "empty", OmegaConf.create({"recipe": "genco/estimators"}))
    assert sections(empty) == []
    empty.release()


def test_results_are_plain_json(finished):
    run, found = finished
    json.dumps([m.as_dict() for m in found], allow_nan=False)
    assert all(len(row["dot"]) == OPTIONS.points for row in run.read_json(lab.FILE)["rows"].values())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"side": 5}, "side must be 2 to 4"),
        ({"placed": 9}, "placed must be 1 to 8, got 9"),
        ({"lams": [0.1, -1.0]}, "lams > 0"),
        ({"mu": 0.0}, "gamma, mu and lams > 0"),
        ({"points": 1}, "points >= 4"),
        ({"samples": [1]}, "samples must be >= 2"),
    ],
)
def test_options_out_of_range_are_named(options, said):
    with pytest.raises(InvalidInput, match=said):
        LaboratoryOptions(**options)
