"""The policies: rules by themselves, then against each other on a model."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

import tian
from tian.errors import InvalidInput
from tian.hf import attach
from tian_kvcache.options import StreamingOptions
from tian_kvcache.policies import Streaming


@given(sinks=st.integers(0, 5), recent=st.integers(1, 8), length=st.integers(1, 30))
def test_streaming_keeps_the_first_and_the_last(sinks, recent, length):
    policy = Streaming(StreamingOptions(sinks, recent))
    token = torch.arange(length).expand(2, 3, length)
    keep = policy.select(None, token, policy.capacity(0, 1, None))
    expected = [i for i in range(length) if i < sinks or i >= length - recent]
    assert keep.tolist() == [[expected] * 3] * 2


@given(sinks=st.integers(0, 5), recent=st.integers(1, 8), seed=st.integers(0, 99))
def test_the_fast_victim_agrees_with_select_on_every_state(sinks, recent, seed):
    policy = Streaming(StreamingOptions(sinks, recent))
    capacity = sinks + recent
    generator = torch.Generator().manual_seed(seed)
    rank = torch.stack([torch.randperm(capacity + 1, generator=generator) for _ in range(4)]).view(2, 2, -1).int()
    derived = super(Streaming, policy).victim(None, rank, capacity)
    assert torch.equal(policy.victim(None, rank, capacity), derived)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, bos_token_id=0, eos_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def read(model, policy, ids):
    with attach(model, kv=policy) as cache, torch.no_grad():
        steps = [
            model(input_ids=ids[:, t : t + 1], past_key_values=cache, use_cache=True).logits
            for t in range(ids.shape[1])
        ]
        return torch.cat(steps, dim=1), cache


def test_streaming_without_sinks_is_the_window(model):
    ids = torch.randint(0, 50, (2, 40), generator=torch.Generator().manual_seed(0))
    window, _ = read(model, tian.load("kv_policy", "window", recent=7), ids)
    streaming, _ = read(model, tian.load("kv_policy", "streaming", sinks=0, recent=7), ids)
    assert torch.equal(window, streaming)


def test_sinks_change_the_result_only_once_the_first_token_would_go(model):
    ids = torch.randint(0, 50, (1, 40), generator=torch.Generator().manual_seed(0))
    window, _ = read(model, tian.load("kv_policy", "window", recent=8), ids)
    streaming, cache = read(model, tian.load("kv_policy", "streaming", sinks=2, recent=6), ids)
    differs = (window != streaming).any(dim=-1)[0].tolist()
    assert differs.index(True) == 9  # eviction comes after attending: query 8 still sees 9 keys
    assert cache.kept()[0, 0].tolist() == [0, 1, 34, 35, 36, 37, 38, 39]


def test_one_kept_token_is_enough_to_run(model):
    ids = torch.randint(0, 50, (1, 10), generator=torch.Generator().manual_seed(0))
    _, cache = read(model, tian.load("kv_policy", "window", recent=1), ids)
    assert cache.kept()[0, 0].tolist() == [9]


@pytest.mark.parametrize(
    ("name", "options", "hint"),
    [
        ("streaming", {"recent": 0}, "kv.recent=1"),
        ("window", {"recent": -3}, "kv.recent=1"),
        ("streaming", {"sinks": -1}, "kv.sinks=0"),
    ],
)
def test_a_size_that_makes_no_sense_is_refused(name, options, hint):
    with pytest.raises(InvalidInput) as caught:
        tian.load("kv_policy", name, **options)
    assert hint in caught.value.hint
