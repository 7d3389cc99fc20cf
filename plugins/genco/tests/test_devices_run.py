"""The recipe from end to end, very small: what is measured, that objectives matter, that it resumes, what it draws."""

import dataclasses

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from tian.errors import InvalidInput
from tian.runs.execute import run
from tian.runs.rundir import create
from tian_genco.devices import device as recipe
from tian_genco.devices.draw import HEAT, gallery_svg
from tian_genco.devices.make import make_designs, rules_of
from tian_genco.devices.options import ARMS, DeviceData, DeviceOptions, ObjectiveOptions
from tian_genco.devices.report import sections
from tian_genco.devices.training import Matched, Objective
from tian_genco.grad.options import GradOptions
from tian_genco.learn.generator import straight_through
from tian_genco.learn.pipeline import Pipeline
from tian_genco.learn.task import costs_of

SMALL = [
    "data.height=7",
    "data.width=8",
    "data.train=60",
    "data.reference=30",
    "generator.channels=4",
    "generator.nz=4",
    "train.plain=6",
    "train.through=4",
    "train.batch=6",
    "train.reals=20",
    "sample.n=40",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("device") / "run"
    return folder, run("genco/device", SMALL, folder=folder)


def found(result, name):
    return {m.by["arm"]: m for m in result.measurements if m.name == name}


def test_every_way_gives_designs_that_the_checker_accepts(finished):
    folder, result = finished
    rules = rules_of(7, 8, "plus")
    with np.load(folder / "designs.npz") as designs:
        assert set(designs.files) == set(ARMS)
        for arm in ARMS:
            assert designs[arm].shape == (40, 7, 8)
            assert all(rules.broken(x.ravel().astype(float)) == "" for x in designs[arm])
    valid = found(result, "valid")
    assert {arm: m.value for arm, m in valid.items()} == dict.fromkeys(ARMS, 1.0)
    for name in ("valid without the solver", "simulated loss without the solver"):
        assert set(found(result, name)) == set(ARMS)
    for name in ("unique", "Hamming", "energy distance", "density", "coverage", "simulated loss"):
        assert set(found(result, name)) == {*ARMS, "data"}


def test_the_ratio_is_of_means_and_paired(finished):
    folder, result = finished
    objective = Objective(recipe.network_of(DeviceData(height=7, width=8)), [0.08, 0.04], 1.0)
    with np.load(folder / "designs.npz") as designs:
        losses = {arm: recipe.simulate(objective, designs[arm]) for arm in ARMS}
    ratios = found(result, "simulated loss over that of post-processing")
    assert set(ratios) == {"through", "through+objective"}
    for arm, m in ratios.items():
        assert m.value == pytest.approx(losses[arm].mean() / losses["postprocess"].mean())
        assert m.ci95[0] < m.value < m.ci95[1]
    base = np.random.default_rng(0).uniform(1, 2, 50)
    exact = recipe.ratio(0.5 * base, base, "through")
    assert exact.value == pytest.approx(0.5)
    assert exact.ci95 == pytest.approx((0.5, 0.5))  # no spread at all once paired


def test_a_resumed_run_ends_alike(finished, monkeypatch):
    folder, result = finished
    steps = []
    original = Matched.forward
    monkeypatch.setattr(Matched, "forward", lambda *a, **k: steps.append(1) or original(*a, **k))
    again = run("genco/device", resume=folder)
    assert [m.as_dict() for m in again.measurements] == [m.as_dict() for m in result.measurements]
    assert not steps


@pytest.mark.parametrize("arm", ARMS)
def test_the_weight_of_the_objective_reaches_the_generator_where_it_should(arm, tmp_path):
    weights = []
    for weight in (0.0, 50.0):
        folder = tmp_path / str(weight)
        run("genco/device", [*SMALL, f"arms=[{arm}]", f"objective.weight={weight}"], folder=folder)
        weights.append((folder / "generators" / arm / "generator.safetensors").read_bytes())
    assert (weights[0] == weights[1]) == (arm == "through")


def test_arms_differ_in_nothing_but_the_objective(tmp_path):
    """Without weight, the ways through the solver are one and the same."""
    folder = tmp_path / "run"
    run("genco/device", [*SMALL, "objective.weight=0", "arms=[through,through+objective]"], folder=folder)
    with np.load(folder / "designs.npz") as designs:
        assert np.array_equal(designs["through"], designs["through+objective"])


def test_the_objective_pulls_a_generator_to_its_target(tmp_path):
    """With hardly anything but the objective, the loss of what the solver returns falls."""
    changes = ["train.plain=0", "train.through=30", "train.batch=16", "train.lr_through=0.005", "grad.name=identity"]
    arms = ["objective.weight=200", "arms=[through,through+objective]"]
    result = run("genco/device", [*SMALL, *changes, *arms], folder=tmp_path / "run")
    loss = found(result, "simulated loss")
    assert loss["through+objective"].ci95[1] < loss["through"].ci95[0]


def test_the_gradient_of_the_simulation_comes_through_the_solver(tmp_path):
    options = DeviceOptions(data=DeviceData(height=7, width=8, train=20, reference=10))
    here = create(tmp_path / "run", OmegaConf.create({"seed": 0}))
    task = recipe.device_task(options.data, seed=0)
    pipeline = Pipeline(task, options, here, seed=0)
    objective = Objective(recipe.network_of(options.data), [0.1, 0.05], 1.0)
    logits = torch.randn(3, 2, 7, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    head, layer = pipeline.head("logit"), pipeline.layer(GradOptions(name="blackbox", lam=1.0))
    planes = head.layout.planes(layer(head(logits)))
    assert set(planes.unique().tolist()) == {0.0, 1.0}
    assert all(task.problem.broken(x.double().numpy()) == "" for x in planes[:, 1].detach().flatten(1))
    objective(planes[:, 1]).sum().backward()
    assert logits.grad.abs().sum() > 0
    assert layer.counts()["route"] == {"profile": 6}  # forward and black-box backward
    assert straight_through(logits)[:, 1].min() > -1e-6
    here.release()


def test_samples_of_all_ways_come_from_the_same_noise(tmp_path):
    options = DeviceOptions(data=DeviceData(height=7, width=8, train=20, reference=10))
    here = create(tmp_path / "run", OmegaConf.create({"seed": 0}))
    pipeline = Pipeline(recipe.device_task(options.data, seed=0), options, here, seed=0)
    net, head = pipeline.fresh(), pipeline.head("logit")
    one, other = (costs_of(net, head, 5, seed=0)[0] for _ in range(2))
    assert np.array_equal(one, other)
    here.release()


def test_the_report_draws_every_way_and_says_what_it_is_not(finished, tmp_path):
    folder, _ = finished
    page = (folder / "report.html").read_text()
    assert page.count('role="img"') == 4
    assert "not electromagnetics" in page
    assert "resistor network" in page
    assert all(arm in page for arm in ARMS)
    empty = create(tmp_path / "empty", OmegaConf.create({"recipe": "genco/device"}))
    assert sections(empty) == []
    empty.release()


def test_a_gallery_has_each_cell_of_material_once():
    grids = make_designs(3, seed=0, rules=rules_of(7, 8, "plus"))
    network = recipe.network_of(DeviceData(height=7, width=8))
    svg = gallery_svg(grids, network, columns=2, captions=["a", "<b>", "c"], alt='three "devices"')
    assert svg.count("h10.2v10.2h-10.2z") == grids.sum()
    assert HEAT[-1] in svg
    assert "&lt;b&gt;" in svg
    assert "three &quot;devices&quot;" in svg
    assert len(gallery_svg(grids[:1], network, columns=2, alt="one")) < 5000
    with pytest.raises(InvalidInput, match="2 captions for 3 devices"):
        gallery_svg(grids, network, columns=2, captions=["a", "b"], alt="")
    with pytest.raises(InvalidInput, match="needs a device"):
        gallery_svg(grids[:0], network, columns=2, alt="")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DeviceOptions(arms=["guess"]), r"arms must be different ones .* got \['guess'\]"),
        (lambda: DeviceOptions(arms=[]), "arms must be different ones"),
        (lambda: DeviceOptions(arms=["through", "through"]), "arms must be different ones"),
        (lambda: ObjectiveOptions(weight=-1), "weight must be >= 0"),
        (lambda: ObjectiveOptions(weight=float("nan")), "weight must be >= 0"),
        (lambda: ObjectiveOptions(targets=[0.1]), "two currents between 0 and 1"),
        (lambda: ObjectiveOptions(targets=[0.1, 0.0]), "two currents between 0 and 1"),
        (lambda: DeviceData(height=6), "must be >= 7, got 6 x"),
        (lambda: DeviceData(train=1), "train and reference must be >= 2"),
        (
            lambda: DeviceOptions(train=dataclasses.replace(DeviceOptions().train, loss="wgan-gp")),
            "trained on the energy distance",
        ),
    ],
)
def test_options_out_of_range_are_named(make, said):
    with pytest.raises(InvalidInput, match=said):
        make()


def test_an_unknown_brush_is_named(tmp_path):
    with pytest.raises(InvalidInput, match="no brush 'comb'"):
        run("genco/device", [*SMALL, "data.brush=comb"], folder=tmp_path / "run")
