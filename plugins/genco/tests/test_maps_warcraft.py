"""Recipe genco/warcraft: data, arms, measures, report; end to end on a few small maps."""

import json

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from tian.errors import DataError, InvalidInput
from tian.runs.execute import run as execute
from tian.runs.rundir import create, open_existing
from tian_genco.learn.options import EvalOptions, SampleOptions
from tian_genco.maps.arms import VaeArms, VqArms
from tian_genco.maps.data import load
from tian_genco.maps.draw import Row, rows_svg
from tian_genco.maps.options import MapData, ObjectiveOptions, StageOptions, VaeOptions, VqOptions, WarcraftOptions
from tian_genco.maps.recipe import OURS, WITHOUT, Study, plans_of, ratios
from tian_genco.maps.report import sections
from tian_genco.paths.problem import PathProblem
from tian_genco.paths.terrain import costs_of, make_terrain, paths_of, render

SMALL = {
    "data.size": 6,
    "data.train": 40,
    "data.reference": 30,
    "vae.latent": 4,
    "vae.width": 4,
    "train.shared": 3,
    "train.steered": 3,
    "train.batch": 8,
    "objective.samples": 4,
    "sample.n": 12,
}


def options(path, **more):
    return WarcraftOptions(
        data=MapData(path=str(path), train=40, reference=30),
        objective=ObjectiveOptions(samples=3),
        vqvae=VqOptions(codes=8, dims=4, width=4, prior_width=8, head_steps=3, code_steps=3),
        train=StageOptions(shared=2, steered=2, batch=4),
        sample=SampleOptions(8),
        eval=EvalOptions(k=3, critic_steps=0),
        **more,
    )


def write_folder(folder, *, train=30, test=20, size=5):
    """Files in the format of the Warcraft II maps."""
    folder.mkdir(parents=True)
    for split, n, seed in (("train", train, 0), ("test", test, 1)):
        classes = make_terrain(n, seed=seed, size=size)
        np.save(folder / f"{split}_maps.npy", render(classes, seed=seed))
        np.save(folder / f"{split}_vertex_weights.npy", costs_of(classes).astype(np.float16))
        np.save(folder / f"{split}_shortest_paths.npy", paths_of(classes))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("maps") / "5x5")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "run"
    overrides = [f"{k}={v}" for k, v in SMALL.items()] + ["compare=[none,tile-mean]", "curve=[0.02]"]
    return execute("genco/warcraft", overrides, folder=path)


def found(result, name, maps=OURS):
    (m,) = [m for m in result.measurements if m.name == name and m.by["maps"] == maps]
    return m


def test_a_run_measures_every_arm_beside_the_data(finished):
    assert {m.by["maps"] for m in finished.measurements} == {
        "data",
        OURS,
        WITHOUT,
        "tile mean instead",
        "path x 0.02",
    }
    assert found(finished, "valid path").value == found(finished, "valid path", "data").value == 1
    ratio = found(finished, "path cost over that without objective")
    assert ratio.value == pytest.approx(
        found(finished, "path cost").value / found(finished, "path cost", WITHOUT).value
    )
    assert found(finished, "reconstruction").unit == "nat"
    stored = np.load(finished.path / "maps.npz")
    problem = PathProblem(6, 6)
    assert all(problem.broken(x.ravel().astype(float)) == "" for x in stored[f"{OURS} paths"])
    cost = (costs_of(stored[f"{OURS} classes"]) * stored[f"{OURS} paths"]).sum(axis=(1, 2)).mean()
    assert found(finished, "path cost").value == pytest.approx(cost)


def test_its_report_shows_maps_table_and_curve(finished):
    titles = [s.title for s in sections(open_existing(finished.path))]
    assert titles[0].startswith("Shortest paths of sampled maps cost ")
    assert titles[1:] == ["Against the data", "Cost of paths against likeness"]
    page = (finished.path / "report.html").read_text(encoding="utf-8")
    assert "synthetic" in page
    assert page.count("<svg") >= 2


