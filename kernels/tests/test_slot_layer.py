"""The decoding step inside tian's cache host: the fused kernel and the torch step are one step."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from tian.hf.attention import Logits
from tian.hf.cache import SlotLayer
from tian.hf.kernels import obstacle
from tian.hf.rotary import NoRotary, Rotary
from tian.spec import KVPolicy
from tian_kernels import decode_attention
from tian_kvcache.options import StreamingOptions, WindowOptions
from tian_kvcache.policies import Full, Streaming, Window

B, H, H_KV, D, R = 2, 4, 2, 16, 8
FUSED = partial(decode_attention, kernel="torch")


class HeavyAndRecent(KVPolicy):
    """Keeps the 6 tokens with the largest scores and the 5 newest."""

    needs: ClassVar[frozenset[str]] = frozenset({"colsum"})

    def capacity(self, layer, n_layers, prompt_len):
        return 11

    def select(self, score, token, capacity):
        old = token.shape[-1] - 5
        heavy = score[..., :old].topk(6, dim=-1).indices.sort(dim=-1).values
        return torch.cat([heavy, torch.arange(old, old + 5).expand(*heavy.shape[:2], 5)], dim=-1)

    def victim_ranks(self, capacity):
        return 0, capacity - 5


class Fading(HeavyAndRecent):
    decay = 0.9


class AtOriginal(HeavyAndRecent):
    positions = "original"


class OwnVictim(HeavyAndRecent):
    def victim_ranks(self, capacity):
        return None


def rotary_of(kind):
    speed = 10000.0 ** (-torch.arange(0, R, 2, dtype=torch.float64) / R)
    module = SimpleNamespace(inv_freq=speed)
    return Rotary(module, dtype=torch.float32, device=torch.device("cpu")) if kind == "rotary" else NoRotary()


POLICIES = {
    "window": lambda: Window(WindowOptions(recent=9)),
    "streaming": lambda: Streaming(StreamingOptions(sinks=3, recent=6)),
    "heavy": HeavyAndRecent,
    "fading": Fading,
    "original": AtOriginal,
}


@pytest.mark.parametrize("prompt", [1, 5, 20])
@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("kind", ["rotary", "slopes", "sink"])
def test_forty_steps_are_those_of_the_torch_step(name, prompt, kind):
    if kind == "slopes" and name == "original":
        pytest.skip("the kernel's bias counts distances inside the cache")
    rotary = rotary_of("rotary" if kind != "slopes" else "none")
    more = {"scale": 0.25}
    if kind == "slopes":
        more["slopes"] = torch.tensor([0.5, 0.25, 0.125, 0.06])
    if kind == "sink":
        more["sink"] = torch.tensor([0.5, -1.0, 0.0, 2.0])
    plain = SlotLayer(POLICIES[name](), 0, 1, rotary)
    fused = SlotLayer(POLICIES[name](), 0, 1, rotary, fused=FUSED)
    random = torch.Generator().manual_seed(prompt)
    for t in range(40):
        m = prompt if t == 0 else 1
        q, k, v = (torch.randn(B, h, m, D, generator=random) for h in (H, H_KV, H_KV))
        out = []
        for layer in (plain, fused):
            layer.update(k, v)
            out.append(layer.attend(q, **more))
        assert torch.allclose(*out, atol=1e-5)
        assert torch.equal(plain.rank, fused.rank)
        assert torch.equal(plain.kept(), fused.kept())
        assert torch.equal(plain.free, fused.free)
        assert torch.equal(plain.used, fused.used)
        if plain.score is not None:
            assert torch.allclose(plain.in_order(plain.score), fused.in_order(fused.score), atol=1e-5)
    assert not obstacle(fused, Logits(**more))


def layer_of(policy, *, pads=None):
    layer = SlotLayer(policy, 0, 1, NoRotary(), fused=FUSED)
    layer.pads = pads
    layer.update(torch.zeros(B, H_KV, 3, D), torch.zeros(B, H_KV, 3, D))
    layer.attend(torch.zeros(B, H, 3, D), scale=1.0)
    return layer


@pytest.mark.parametrize(
    ("layer", "options", "reason"),
    [
        (lambda: layer_of(Full()), {}, "unbounded"),
        (lambda: layer_of(OwnVictim()), {}, "code of its own"),
        (lambda: layer_of(HeavyAndRecent(), pads=torch.tensor([1, 0]).view(2, 1, 1)), {}, "padded"),
        (lambda: layer_of(HeavyAndRecent()), {"window": 8}, "sliding window of 8"),
        (lambda: layer_of(AtOriginal()), {"slopes": torch.ones(H)}, "inside the cache"),
    ],
    ids=["unbounded", "victim", "padding", "window", "slopes"],
)
def test_what_the_kernel_cannot_do_runs_in_torch(layer, options, reason):
    layer = layer()
    assert reason in obstacle(layer, Logits(1.0, **options))
    layer.update(torch.zeros(B, H_KV, 1, D), torch.zeros(B, H_KV, 1, D))
    assert layer.attend(torch.zeros(B, H, 1, D), scale=1.0, **options).isfinite().all()
