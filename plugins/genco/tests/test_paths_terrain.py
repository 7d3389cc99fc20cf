"""Terrain, the loader of maps written in the format of Warcraft, and pictures."""

import itertools
import re

import numpy as np
import pytest

from tian.errors import DataError, InvalidInput
from tian_genco.paths.draw import gallery_png, gallery_svg, walk
from tian_genco.paths.grid import GridPathSolver
from tian_genco.paths.options import TerrainSpec
from tian_genco.paths.problem import PathProblem
from tian_genco.paths.terrain import COLOURS, costs_of, make_terrain, paths_of, render
from tian_genco.paths.warcraft import load_maps


def test_a_map_depends_on_seed_and_index_only():
    maps = make_terrain(5, seed=3)
    assert maps.dtype == np.uint8
    assert maps.shape == (5, 12, 12)
    assert np.array_equal(make_terrain(2, seed=3), maps[:2])
    assert not np.array_equal(make_terrain(5, seed=4), maps)
    assert np.array_equal(render(maps, seed=1)[:2], render(maps[:2], seed=1))
    assert not np.array_equal(render(maps, seed=2), render(maps, seed=1))


def test_version_1_of_the_maps_stays_as_it_is():
    first = make_terrain(1, seed=0)[0]
    assert ["".join(map(str, row)) for row in first[:3]] == GOLDEN


GOLDEN = ["011110011111", "001100011101", "000000111000"]


def test_classes_are_as_frequent_as_the_normal_distribution_says():
    cuts = (-0.6, 0.1, 0.6, 1.1)
    maps = make_terrain(1500, seed=0, size=6)
    above = np.array([0.7257, 0.4602, 0.2743, 0.1357])  # P(N(0, 1) > cut)
    corners = maps[:, [0, 0, -1, -1], [0, -1, 0, -1]]  # the filter may not fade towards the border
    for cells in (maps, corners):
        share = np.array([(cells > k).mean() for k in range(len(cuts))])
        assert np.abs(share - above).max() <= 0.03  # 6000 corners, at most half a correlation: about 4 errors


def test_neighbours_are_as_similar_as_the_filter_makes_them():
    # Two cells at distance r of noise through a filter of width sigma correlate by exp(-r^2 / (4 sigma^2)).
    sides = (make_terrain(4000, seed=1, size=4, spec=TerrainSpec(cuts=(-9.0, 0.0, 8.0, 9.0))) == 2).astype(int)
    agree = (sides[:, 0, 0] == sides[:, 0, 2]).mean()
    r = np.exp(-4 / (4 * 1.6**2))
    assert agree == pytest.approx(0.5 + np.arcsin(r) / np.pi, abs=3 * 0.5 / 4000**0.5)


def test_paths_are_shortest_up_to_the_ties_noise_and_the_same_in_any_batch():
    maps = make_terrain(20, seed=5)
    paths, costs = paths_of(maps), costs_of(maps)
    flat = [PathProblem(12, 12).broken(p.ravel()) for p in paths]
    assert flat == [""] * 20
    assert np.array_equal(paths_of(maps[7:9]), paths[7:9])
    best = GridPathSolver().solve_costs(PathProblem(12, 12).instance(), costs.reshape(20, -1), time_limit_s=10.0)
    gap = (costs * paths).sum((1, 2)) - best.objective
    assert gap.min() >= -1e-9
    assert gap.max() <= 1e-6 * 144
    assert (costs[0] == np.array((0.8, 1.2, 5.3, 7.7, 9.2))[maps[0]]).all()


def test_an_image_shows_its_classes():
    maps = make_terrain(2, seed=0)
    image = render(maps, seed=0)
    assert image.dtype == np.uint8
    assert image.shape == (2, 96, 96, 3)
    cells = image.reshape(2, 12, 8, 12, 8, 3).mean(axis=(2, 4))
    nearest = np.abs(cells[..., None, :] - COLOURS).sum(-1).argmin(-1)
    assert np.array_equal(nearest, maps)
    assert image.std(axis=(1, 2)).min() > 0


@pytest.mark.parametrize(
    "bad", [{"sigma": 0.0}, {"cuts": (1.0, 0.0, 2.0, 3.0)}, {"cuts": (0.0,)}, {"costs": (-1.0,) * 5}]
)
def test_a_senseless_terrain_is_refused(bad):
    with pytest.raises(InvalidInput):
        TerrainSpec(**bad)


def test_a_senseless_number_of_maps_is_refused():
    with pytest.raises(InvalidInput, match="size=1"):
        make_terrain(3, seed=0, size=1)
    assert make_terrain(0, seed=0).shape == (0, 12, 12)


@pytest.fixture
def folder(tmp_path):
    """Maps in the format of Warcraft: 30 to train on, 5 to test."""
    for split, n, seed in (("train", 30, 0), ("test", 5, 1)):
        maps = make_terrain(n, seed=seed)
        np.save(tmp_path / f"{split}_maps.npy", render(maps, seed=seed))
        np.save(tmp_path / f"{split}_vertex_weights.npy", costs_of(maps).astype(np.float16))
        np.save(tmp_path / f"{split}_shortest_paths.npy", paths_of(maps))
    return tmp_path


def change(file, edit):
    array = np.load(file)
    np.save(file, edit(array))


