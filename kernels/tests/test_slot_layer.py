"""The decoding step is the step of tian's cache host."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch

from tian.hf.cache import SlotLayer
from tian.hf.rotary import RotaryTable
from tian.spec import KVPolicy
from tian_kernels import Rotary, Slots, Victim, decode_attention
from tian_kvcache.options import StreamingOptions, WindowOptions
from tian_kvcache.policies import Streaming, Window

B, H, H_KV, D, R = 2, 4, 2, 16, 8


class HeavyAndRecent(KVPolicy):
    """Keeps the 6 tokens with the largest scores and the 5 newest."""

    needs: ClassVar[frozenset[str]] = frozenset({"colsum"})

    def capacity(self, layer, n_layers, prompt_len):
        return 11

    def select(self, score, token, capacity):
        old = token.shape[-1] - 5
        heavy = score[..., :old].topk(6, dim=-1).indices.sort(dim=-1).values
        return torch.cat([heavy, torch.arange(old, old + 5).expand(*heavy.shape[:2], 5)], dim=-1)


class Angles:
    """A model's rotary module, without the model."""

    def __call__(self, x, position):
        speed = 10000.0 ** (-torch.arange(0, R, 2, dtype=torch.float64) / R)
        angle = position[..., None].double() * speed
        angle = torch.cat([angle, angle], dim=-1)
        return angle.cos().to(x.dtype), angle.sin().to(x.dtype)


@pytest.mark.parametrize("prompt", [1, 5])
@pytest.mark.parametrize(
    ("policy", "victim"),
    [
        (Window(WindowOptions(recent=9)), Victim(0, 0)),
        (Streaming(StreamingOptions(sinks=3, recent=6)), Victim(3, 3)),
        (HeavyAndRecent(), Victim(0, 6)),
    ],
    ids=["window", "streaming", "heavy"],
)
def test_forty_steps_are_those_of_the_slot_layer(policy, victim, prompt):
    table = RotaryTable(Angles(), dtype=torch.float32, device=torch.device("cpu"))
    layer = SlotLayer(policy, 0, 1, table)
    cos, sin = Angles()(torch.empty(1), torch.arange(40))
    random = torch.Generator().manual_seed(prompt)

    def draw(heads, m):
        return torch.randn(B, heads, m, D, generator=random)

    layer.update(draw(H_KV, prompt), draw(H_KV, prompt))
    layer.attend(draw(H, prompt), scale=0.25, window=None)
    slots = Slots(
        keys=layer.keys.clone(),
        values=layer.values.clone(),
        rank=layer.rank.clone(),
        free=layer.free[..., 0].int(),
        count=torch.full(layer.free.shape[:2], layer.count, dtype=torch.int32),
        score=None if layer.score is None else layer.score.clone(),
    )
    for _ in range(40):
        q, k, v = draw(H, 1), draw(H_KV, 1), draw(H_KV, 1)
        layer.update(k, v)
        expected = layer.attend(q, scale=0.25, window=None)[:, :, 0]
        out = decode_attention(
            q[:, :, 0], k[:, :, 0], v[:, :, 0], slots, victim=victim, scale=0.25, rotary=Rotary(cos, sin, R)
        )
        assert torch.allclose(out, expected, atol=1e-5)
        assert torch.equal(slots.rank, layer.rank)
        assert torch.equal(slots.free, layer.free[..., 0].int())
        assert (slots.count == layer.count).all()
        if layer.score is not None:
            here = layer.rank >= 0
            assert torch.allclose(slots.score[here], layer.score[here], atol=1e-5)
