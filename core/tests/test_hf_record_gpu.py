"""On a CUDA device a recorded step is one graph: it equals the eager step and the library's own greedy decoding."""

from __future__ import annotations

import pytest
import torch
from conftest_models import make_model
from kv_policies import Contiguous
from test_hf_record import POLICIES, ids_of
from transformers import DynamicCache

from tian.hf import RecordedStep, attach

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
DEVICE = "cuda"


@pytest.fixture
def on_device():
    """`on_device(kind, dtype)`: a model of its own on the GPU; heads of 64 channels, as small as real ones get."""

    def make(kind, dtype=torch.float32):
        return make_model(kind, d_model=256, context=512).to(device=DEVICE, dtype=dtype)

    return make


def decode(model, policy, ids, prompt, *, kernel="auto", recorded):
    """Logits of every step after the prompt `[steps, B, V]`, and the tokens each layer keeps at the end."""
    with attach(model, kv=policy, kernel=kernel) as cache:
        model(input_ids=ids[:, :prompt], past_key_values=cache, use_cache=True)
        step = RecordedStep(model, cache) if recorded else None
        out = []
        for t in range(prompt, ids.shape[1]):
            one = ids[:, t : t + 1]
            if step is None:
                out.append(model(input_ids=one, past_key_values=cache, use_cache=True).logits[:, -1])
            else:
                out.append(step(one).clone())
        return torch.stack(out).float(), [cache.kept(layer) for layer in range(2)]


@pytest.mark.parametrize(
    ("kind", "name"),
    [*(("llama", n) for n in POLICIES), ("gpt_neox", "sinks"), ("mpt", "heavy"), ("falcon-new", "last row")],
)
def test_a_recorded_step_is_the_eager_step(on_device, kind, name):
    model, ids = on_device(kind), ids_of(2, 60).to(DEVICE)
    expected, kept = decode(model, POLICIES[name](), ids, 4, recorded=False)
    got, kept_too = decode(model, POLICIES[name](), ids, 4, recorded=True)
    assert torch.allclose(got, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    assert all(torch.equal(a, b) for a, b in zip(kept, kept_too, strict=True))


@pytest.mark.parametrize("name", ["sinks", "heavy"])
def test_the_fused_kernel_and_the_torch_step_record_the_same(on_device, name):
    model, ids = on_device("llama"), ids_of(2, 60).to(DEVICE)
    expected, kept = decode(model, POLICIES[name](), ids, 4, kernel="torch", recorded=True)
    got, kept_too = decode(model, POLICIES[name](), ids, 4, kernel="auto", recorded=True)
    assert torch.allclose(got, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    assert all(torch.equal(a, b) for a, b in zip(kept, kept_too, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_weights_record_the_same(on_device, dtype):
    model, ids = on_device("llama", dtype), ids_of(2, 60).to(DEVICE)
    expected, kept = decode(model, POLICIES["sinks"](), ids, 4, recorded=False)
    got, kept_too = decode(model, POLICIES["sinks"](), ids, 4, recorded=True)
    assert torch.allclose(got, expected, rtol=0, atol=3e-2 * float(expected.abs().max()))
    assert all(torch.equal(a, b) for a, b in zip(kept, kept_too, strict=True))


def test_one_capture_serves_every_step_and_the_model_runs_no_python(on_device, monkeypatch):
    model, ids = on_device("llama"), ids_of(1, 60).to(DEVICE)
    captures, replays, calls = [], [], []
    graph, replay = torch.cuda.graph, torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda, "graph", lambda *a, **k: captures.append(1) or graph(*a, **k))
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda self: replays.append(1) or replay(self))
    with attach(model, kv=POLICIES["heavy"]()) as cache:
        model(input_ids=ids[:, :4], past_key_values=cache, use_cache=True)
        step = RecordedStep(model, cache)
        hook = model.register_forward_pre_hook(lambda *_: calls.append(1))
        step(ids[:, 4:5])
        torch.cuda.synchronize()
        held = torch.cuda.memory_allocated()
        for t in range(5, 60):  # fills, then evicts
            step(ids[:, t : t + 1])
        torch.cuda.synchronize()
        hook.remove()
        assert torch.cuda.memory_allocated() == held
    assert (len(captures), len(replays), len(calls)) == (1, 56, 0)


def test_a_cache_that_drops_nothing_decodes_as_the_librarys_own(on_device):
    model, ids = on_device("llama"), ids_of(2, 8).to(DEVICE)
    expected = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        past_key_values=DynamicCache(),
        max_new_tokens=40,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
    )
    with attach(model, kv=Contiguous(4, 96)) as cache:
        logits = [model(input_ids=ids, past_key_values=cache, use_cache=True).logits[:, -1]]
        step = RecordedStep(model, cache)
        for _ in range(39):
            logits.append(step(logits[-1].argmax(dim=-1, keepdim=True)).clone())
    got, wanted = torch.stack(logits), torch.stack(expected.logits)
    assert torch.allclose(got, wanted, rtol=0, atol=1e-3 * float(wanted.abs().max()))
    assert torch.equal(got.argmax(dim=-1).T, expected.sequences[:, 8:])
