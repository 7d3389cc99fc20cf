"""The triton kernels, interpreted on the CPU, against the references and against plain lists."""

from __future__ import annotations

import pytest
from kernel_cases import COLSUMS, INTERPRETED_STREAMS, QUICK_COLSUMS, QUICK_ROTATIONS, QUICK_SHAPES, ROTATIONS, SHAPES

# One rounding of a number of size 1 to 4, and float32 sums of a few dozen terms.
ROUNDING = {"fp16": 2e-3, "bf16": 1.6e-2}
SINGLE = 2e-5


def tolerance(name):
    return next((size for dtype, size in ROUNDING.items() if dtype in name), SINGLE)


@pytest.fixture(scope="module")
def quick(script):
    return script("kernel_cases.py", "quick", TRITON_INTERPRET="1")


@pytest.fixture(scope="module")
def shapes(script):
    return script("kernel_cases.py", "shapes", TRITON_INTERPRET="1")


@pytest.fixture(scope="module")
def streams(script):
    return script("kernel_cases.py", "streams", TRITON_INTERPRET="1")


def check_shape(name, found):
    assert found["book"] == 0, "ranks, free slots, counts and stored keys and values are the reference's, bit by bit"
    assert found["out"] < tolerance(name)
    assert found["score"] < SINGLE


def check_colsum(found):
    assert found["sum"] < 1e-4
    assert found["mass"] < 1e-6
    assert found["repeat"] == 0


def check_rotation(name, found):
    assert found["out"] < tolerance(name)
    assert found["input"] == 0


@pytest.mark.parametrize("name", QUICK_SHAPES)
def test_a_step_is_the_references_step(quick, name):
    check_shape(name, quick[f"shape {name}"])


@pytest.mark.parametrize("name", QUICK_COLSUMS)
def test_column_sums_are_those_of_the_full_matrix(quick, name):
    check_colsum(quick[f"colsum {name}"])


@pytest.mark.parametrize("name", QUICK_ROTATIONS)
def test_rotation_is_complex_multiplication(quick, name):
    check_rotation(name, quick[f"rotate {name}"])


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in SHAPES if n not in QUICK_SHAPES and n != "not a number"])
def test_more_steps_are_the_references_steps(shapes, name):
    check_shape(name, shapes[f"shape {name}"])


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in COLSUMS if n not in QUICK_COLSUMS])
def test_more_column_sums_are_those_of_the_full_matrix(shapes, name):
    check_colsum(shapes[f"colsum {name}"])


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in ROTATIONS if n not in QUICK_ROTATIONS])
def test_more_rotations_are_complex_multiplication(shapes, name):
    check_rotation(name, shapes[f"rotate {name}"])


@pytest.mark.slow
def test_scores_that_are_not_numbers_cost_the_oldest_token_and_no_slot(shapes):
    assert shapes["poison"] == {"sound": 1.0, "oldest": 1.0}


@pytest.mark.slow
@pytest.mark.parametrize("name", INTERPRETED_STREAMS)
def test_seventy_steps_from_empty_keep_what_a_list_keeps(streams, name):
    found = streams[f"stream {name}"]
    assert found["kept"] == 0
    assert found["out"] < SINGLE
    assert found["score"] < 5e-5  # a sum over 70 rows
