"""Column sums and rotation in torch."""

from __future__ import annotations

import pytest
import torch
from kernel_cases import COLSUMS, ROTATIONS, colsum_case, rotate_case, tables

from tian_kernels import colsum, prefill_colsum, rotate, rotate_by_table


@pytest.mark.parametrize("name", COLSUMS)
def test_column_sums_are_those_of_the_full_matrix(name):
    found = colsum_case(**COLSUMS[name], kernel=False)
    assert found["sum"] < 1e-4
    assert found["mass"] < 1e-6
    assert found["repeat"] == 0


def test_blocks_of_queries_add_up():
    found = colsum_case(T=300, H=2, kernel=False)  # three blocks of the reference
    assert found["sum"] < 1e-4
    assert found["mass"] < 1e-6


@pytest.mark.parametrize("name", ROTATIONS)
def test_rotation_is_complex_multiplication(name):
    found = rotate_case(**ROTATIONS[name], kernel=False)
    assert found["out"] < (2e-3 if "fp16" in name else 2e-6)
    assert found["input"] == 0


def test_rotation_leaves_lengths_alone():
    x = torch.randn(1, 2, 9, 16, generator=torch.Generator().manual_seed(0))
    turned = rotate_by_table(x, torch.arange(9).expand(1, 1, 9), tables(8, 9))
    assert torch.allclose(turned.norm(dim=-1), x.norm(dim=-1), rtol=1e-6)
    assert not torch.equal(turned[:, :, 1:], x[:, :, 1:])


def test_bytes_are_counted_once():
    x = torch.zeros(2, 3, 5, 16)
    assert rotate.bytes_moved(x, tables(8, 9), in_place=False) == 2 * 3 * 5 * (2 * 16 * 4 + 4) + 5 * 8 * 4
    assert rotate.bytes_moved(x, tables(8, 9), in_place=True) == 2 * 3 * 5 * (2 * 8 * 4 + 4) + 5 * 8 * 4
    k = torch.zeros(2, 1, 7, 16)
    assert colsum.bytes_moved(x, k) == 2 * (3 * 5 + 7) * 16 * 4 + 4 * 2 * 3 * 5 + 4 * 2 * 7


@pytest.mark.parametrize(
    ("position", "message"),
    [(torch.zeros(1, 1, 4, dtype=torch.int32), "position must be"), (torch.zeros(1, 1, 5), "int32 or int64")],
)
def test_positions_that_do_not_fit_are_refused(position, message):
    with pytest.raises(ValueError, match=message):
        rotate_by_table(torch.zeros(1, 2, 5, 16), position, tables(8, 9))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": torch.zeros(1, 2, 4, 8)}, "m <= T"),
        ({"k": torch.zeros(1, 3, 6, 8)}, "multiple of H_kv"),
        ({"lse": torch.zeros(1, 4, 5, dtype=torch.float64)}, "lse must be"),
        ({"start": torch.zeros(2, dtype=torch.int32)}, "start must be"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change, message):
    given = {"q": torch.zeros(1, 4, 5, 8), "k": torch.zeros(1, 2, 6, 8), "lse": torch.zeros(1, 4, 5), **change}
    with pytest.raises(ValueError, match=message):
        prefill_colsum(given.pop("q"), given.pop("k"), given.pop("lse"), scale=1.0, **given)


def test_what_the_kernels_cannot_take_is_known_beforehand():
    x, position = torch.zeros(1, 2, 5, 16), torch.zeros(1, 1, 5, dtype=torch.int32)
    assert rotate.supported(x, position, tables(8, 9))
    assert not rotate.supported(x.transpose(1, 2), position, tables(8, 9))
    lse = torch.zeros(1, 2, 5)
    assert colsum.supported(x, x, lse)
    assert not colsum.supported(x.double(), x.double(), lse)