def edited(*where, value):
    def edit(array):
        array[where] = value
        return array

    return edit


def test_maps_on_disk_are_loaded_as_they_are(folder):
    maps = load_maps(folder, "test", limit=3)
    terrain = make_terrain(3, seed=1)
    assert np.array_equal(maps.images, render(terrain, seed=1))
    assert np.array_equal(maps.paths, paths_of(terrain))
    assert np.abs(maps.costs - costs_of(terrain)).max() < 0.01
    assert isinstance(maps.images, np.memmap)
    assert not maps.images.flags.writeable


def test_images_are_normalised_by_the_training_images(folder):
    train = np.load(folder / "train_maps.npy").astype(np.float64)
    maps = load_maps(folder, "test")
    assert np.allclose(maps.mean, train.mean(axis=(0, 1, 2)), rtol=1e-12)
    assert np.allclose(maps.std, train.std(axis=(0, 1, 2)), rtol=1e-9)
    whole = load_maps(folder, "train").normalised(slice(None))
    assert whole.dtype == np.float32
    whole = whole.astype(np.float64)  # for the sums here
    assert np.abs(whole.mean(axis=(0, 1, 2))).max() < 1e-6
    assert np.abs(whole.std(axis=(0, 1, 2)) - 1).max() < 1e-6


def test_a_stored_path_that_is_not_shortest_is_named(folder):
    file = folder / "test_shortest_paths.npy"
    detour = np.zeros((12, 12))
    detour[0, :11] = detour[1:, 11] = 1
    change(file, edited(3, value=detour))
    with pytest.raises(DataError, match=r"test_shortest_paths.npy has a path of cost .* in map 3, the shortest costs"):
        load_maps(folder, "test")


def test_a_stored_path_with_a_gap_is_named(folder):
    file = folder / "test_shortest_paths.npy"
    change(file, edited(2, 11, 11, value=0))
    with pytest.raises(DataError, match=r"no path in map 2: the goal \(11, 11\) is not marked") as error:
        load_maps(folder, "test")
    assert error.value.where == str(file)
    assert "edmond" in error.value.hint


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("test_vertex_weights", edited(1, 0, 0, value=np.nan), "negative or not finite in map 1"),
        ("test_vertex_weights", edited(1, 0, 0, value=-1), "negative or not finite in map 1"),
        ("test_vertex_weights", lambda a: a.astype(int), "int64 [5, 12, 12]"),
        ("test_vertex_weights", lambda a: a[:0], "holds no map"),
        ("test_maps", lambda a: a[:, :90], "has shape [5, 90, 96, 3], due is [5, 96, 96, 3]"),
        ("test_maps", lambda a: a.astype(np.uint16), "uint16"),
        ("train_maps", lambda a: a[..., :1], "due is uint8"),
        ("test_shortest_paths", lambda a: a[:4], "due is [5, 12, 12]"),
        ("test_shortest_paths", lambda a: a * 2, "neither 0 nor 1"),
    ],
)
def test_a_file_of_another_format_is_refused_by_name(folder, name, edit, message):
    file = folder / f"{name}.npy"
    change(file, edit)
    with pytest.raises(DataError, match=f"{name}.*{re.escape(message)}|{re.escape(message)}.*{name}") as error:
        load_maps(folder, "test")
    assert error.value.hint


def test_missing_and_damaged_files_are_refused(folder):
    with pytest.raises(DataError, match=r"there is no val_vertex_weights.npy"):
        load_maps(folder, "val")
    (folder / "test_maps.npy").write_bytes(b"\x93NUMPY junk")
    with pytest.raises(DataError, match=r"test_maps.npy cannot be read as an array"):
        load_maps(folder, "test")


def test_wrong_arguments_are_refused(folder):
    with pytest.raises(InvalidInput, match="split must be one of train, val, test"):
        load_maps(folder, "dev")
    with pytest.raises(InvalidInput, match="limit must be >= 1"):
        load_maps(folder, "test", limit=0)


def test_the_gallery_draws_every_path_from_start_to_goal():
    maps = make_terrain(3, seed=0, size=6)
    paths = paths_of(maps)
    for path in paths:
        cells = walk(path)
        assert (cells[0], cells[-1], len(cells)) == ((0, 0), (5, 5), path.sum())
        assert all(max(abs(a - c), abs(b - d)) == 1 for (a, b), (c, d) in itertools.pairwise(cells))
    svg = gallery_svg(maps, paths, columns=2, captions=["a", "b", "c"], alt='three "maps"')
    assert svg.startswith("<svg ")
    assert 'role="img"' in svg
    assert "three &quot;maps&quot;" in svg
    assert svg.count("<image") == 3
    assert svg == gallery_svg(maps, paths, columns=2, captions=["a", "b", "c"], alt='three "maps"')


def test_the_gallery_as_png(tmp_path):
    maps = make_terrain(1, seed=0, size=6)
    gallery_png(maps, paths_of(maps), tmp_path / "maps.png")
    assert (tmp_path / "maps.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("bad", [{"columns": 0}, {"captions": ["one"]}])
def test_a_gallery_that_cannot_be_is_refused(bad):
    maps = make_terrain(2, seed=0, size=6)
    with pytest.raises(InvalidInput, match="a gallery needs maps"):
        gallery_svg(maps, paths_of(maps), alt="", **bad)
