"""The kernels compile for GPUs that are not here, into programs that load 16 bytes at a time and spill nothing."""

from __future__ import annotations

import pytest

PROGRAMS = ("_attend", "_settle", "_colsum", "_rotate")


@pytest.fixture(scope="module", params=["80", "90"])
def programs(request, script, tmp_path_factory):
    cache = tmp_path_factory.mktemp("triton")
    return script("compile_cases.py", request.param, "bfloat16", "float32", TRITON_CACHE_DIR=str(cache))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_keys_and_values_come_in_sixteen_byte_loads(programs, dtype):
    # A scalar program would have none; these are the halves of keys, values and tables, per thread and stage.
    assert programs[f"_attend {dtype}"]["async16"] >= 16
    assert programs[f"_attend {dtype}"]["v4"] >= 4
    assert programs[f"_colsum {dtype}"]["v4"] >= 4
    assert programs[f"_rotate {dtype}"]["v4"] >= 4
    assert programs[f"_settle {dtype}"]["v4"] >= 1  # partial results; rows of odd N are read 4 bytes a thread


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_is_spilled_and_shared_memory_suffices(programs, name, dtype):
    found = programs[f"{name} {dtype}"]
    assert found["cubin"] > 0
    assert found["shared_kib"] <= 96  # sm_80 has 163 a block; this leaves room for a second block
    assert found["spills"] in (0, None)


@pytest.mark.slow
def test_sixteen_bit_products_run_on_tensor_cores(programs):
    assert programs["_attend bfloat16"]["tensor_core"] > 0
    assert programs["_colsum bfloat16"]["tensor_core"] > 0