def test_weights_are_kept_and_give_the_same_maps(finished):
    from safetensors.torch import load_file

    from tian_genco.maps.arms import VaeArm
    from tian_genco.maps.vae import MapVAE

    vae = MapVAE(classes=5, height=6, width=6, latent=4, channels=4)
    vae.load_state_dict(load_file(finished.path / "models" / OURS / "vae.safetensors"))
    classes, images = VaeArm(vae.eval()).sample(12, seed=finished.config.seed)
    assert images is None
    assert np.array_equal(classes, np.load(finished.path / "maps.npz")[f"{OURS} classes"])


def test_a_resumed_run_comes_to_the_same_numbers(finished):
    again = execute("genco/warcraft", resume=finished.path)
    assert [m.as_dict() for m in again.measurements] == [m.as_dict() for m in finished.measurements]


def test_without_an_objective_the_ratio_is_one(tmp_path):
    overrides = [f"{k}={v}" for k, v in SMALL.items()]
    result = execute(
        "genco/warcraft", [*overrides, "objective.kind=none", "eval.critic_steps=2"], folder=tmp_path / "run"
    )
    for name in ("path cost", "reconstruction"):
        assert found(result, f"{name} over that without objective").value == 1.0
    assert 0 <= found(result, "critic accuracy").value <= 1
    assert not (result.path / "checkpoints" / WITHOUT.replace(" ", "-")).exists()  # trained once


def test_images_of_a_folder_end_to_end(folder, tmp_path):
    run = create(tmp_path / "run", OmegaConf.create({"recipe": "genco/warcraft", "seed": 0}))
    opts = options(folder, model="vqvae")
    maps = load(opts.data, images=True, seed=0)
    measured = Study(maps, opts, run).measure()
    by_name = {(m.by["maps"], m.name): m for m in measured}
    assert by_name["data", "path cost"].value == pytest.approx(
        float((maps.levels[maps.train.classes[:8]] * np.load(folder / "train_shortest_paths.npy")[:8]).sum()) / 8
    )
    assert by_name[OURS, "reconstruction over that without objective"].value == 1.0  # the prior alone is steered
    assert 0 < by_name[OURS, "code nats"].value < 2 * 25 * np.log(8)
    assert {p.name for p in (run.path / "models" / OURS).iterdir()} == {
        "prior.safetensors",
        "vqvae.safetensors",
        "head.safetensors",
    }
    run.write_json("metrics.json", [m.as_dict() for m in measured])
    assert "codes of a VQ-VAE" in sections(run)[0].html
    run.release()


def test_classes_of_a_folder_are_its_weights(folder):
    maps = load(MapData(path=str(folder)), images=False, seed=0)
    assert np.allclose(maps.levels, [0.8, 1.2, 5.3, 7.7, 9.2], atol=5e-3)  # half precision
    assert np.array_equal(maps.train.classes, make_terrain(30, seed=0, size=5))
    assert np.array_equal(maps.reference.paths, paths_of(make_terrain(20, seed=1, size=5)))
    pixels = maps.pixels(maps.train.images[:3])
    assert np.array_equal(maps.bytes_of(pixels), maps.train.images[:3])


def test_made_maps_of_training_and_reference_differ_and_depend_on_the_seed():
    one, again, other = (load(MapData(size=5, train=9, reference=9), images=True, seed=s) for s in (3, 3, 4))
    assert np.array_equal(one.train.images, again.train.images)
    assert not np.array_equal(one.train.classes, other.train.classes)
    assert not np.array_equal(one.train.classes, one.reference.classes)
    flat = one.pixels(one.train.images)
    assert torch.allclose(flat.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(flat.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-2)


def test_a_weight_no_training_map_has_is_named(tmp_path):
    folder = write_folder(tmp_path / "5x5")
    weights = np.load(folder / "test_vertex_weights.npy")
    paths = np.load(folder / "test_shortest_paths.npy")
    r, c = np.argwhere(paths[3] == 0)[0]
    weights[3, r, c] = 30
    np.save(folder / "test_vertex_weights.npy", weights)
    with pytest.raises(DataError, match=rf"map 3, cell \({r}, {c}\) has the weight 30"):
        load(MapData(path=str(folder)), images=False, seed=0)


def test_weights_that_are_no_classes_are_refused(tmp_path):
    folder = write_folder(tmp_path / "5x5")
    for split in ("train", "test"):
        weights = np.load(folder / f"{split}_vertex_weights.npy").astype(np.float64)
        paths = np.load(folder / f"{split}_shortest_paths.npy")
        away = np.random.default_rng(0).uniform(0, 1, weights.shape)
        np.save(folder / f"{split}_vertex_weights.npy", weights + np.where(paths, 0, 20 + away))
    with pytest.raises(DataError, match="distinct weights"):
        load(MapData(path=str(folder)), images=False, seed=0)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(DataError, match="train_vertex_weights"):
        load(MapData(path=str(tmp_path)), images=True, seed=0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: MapData(size=3),
        lambda: MapData(train=1),
        lambda: ObjectiveOptions(kind="cost"),
        lambda: ObjectiveOptions(weight=-1.0),
        lambda: ObjectiveOptions(samples=0),
        lambda: VaeOptions(latent=0),
        lambda: VqOptions(codes=1),
        lambda: VqOptions(decay=1.0),
        lambda: StageOptions(shared=0),
        lambda: StageOptions(final=1.5),
        lambda: WarcraftOptions(model="gan"),
        lambda: WarcraftOptions(compare=["nothing"]),
        lambda: WarcraftOptions(curve=[0.0]),
        lambda: WarcraftOptions(data=MapData(reference=5)),
    ],
)
def test_bad_options_are_refused(make):
    with pytest.raises(InvalidInput):
        make()


