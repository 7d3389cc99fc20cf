"""Which kernel a decode step runs in: chosen by device, refused with a reason, shown by `tian doctor`."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from tian.errors import InvalidInput, MissingDependency
from tian.hf import attach, kernels
from tian.testing.fakes import FakeKVPolicy

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def gpu(monkeypatch):
    """As if CUDA and triton were there."""
    import tian_kernels.dispatch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(tian_kernels.dispatch, "triton_imports", lambda: True)


@pytest.fixture
def no_package(monkeypatch):
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)


def test_auto_is_torch_on_a_cpu_and_triton_on_cuda(gpu):
    assert kernels.fused_kernel("auto", CPU) is None
    assert kernels.fused_kernel("torch", CUDA) is None
    assert kernels.fused_kernel("auto", CUDA).keywords == {"kernel": "triton"}
    assert kernels.fused_kernel("triton", CUDA).keywords == {"kernel": "triton"}
    assert kernels.describe() == "triton"


def test_without_the_package_auto_is_torch_and_triton_is_refused(no_package):
    assert kernels.fused_kernel("auto", CUDA) is None
    with pytest.raises(MissingDependency, match="tian-kernels, which is not installed"):
        kernels.fused_kernel("triton", CUDA)
    assert "is not installed" in kernels.describe()


def test_triton_without_cuda_is_refused_with_what_is_missing(models, monkeypatch):
    with pytest.raises(InvalidInput, match="a CUDA device") as error:
        with attach(models("llama"), kv=FakeKVPolicy(4), kernel="triton"):
            pass
    assert "kernel=auto" in error.value.hint
    with pytest.raises(InvalidInput, match="one of auto, triton, torch, got 'cuda'"):
        kernels.fused_kernel("cuda", CPU)
    assert "a CUDA device" in kernels.describe()


class Ranged(FakeKVPolicy):
    def victim_ranks(self, capacity):
        return 0, capacity - 1


def test_on_the_fused_kernel_a_model_computes_the_same(models, monkeypatch):
    from tian_kernels import decode_attention

    model = models("llama")
    ids = torch.randint(1, 61, (2, 40), generator=torch.Generator().manual_seed(0))
    calls, found = [], {}

    def counted(*args, **more):
        calls.append(1)
        return decode_attention(*args, kernel="torch", **more)

    for fused in (None, partial(counted)):
        monkeypatch.setattr("tian.hf.host.fused_kernel", lambda kernel, device, fused=fused: fused)
        with attach(model, kv=Ranged(8)) as cache:
            logits = [
                model(input_ids=ids[:, t : t + 1], past_key_values=cache, use_cache=True).logits for t in range(40)
            ]
            found[fused is None] = torch.cat(logits, dim=1), cache.kept(1)
    assert len(calls) == 2 * 40  # layers by steps
    assert torch.allclose(found[True][0], found[False][0], atol=2e-5)
    assert torch.equal(found[True][1], found[False][1])


def test_the_doctor_says_what_auto_picks(capsys):
    from tian.cli import cmd_doctor

    check = cmd_doctor._kernels()
    assert check.ok
    assert (check.name, check.detail) == ("kernels", kernels.describe())
