"""The decoding step in torch: against plain lists, its closed forms, what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from kernel_cases import SHAPES, STREAMS, Case, World, against_lists, poisoned, tables
from torch.utils._python_dispatch import TorchDispatchMode

from tian_kernels import Rotary, Slots, Victim, decode, decode_attention


@pytest.mark.parametrize("name", STREAMS)
def test_seventy_steps_from_empty_keep_what_a_list_keeps(name):
    found = against_lists(STREAMS[name], kernel=False)
    assert found["kept"] == 0
    assert found["out"] < 5e-6
    assert found["score"] < 5e-5


def test_scores_that_are_not_numbers_cost_the_oldest_token_and_no_slot():
    assert poisoned(SHAPES["not a number"], kernel=False) == {"sound": 1.0, "oldest": 1.0}


def test_each_step_adds_one_per_query_head_and_key_head_group():
    world = World(Case(B=2, H=8, H_kv=2, capacity=40, last=5))
    for t in range(1, 11):
        decode_attention(*world.inputs(), world.slots, **world.options)
        assert torch.allclose(world.slots.score.sum(dim=-1), torch.full((2, 2), 4.0 * t), rtol=1e-5)


def test_a_learned_sink_scales_the_output_by_a_sigmoid():
    plain, sunk = World(Case(H=4, last=5)), World(Case(H=4, last=5))
    scale = plain.options["scale"]
    for world in (plain, sunk):
        world.options["rotary"] = None
    sunk.options["sink"] = torch.tensor([-1.0, 0.0, 2.0, 50.0])
    keys = []
    for _ in range(6):
        q, k, v = plain.inputs()
        sunk.inputs()
        keys.append(k[0, 0])
        a = decode_attention(q, k, v, plain.slots, **plain.options)
        b = decode_attention(q, k, v, sunk.slots, **sunk.options)
        lse = (q[0] @ torch.stack(keys).T * scale).logsumexp(dim=-1)
        assert torch.allclose(b, a * torch.sigmoid(lse - sunk.options["sink"])[:, None], atol=1e-6)


class NoReading(TorchDispatchMode):
    """Raises when a tensor's content reaches the host, or a shape depends on it."""

    def __torch_dispatch__(self, function, _types, args=(), kwargs=None):
        assert function.overloadpacket not in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero)
        return function(*args, **(kwargs or {}))


@pytest.mark.slow  # a dispatch mode makes torch import its compiler
def test_a_step_never_asks_the_device_for_a_number():
    world = World(Case(H=4, H_kv=2, capacity=2, last=1, sink=True, slope=True))
    for _ in range(4):
        inputs = world.inputs()
        with NoReading():
            decode_attention(*inputs, world.slots, kernel="torch", **world.options)
    with pytest.raises(AssertionError), NoReading():
        inputs[0].sum().item()


def test_sixteen_bit_slots_are_attended_in_float32():
    half, single = World(Case(H=4, last=5, dtype=torch.float16)), World(Case(H=4, last=5))
    for _ in range(10):
        inputs = half.inputs()
        a = decode_attention(*inputs, half.slots, **half.options)
        b = decode_attention(*(x.float() for x in inputs), single.slots, **single.options)
        assert a.dtype == torch.float16
        assert torch.equal(a, b.half())
    assert torch.equal(half.slots.score, single.slots.score)


def test_bytes_of_a_step_are_keys_values_and_little_else():
    world = World(Case(B=3, H=8, H_kv=2, D=64, R=32, capacity=99, last=5))
    q, _, _ = world.inputs()
    keys_and_values = 3 * 2 * 64 * 4 * (2 * 99 + 4)
    expected = keys_and_values + 3 * 8 * 2 * 64 * 4 + 3 * 2 * 100 * 12 + 100 * 32 * 4 + 3 * (8 + 2) * 100 * 8
    assert decode.bytes_moved(q, world.slots, world.options["rotary"]) == expected
    world.slots.score = None
    assert decode.bytes_moved(q, world.slots) == keys_and_values + 3 * 8 * 2 * 64 * 4 + 3 * 2 * 100 * 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(1, 3, 16)}, "q must be"),
        ({"k": torch.zeros(1, 1, 16)}, "k must be"),
        ({"v": torch.zeros(1, 2, 8)}, "v must be"),
        ({"q": torch.zeros(1, 4, 16, dtype=torch.float16)}, "one dtype"),
        ({"sink": torch.zeros(2)}, "sink must hold one number per query head"),
        ({"victim": Victim(3, 2)}, "first=3, last=2"),
        ({"victim": Victim(0, 20)}, "last < capacity"),
        ({"victim": Victim(-1, 2)}, "0 <= first"),
        ({"victim": Victim(0, 2, decay=float("nan"))}, "decay must be >= 0"),
        ({"rotary": tables(16, 20)}, "must reach position 20"),
        ({"rotary": replace(tables(16, 30), channels=15)}, "must be even"),
        ({"rotary": replace(tables(16, 30), channels=18)}, r"in 2\.\.16"),
        ({"rotary": Rotary(torch.zeros(30, 4), torch.zeros(30, 4), 16)}, r"\[P, >= 8\]"),
        ({"kernel": "cuda"}, "auto, triton, torch"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change, message):
    world = World(Case(H=4, H_kv=2, last=5))
    q, k, v = world.inputs()
    given = {"q": q, "k": k, "v": v, **world.options, **change}
    before = world.slots.rank.clone()
    with pytest.raises(ValueError, match=message):
        decode_attention(given.pop("q"), given.pop("k"), given.pop("v"), world.slots, **given)
    assert torch.equal(world.slots.rank, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"free": torch.zeros(1, 2, dtype=torch.int64)}, "slots.free must be"),
        ({"values": torch.zeros(1, 2, 21, 8)}, "slots.values must be"),
        ({"rank": torch.zeros(1, 1, 21, dtype=torch.int32)}, r"must have \(1, 2\) rows"),
        ({"score": torch.zeros(1, 2, 21, dtype=torch.float64)}, "slots.score must be"),
    ],
)
def test_slots_that_do_not_belong_together_are_refused(change, message):
    world = World(Case(H=4, H_kv=2, last=5))
    slots = replace(world.slots, **change)
    with pytest.raises(ValueError, match=message):
        decode_attention(*world.inputs(), slots, **world.options)


def test_a_choice_by_score_needs_scores():
    slots = Slots.empty((1, 1), torch.zeros(8), capacity=4, shared=(1, 1))
    x = torch.zeros(1, 1, 8)
    with pytest.raises(ValueError, match=r"needs slots\.score"):
        decode_attention(x, x, x, slots, victim=Victim(0, 2), scale=1.0)


def test_what_the_kernels_cannot_take_is_known_beforehand():
    world = World(Case(H=4, H_kv=2, last=5))
    q, _, _ = world.inputs()
    assert decode.supported(q, world.slots, world.options["rotary"])
    assert not decode.supported(q.double(), world.slots)
    assert not decode.supported(q, replace(world.slots, keys=world.slots.keys.mT.contiguous().mT))
    assert not decode.supported(torch.zeros(1, 4, 512), world.slots)