def test_arms_are_planned_once_each():
    plans = plans_of(WarcraftOptions(compare=["none", "tile-mean", "none"], curve=[0.02, 0.1, 0.02]))
    assert [(p.name, p.kind, p.weight) for p in plans] == [
        (OURS, "path", 0.1),
        (WITHOUT, "none", 0.0),
        ("tile mean instead", "tile-mean", 0.1),
        ("path x 0.02", "path", 0.02),
    ]


def test_ratio_of_paired_numbers_has_the_interval_of_the_delta_method():
    rng = np.random.default_rng(0)
    base = rng.uniform(10, 20, 400)
    same = {WITHOUT: {"path cost": base}, OURS: {"path cost": 0.5 * base}}
    (exact,) = ratios(OURS, same)
    assert exact.value == pytest.approx(0.5)
    assert exact.ci95 == pytest.approx((0.5, 0.5))
    ours = 0.5 * base + rng.normal(0, 1, 400)
    (noisy,) = ratios(OURS, {WITHOUT: {"path cost": base}, OURS: {"path cost": ours}})
    boot = [ours[i].mean() / base[i].mean() for i in rng.integers(400, size=(2000, 400))]
    assert noisy.ci95[1] - noisy.ci95[0] == pytest.approx(2 * 1.96 * float(np.std(boot)), rel=0.1)


@pytest.mark.parametrize("kind", [VaeArms, VqArms])
def test_arms_start_alike_and_leave_what_they_share_as_it_was(kind, folder, tmp_path):
    run = create(tmp_path / "run", OmegaConf.create({"recipe": "genco/warcraft", "seed": 0}))
    opts = options(folder)
    arms = kind(load(opts.data, images=True, seed=0), opts, run)
    shared = arms.vae if kind is VaeArms else arms.prior
    before = {k: v.clone() for k, v in shared.state_dict().items()}
    one, two = (arms.arm(None, part=part) for part in ("one", "two"))
    assert all(torch.equal(before[k], v) for k, v in shared.state_dict().items())
    assert np.array_equal(one.sample(5, seed=0)[0], two.sample(5, seed=0)[0])
    net = one.vae if kind is VaeArms else one.prior
    assert any(not torch.equal(before[k], v) for k, v in net.state_dict().items())
    run.release()


def test_gallery_refuses_nothing_to_draw_and_is_the_same_text_every_time():
    with pytest.raises(InvalidInput):
        rows_svg([], legend={}, alt="no maps")
    classes = make_terrain(2, seed=0, size=4)
    row = Row("two", render(classes, seed=0), paths_of(classes), np.array([3.0, 4.0]))
    one, two = (rows_svg([row], legend={}, alt="two maps") for _ in range(2))
    assert one == two


def test_results_are_plain_json(finished):
    results = json.loads((finished.path / "results.json").read_text())
    assert results["arms"][0] == {"name": OURS, "kind": "path", "weight": 0.1}
    assert results["solves"]["failed"] == 0
