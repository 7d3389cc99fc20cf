"""Which implementation runs."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from tian_kernels import choose, dispatch


@pytest.fixture
def machine(monkeypatch):
    def make(*, cuda, triton):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(dispatch, "triton_imports", lambda: triton)

    return make


@pytest.mark.parametrize(
    ("cuda", "triton", "device", "chosen"),
    [
        (True, True, "cuda", "triton"),
        (True, True, "cuda:1", "triton"),
        (True, True, "cpu", "torch"),
        (True, False, "cuda", "torch"),
        (False, True, "cuda", "torch"),
        (False, False, "cpu", "torch"),
    ],
)
def test_auto_is_triton_exactly_with_cuda_and_triton(machine, cuda, triton, device, chosen):
    machine(cuda=cuda, triton=triton)
    assert choose("auto", device) == chosen
    assert choose("torch", torch.device(device)) == "torch"


@pytest.mark.parametrize(
    ("cuda", "triton", "device", "named", "not_named"),
    [
        (False, True, "cpu", "CUDA device", "triton package"),
        (True, True, "cpu", "tensors are on cpu", "triton package"),
        (True, False, "cuda", "triton package", "CUDA device"),
        (False, False, "cpu", "CUDA device .* and the triton package", "nothing"),
    ],
)
def test_asking_for_triton_names_what_is_missing(machine, cuda, triton, device, named, not_named):
    machine(cuda=cuda, triton=triton)
    with pytest.raises(ValueError, match=named) as caught:
        choose("triton", device)
    assert not_named not in str(caught.value)


def test_asking_for_triton_gets_it(machine):
    machine(cuda=True, triton=True)
    assert choose("triton", "cuda") == "triton"


def test_an_obstacle_falls_back_only_under_auto(machine):
    machine(cuda=True, triton=True)
    device = torch.device("cuda")
    assert dispatch.use_triton("auto", device, "")
    assert not dispatch.use_triton("auto", device, "too wide")
    with pytest.raises(ValueError, match="too wide"):
        dispatch.use_triton("triton", device, "too wide")


@pytest.mark.slow
def test_the_package_works_without_triton():
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch, tian_kernels as t\n"
        "x = torch.ones(1, 1, 8); s = t.Slots.empty((1, 1), x, capacity=2)\n"
        "assert t.decode_attention(x, x, x, s, victim=t.Victim(0, 1), scale=1.0).eq(1).all()\n"
        "assert not t.dispatch.triton_imports() and 'tian' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
