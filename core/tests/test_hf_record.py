"""A step recorded once and replayed is the step itself: while the cache fills, when it is full, under every policy."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from kv_policies import Contiguous as Recent

from tian.errors import InvalidInput
from tian.hf import RecordedStep, attach
from tian.spec import KVPolicy


class Heavy(KVPolicy):
    needs: ClassVar = frozenset({"colsum"})
    decay = 0.9

    def __init__(self, positions="in_cache"):
        self.positions = positions

    def capacity(self, layer, n_layers, prompt_len):
        return 12 - 4 * layer

    def select(self, score, token, capacity):
        old = score[..., :-4]
        top = old.sort(dim=-1, descending=True, stable=True).indices[..., : capacity - 4]
        tail = torch.arange(old.shape[-1], score.shape[-1], device=score.device).expand(*score.shape[:2], -1)
        return torch.cat([top, tail], dim=-1).sort(dim=-1).values

    def victim_ranks(self, capacity):
        return 0, capacity - 4


class Newest(Heavy):
    needs: ClassVar = frozenset({"last_row"})
    decay = 1.0


POLICIES = {
    "window": lambda: Recent(0, 9),
    "sinks": lambda: Recent(3, 6),
    "heavy": Heavy,
    "original": lambda: Heavy("original"),
    "last row": Newest,
}


def ids_of(batch, length):
    return torch.randint(1, 61, (batch, length), generator=torch.Generator().manual_seed(2))


SLOW = [("llama", "window"), ("llama", "original"), ("gpt_neox", "sinks"), ("mpt", "heavy"), ("falcon-new", "last row")]
CASES = [("llama", "sinks"), ("llama", "heavy"), *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_step_recorded_while_the_cache_fills_serves_all_that_follow(models, kind, name):
    model, ids = models(kind), ids_of(2, 80)
    with attach(model, kv=POLICIES[name]()) as cache:
        model(input_ids=ids[:, :4], past_key_values=cache, use_cache=True)
        expected = [
            model(input_ids=ids[:, t : t + 1], past_key_values=cache, use_cache=True).logits[:, -1]
            for t in range(4, 80)
        ]
        kept = [cache.kept(layer) for layer in range(2)]
    with attach(model, kv=POLICIES[name]()) as cache:
        model(input_ids=ids[:, :4], past_key_values=cache, use_cache=True)
        step = RecordedStep(model, cache)
        places = [cache.layers[0].keys.data_ptr(), cache.layers[0].values.data_ptr(), cache.nbytes()]
        for t in range(4, 80):
            assert torch.allclose(step(ids[:, t : t + 1]), expected[t - 4], atol=2e-5)
        assert [cache.layers[0].keys.data_ptr(), cache.layers[0].values.data_ptr(), cache.nbytes()] == places
        assert all(torch.equal(cache.kept(layer), kept[layer]) for layer in range(2))
        assert cache.get_seq_length() == 80


def test_recorded_steps_and_others_take_turns(models):
    model, ids = models("llama", layers=1), ids_of(1, 60)
    with attach(model, kv=Recent(2, 6)) as cache:
        expected = [
            model(input_ids=ids[:, t : t + 1], past_key_values=cache, use_cache=True).logits[:, -1] for t in range(60)
        ]
    with attach(model, kv=Recent(2, 6)) as cache:
        model(input_ids=ids[:, :5], past_key_values=cache, use_cache=True)
        step = RecordedStep(model, cache)
        for t in range(5, 60):
            one = ids[:, t : t + 1]
            got = step(one) if t % 3 else model(input_ids=one, past_key_values=cache, use_cache=True).logits[:, -1]
            assert torch.allclose(got, expected[t], atol=2e-5)
        with pytest.raises(InvalidInput, match=r"recorded for ids \[1, 1\], got \[2, 1\]"):
            step(ids_of(2, 1))


class All(Recent):
    def capacity(self, layer, n_layers, prompt_len):
        return None


@pytest.mark.parametrize(
    ("kind", "policy", "prompt", "message"),
    [
        ("llama", lambda: Recent(1, 5), 0, "this one is empty"),
        ("llama", lambda: All(1, 5), 4, "unbounded cache"),
        ("llama", lambda: Recent(4, 5), 2, "shorter than the policy's sinks"),
        ("opt", lambda: Heavy("original"), 4, "learned positions"),
    ],
)
def test_what_cannot_be_recorded_is_refused(models, kind, policy, prompt, message):
    model = models(kind)
    with attach(model, kv=policy()) as cache:
        if prompt:
            model(input_ids=ids_of(1, prompt), past_key_values=cache, use_cache=True)
        with pytest.raises(InvalidInput, match=message):
            RecordedStep(model, cache)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # the compiler's own
def test_a_compiled_step_is_the_step(models):
    model, ids = models("llama"), ids_of(1, 200)
    with attach(model, kv=Heavy()) as cache:
        expected = [
            model(input_ids=ids[:, t : t + 1], past_key_values=cache, use_cache=True).logits[:, -1] for t in range(200)
        ]
    with attach(model, kv=Heavy()) as cache:
        model(input_ids=ids[:, :1], past_key_values=cache, use_cache=True)
        step = RecordedStep(model, cache, compile=True)
        for t in range(1, 200):
            assert torch.allclose(step(ids[:, t : t + 1]), expected[t], atol=1e-4)
