"""Contiguous policies: keys turned once give what keys turned in every step give, and a stepwise chunk is its steps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from kv_policies import Contiguous as Known
from kv_policies import FirstAndLast as Plain

from tian.errors import InvalidInput
from tian.hf import attach, prefill
from tian.hf.families import FAMILIES
from tian.hf.rotary import Rotary

KINDS = sorted({*FAMILIES, "falcon-new", "falcon-alibi"})
MOVABLE = [k for k in KINDS if k != "opt"]  # learned positions cannot move inside a cache


def ids_of(batch, length, *, vocab=61):
    return torch.randint(1, vocab, (batch, length), generator=torch.Generator().manual_seed(3))


def feed(model, policy, ids, chunks, *, stepwise=False):
    out, start = [], 0
    with attach(model, kv=policy) as cache:
        cache.set_stepwise(stepwise)
        for size in chunks:
            out.append(model(input_ids=ids[:, start : start + size], past_key_values=cache, use_cache=True).logits)
            start += size
        assert start == ids.shape[1]
        return torch.cat(out, dim=1), cache


@pytest.mark.parametrize("kind", MOVABLE)
@pytest.mark.parametrize("first", [0, 3])
def test_keys_turned_once_give_what_keys_turned_in_every_step_give(models, kind, first):
    model, ids = models(kind), ids_of(2, 60)
    chunks = [2, 1, 1, 9, *[1] * 20, 8, *[1] * 19]
    plain, old = feed(model, Plain(first, 7), ids, chunks)
    known, new = feed(model, Known(first, 7), ids, chunks)
    assert torch.allclose(plain, known, atol=2e-5)
    for layer in range(2):
        assert torch.equal(old.kept(layer), new.kept(layer))
    assert new.layers[0].turned
    assert old.layers[0].turned != old.layers[0].rotary.rotates


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", [0, 3])
def test_a_stepwise_chunk_is_its_tokens_one_by_one(models, kind, first):
    model, ids = models(kind), ids_of(2, 60)
    policy = Known(first, 7, positions="original" if kind == "opt" else "in_cache")
    single, one = feed(model, policy, ids, [1] * 60)
    for chunks in ([60], [5, 20, 1, 1, 33], [2, 9, 49], [first + 7, 30, 23 - first]):
        many, other = feed(model, policy, ids, chunks, stepwise=True)
        assert torch.allclose(single, many, atol=2e-5)
        for layer in range(2):
            assert torch.equal(one.kept(layer), other.kept(layer))


@pytest.mark.parametrize("kind", ["llama", "falcon-alibi"])
def test_a_stepwise_chunk_with_original_positions_is_its_steps(models, kind):
    model, ids = models(kind), ids_of(1, 50)
    policy = Known(2, 6, positions="original")
    single, _ = feed(model, policy, ids, [1] * 50)
    many, _ = feed(model, policy, ids, [4, 26, 1, 19], stepwise=True)
    assert torch.allclose(single, many, atol=2e-5)


def test_prefill_stepwise_does_not_depend_on_the_chunk_and_leaves_the_switch_off(models):
    model, ids = models("llama"), ids_of(1, 50)
    ends = []
    for chunk in (1, 7, 50):
        with attach(model, kv=Known(2, 6)) as cache:
            ends.append(prefill(model, ids, cache, chunk=chunk, stepwise=True))
            assert not any(layer.stepwise for layer in cache.layers)
    assert torch.allclose(ends[0], ends[1], atol=2e-5)
    assert torch.allclose(ends[0], ends[2], atol=2e-5)
    with attach(model, kv=Known(2, 6)) as cache:  # the control: the papers' prefill sees more
        assert not torch.allclose(prefill(model, ids, cache, chunk=50), ends[0], atol=1e-3)


class Scored(Plain):
    needs: ClassVar = frozenset({"colsum"})


@pytest.mark.parametrize("policy", [Plain(2, 6), Scored(2, 6)])
def test_a_policy_that_decides_after_each_token_cannot_be_read_stepwise_in_chunks(models, policy):
    with pytest.raises(InvalidInput, match="decides after each token") as error:
        feed(models("llama"), policy, ids_of(1, 50), [50], stepwise=True)
    assert "one by one" in error.value.hint


@pytest.mark.parametrize("t", [100, 100_000, 4_000_000])
def test_angles_of_a_late_position_keep_the_distance_exact(t):
    inverse = 10000.0 ** (-torch.arange(0, 128, 2, dtype=torch.float64) / 128)
    single = Rotary(SimpleNamespace(inv_freq=inverse), dtype=torch.float32, device=torch.device("cpu"))
    double = Rotary(SimpleNamespace(inv_freq=inverse), dtype=torch.float64, device=torch.device("cpu"))
    q, k = torch.randn(2, 1, 1, 1, 128, generator=torch.Generator().manual_seed(0)).unbind(0)
    late = (single.turn(q, single.span(t, 1)) * single.turn(k, single.span(t - 37, 1))).sum() / 128**0.5
    early = (double.turn(q.double(), double.span(37, 1)) * double.turn(k.double(), double.span(0, 1))).sum() / 128**0.5
    assert abs(late.item() - early.item()) < 1e-5


@pytest.mark.parametrize("kind", ["llama", "gpt_neox", "mpt", "falcon-new", "falcon-alibi"])
def test_after_thousands_of_tokens_the_state_is_that_of_the_kept_tokens_alone(models, kind):
    """StreamingLLM's families: a cache that has seen 3,000 tokens computes what one computes that saw the last few."""
    model, ids, policy = models(kind), ids_of(1, 3000), Known(2, 10)
    long = feed(model, policy, ids, [300] * 10, stepwise=True)[0][:, -1]
    layers, C = 2, 12
    few = torch.cat([ids[:, :2], ids[:, -layers * (C + 1) :]], dim=1)
    assert torch.allclose(long, feed(model, policy, few, [1] * few.shape[1])[0][:, -1], atol=5e-5)
    other = torch.cat([ids[:, 2:4], few[:, 2:]], dim=1)  # the control: other sinks
    assert not torch.allclose(long, feed(model, policy, other, [1] * few.shape[1])[0][:, -1], atol=1e-3)
