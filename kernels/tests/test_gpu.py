"""The kernels on a GPU: the cases of the interpreter and layers of real models in every dtype, and a captured graph."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from kernel_cases import (
    COLSUMS,
    MODEL_COLSUMS,
    MODEL_ROTATIONS,
    MODEL_SHAPES,
    ROTATIONS,
    SHAPES,
    STREAMS,
    World,
    against_lists,
    colsum_case,
    kernel_against_reference,
    poisoned,
    rotate_case,
)

from tian_kernels import decode_attention

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
# Storage in 16 bits: products in tf32 (ten bits), one rounding of the output.
TOLERANCE = {torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}
ROUNDING = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}  # once, of numbers of size 4 to 8

SUM = {torch.float32: 1e-4, torch.float16: 1e-3, torch.bfloat16: 1e-3}  # of weights; lse is exact


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", [n for n in SHAPES if n != "not a number"])
def test_a_step_is_the_references_step(name, dtype):
    # Scores a rounding apart may order victims differently, so 16-bit runs stop before the first eviction by score.
    case = SHAPES[name]
    steps = 3 if dtype == torch.float32 or case.first == case.last else 1
    found = kernel_against_reference(replace(case, device="cuda", dtype=dtype, steps=steps))
    assert found["book"] == 0
    assert found["out"] < TOLERANCE[dtype]
    assert found["score"] < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", MODEL_SHAPES)
def test_a_step_of_a_models_layer_is_the_references_step(name, dtype):
    found = kernel_against_reference(replace(MODEL_SHAPES[name], dtype=dtype))
    assert found["book"] == 0, "three victims among scores far apart"
    assert found["out"] < TOLERANCE[dtype] * found["size"]  # means over thousands of values are small
    assert found["score"] < TOLERANCE[dtype]


@pytest.mark.parametrize("name", STREAMS)
def test_seventy_steps_from_empty_keep_what_a_list_keeps(name):
    found = against_lists(replace(STREAMS[name], device="cuda"), kernel=True)
    assert found["kept"] == 0
    assert found["out"] < 2e-5


def test_scores_that_are_not_numbers_cost_the_oldest_token_and_no_slot():
    assert poisoned(replace(SHAPES["not a number"], device="cuda"), kernel=True) == {"sound": 1.0, "oldest": 1.0}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", COLSUMS)
def test_column_sums_are_those_of_the_full_matrix(name, dtype):
    found = colsum_case(**COLSUMS[name] | {"dtype": dtype}, kernel=True, device="cuda")
    assert found["sum"] < SUM[dtype]
    assert found["mass"] < SUM[dtype] / 10
    assert found["repeat"] == 0


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", MODEL_COLSUMS)
def test_column_sums_of_a_models_layer_are_those_of_the_full_matrix(name, dtype):
    found = colsum_case(**MODEL_COLSUMS[name], dtype=dtype, kernel=True, device="cuda")
    assert found["sum"] < 10 * SUM[dtype]  # of thousands of terms
    assert found["mass"] < SUM[dtype] / 10
    assert found["repeat"] == 0


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("name", [*ROTATIONS, *(f"model {n}" for n in MODEL_ROTATIONS)])
def test_rotation_is_complex_multiplication(name, dtype):
    options = MODEL_ROTATIONS[name.removeprefix("model ")] if name.startswith("model ") else ROTATIONS[name]
    found = rotate_case(**options | {"dtype": dtype}, kernel=True, device="cuda")
    assert found["out"] < ROUNDING[dtype]
    assert found["input"] == 0


def test_one_graph_serves_a_filling_and_a_full_cache():
    case = replace(STREAMS["heavy"], device="cuda")
    eager, captured = World(case), World(case)
    q, k, v = (torch.zeros(case.B, heads, case.D, device="cuda") for heads in (case.H, case.H_kv, case.H_kv))
    scratch = World(case)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):  # compiles outside the capture
        decode_attention(q, k, v, scratch.slots, kernel="triton", **scratch.options)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = decode_attention(q, k, v, captured.slots, kernel="triton", **captured.options)
    for _ in range(case.steps):
        inputs = eager.inputs()
        for static, new in zip((q, k, v), inputs, strict=True):
            static.copy_(new)
        graph.replay()
        expected = decode_attention(*inputs, eager.slots, kernel="triton", **eager.options)
        assert torch.equal(out, expected)
    assert torch.equal(captured.slots.rank, eager.slots.rank)
