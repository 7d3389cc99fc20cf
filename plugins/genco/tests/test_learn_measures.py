"""Measures of sets of designs: by hand, by brute force, and the traps they are known for."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tian.errors import DataError
from tian.testing import conformance
from tian_genco.learn import measures
from tian_genco.learn.designs import Layout
from tian_genco.learn.energy import energy_distance, energy_loss, witness_loss
from tian_genco.learn.features import TileFeatures
from tian_genco.levels.rules import LevelRules

GRIDS = st.integers(0, 2**16).map(lambda s: np.random.default_rng(s).integers(0, 3, (7, 4, 5)).astype(np.uint8))


@given(GRIDS)
def test_hamming_counts_cells(grids):
    by_hand = np.array([[(a != b).sum() for b in grids] for a in grids])
    assert np.array_equal(measures.hamming(grids, grids, 3), by_hand)
    off = by_hand.sum(axis=1) / (len(grids) - 1)
    assert np.allclose(measures.mean_hamming(grids, 3), off)


def test_the_mean_of_one_over_copies_is_the_share_of_distinct_designs():
    grids = np.zeros((6, 2, 2), np.uint8)
    grids[4, 0, 0], grids[5, 1, 1] = 1, 2
    assert measures.copies(grids).tolist() == [4, 4, 4, 4, 1, 1]
    assert np.mean(1 / measures.copies(grids)) == pytest.approx(3 / 6)
    assert measures.novel(grids, grids[:1]).tolist() == [False] * 4 + [True] * 2


def test_patterns_of_a_chessboard():
    board = (np.indices((4, 4)).sum(axis=0) % 2).astype(np.uint8)[None]
    shares = measures.pattern_shares(board, 2)
    assert set(np.flatnonzero(shares)) == {0b0110, 0b1001}
    assert shares[[0b0110, 0b1001]].tolist() == [5 / 9, 4 / 9]
    assert measures.pattern_jsd(board, board, 2) == 0.0
    assert measures.pattern_jsd(board, np.zeros_like(board), 2) == pytest.approx(1.0)  # no pattern in common: one bit


def test_density_and_coverage_of_a_line_by_hand():
    # Designs of one row of 8 cells with 0, 1, 2 or 6 ones: distances are differences of these numbers.
    line = lambda *ones: np.array([[[1] * k + [0] * (8 - k)] for k in ones], np.uint8)  # noqa: E731
    reference = line(0, 1, 2, 6)  # radii with k = 1: 1, 1, 1, 4
    density, coverage = measures.density_coverage(line(1, 8), reference, 2, k=1)
    assert density.tolist() == [3.0, 1.0]  # 1 lies in the balls of 0, 1, 2; 8 in that of 6
    assert coverage == 1.0
    density, coverage = measures.density_coverage(line(8), reference, 2, k=1)
    assert density.tolist() == [1.0]
    assert coverage == 0.25


@given(GRIDS)
def test_a_set_covers_itself(grids):
    density, coverage = measures.density_coverage(grids, grids, 3, k=2)
    assert coverage == 1.0
    assert density.min() >= 0.5


def test_far_sets_have_no_density():
    a, b = np.zeros((6, 3, 3), np.uint8), np.full((6, 3, 3), 2, np.uint8)
    a[np.arange(6), 0, 0] = np.arange(6) % 2
    density, coverage = measures.density_coverage(b, a, 3, k=2)
    assert density.sum() == 0
    assert coverage == 0


def test_one_repeated_design_fools_coverage_but_not_unique():
    """The trap the reports warn of: a hub at the centre of sparse designs lies in many balls."""
    rng = np.random.default_rng(0)
    reference = (rng.random((300, 9, 13)) < 0.08).astype(np.uint8)
    hub = np.zeros((300, 9, 13), np.uint8)
    density, coverage = measures.density_coverage(hub, reference, 2)
    assert coverage > 0.4
    assert density.mean() > 10
    assert np.mean(1 / measures.copies(hub)) < 0.01


@given(st.integers(0, 1000))
def test_energy_distance_is_that_of_all_pairs(seed):
    rng = torch.Generator().manual_seed(seed)
    a, b = torch.randn(5, 6, generator=rng), torch.randn(4, 6, generator=rng) + 1
    total = 0.0
    for lo, hi in ((0, 2), (2, 6)):
        d = lambda u, v: float((u[lo:hi] - v[lo:hi]).norm())  # noqa: B023, E731
        total += 2 * sum(d(x, y) for x in a for y in b) / 20
        total -= sum(d(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j) / 20
        total -= sum(d(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j) / 12
    assert float(energy_distance(a, b, [2, 4])) == pytest.approx(total, abs=1e-5)
    within = sum(
        float((x[lo:hi] - y[lo:hi]).norm()) for lo, hi in ((0, 2), (2, 6)) for i, x in enumerate(b) for j, y in enumerate(b) if i != j
    ) / 12  # fmt: skip
    assert float(energy_loss(a, b, [2, 4])) - within == pytest.approx(total, abs=1e-5)


def test_energy_distance_of_one_distribution_is_zero_in_the_mean():
    rng = torch.Generator().manual_seed(0)
    found = [float(energy_distance(*torch.randn(2, 64, 3, generator=rng), [3])) for _ in range(200)]
    error = np.std(found) / len(found) ** 0.5
    assert abs(np.mean(found)) < 3 * error
    assert float(energy_distance(torch.randn(64, 3, generator=rng) + 1, torch.randn(64, 3, generator=rng), [3])) > 0.3


def test_the_witness_falls_towards_the_data_and_away_from_the_frozen_fakes():
    real, frozen = torch.full((4, 1), 2.0), torch.full((4, 1), -2.0)
    at = [float(witness_loss(torch.full((3, 1), v), real, frozen, [1])) for v in (-2.0, 0.0, 2.0, 5.0)]
    assert at == [8.0, 0.0, -8.0, -8.0]  # nothing draws fakes back that went beyond the data: hence the collapse


def test_features_see_places_and_standardise():
    layout = Layout(3, 6, 7)
    rng = np.random.default_rng(1)
    grids = np.zeros((200, 6, 7), np.uint8)
    for g in grids:
        g.ravel()[rng.permutation(42)[:2]] = 1, 2
    planes = layout.planes(torch.from_numpy(layout.x(grids)).float())
    features = TileFeatures(tiles=3, height=6, width=7, unique=[1, 2], seed=0)
    features.fit(planes)
    found = features(planes)
    assert found.shape[1] == sum(features.sizes)
    for block in found.split(features.sizes, dim=1):
        assert float(block.mean(0).abs().max()) < 1e-4
        assert float(block.square().sum(1).mean()) <= 1.01  # of unit size at most
    # The same counts at other places: the last blocks tell.
    count, moved = sum(features.sizes[:4]), features(planes.roll(3, dims=3))
    assert torch.allclose(moved[:, :3], found[:, :3], atol=1e-5)
    assert not torch.allclose(moved[:, count:], found[:, count:], atol=0.1)


def test_the_offset_block_depends_on_offsets_alone():
    features = TileFeatures(tiles=3, height=8, width=8, unique=[1, 2], seed=0)

    def at(a, b):
        x = torch.zeros(1, 3, 8, 8)
        x[0, 1][a], x[0, 2][b] = 1.0, 1.0
        return features.blocks(x)[-1]

    assert torch.allclose(at((1, 2), (3, 5)), at((4, 0), (6, 3)), atol=1e-5)
    assert not torch.allclose(at((1, 2), (3, 5)), at((3, 5), (1, 2)), atol=1e-2)  # who is where matters


@pytest.mark.parametrize("layout", [Layout(8, 5, 6), Layout(2, 5, 6, binary=True), Layout(2, 5, 6)])
def test_layouts_go_back_and_forth(layout):
    grids = np.random.default_rng(0).integers(0, layout.tiles, (4, 5, 6)).astype(np.uint8)
    x = layout.x(grids)
    assert x.shape == (4, layout.n)
    assert np.array_equal(layout.grids(x), grids)
    planes = layout.planes(torch.from_numpy(x))
    assert torch.equal(planes.sum(dim=1), torch.ones(4, 5, 6, dtype=torch.float64))
    assert np.array_equal(planes.argmax(dim=1).numpy(), grids)
    # Without rules the cheapest design is the likeliest tile of each cell.
    logits = torch.from_numpy(np.random.default_rng(1).normal(size=(4, layout.tiles, 5, 6)))
    costs = layout.costs(logits).numpy()
    best = layout.x(logits.argmax(dim=1).numpy().astype(np.uint8))
    for c, b in zip(costs, best, strict=True):
        cheapest = np.minimum(c, 0).sum() if layout.binary else c.reshape(layout.tiles, -1).min(axis=0).sum()
        assert c @ b == pytest.approx(cheapest)


RULES = LevelRules(5, 6)
DESIGNS = np.random.default_rng(2).integers(0, 8, (6, 5, 6)).astype(np.uint8)
TestValidity = conformance.evaluator("genco/validity", data=Layout(8, 5, 6).x(DESIGNS), subject=RULES, bad_data=DESIGNS)
TestDiversity = conformance.evaluator("genco/diversity", data=DESIGNS, subject=DESIGNS[:2], bad_data=[1, 2])


def test_evaluators_say_what_they_want():
    import tian

    with pytest.raises(DataError, match="x \\[n, n_x\\]"):
        tian.load("evaluator", "genco/validity").samples("levels", limit=None, seed=0)
