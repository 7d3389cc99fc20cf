"""The cache host against the library's own eager attention and a slow reference written out by hand."""

import math
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kv_policies import FirstAndLast as Keep

from tian.errors import ContractError, InvalidInput, PluginError, UnsupportedModel
from tian.hf import attach
from tian.spec import KVPolicy
from tian.testing.fakes import FakeKVPolicy

ARCHITECTURES = ("llama", "mistral", "qwen2", "gpt_neox")


class KeepAll(KVPolicy):
    def capacity(self, layer, n_layers, prompt_len):
        return None

    def select(self, score, token, capacity):
        raise AssertionError("never asked")


def ids_of(batch, length, *, seed=1, vocab=61):
    return torch.randint(1, vocab, (batch, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def run_on_cache(model, policy, ids, *, chunks):
    """Logits of all tokens and the cache after feeding `ids` in chunks of the given sizes."""
    logits, start = [], 0
    with attach(model, kv=policy) as cache:
        for size in chunks:
            piece = ids[:, start : start + size]
            logits.append(model(input_ids=piece, past_key_values=cache, use_cache=True).logits)
            start += size
        assert start == ids.shape[1]
        return torch.cat(logits, dim=1), cache


@torch.no_grad()
def eager(model, ids):
    return model(input_ids=ids, use_cache=False).logits


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("policy", [KeepAll(), Keep(2, 62)], ids=["unbounded", "large enough"])
@pytest.mark.parametrize("chunks", [[40] + [1] * 20, [1] * 60, [7, 13, 40]], ids=["prompt+steps", "steps", "chunks"])
def test_equals_the_eager_model_while_nothing_is_evicted(models, kind, policy, chunks):
    model, ids = models(kind), ids_of(2, 60)
    logits, cache = run_on_cache(model, policy, ids, chunks=chunks)
    torch.testing.assert_close(logits, eager(model, ids), atol=1e-5, rtol=1e-5)
    assert cache.kept()[0, 0].tolist() == list(range(60))


@pytest.mark.parametrize("rope", ["linear", "llama3", "yarn"])
def test_scaled_rotary_types_stay_exact(models, rope):
    parameters = {"rope_type": rope, "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}
    if rope == "llama3":
        parameters |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    from conftest_models import make_model

    model = make_model("llama", rope_parameters=parameters)
    ids = ids_of(1, 50)
    logits, _ = run_on_cache(model, KeepAll(), ids, chunks=[20] + [1] * 30)
    torch.testing.assert_close(logits, eager(model, ids), atol=1e-5, rtol=1e-5)


def test_a_models_own_sliding_window_is_respected(models):
    model, ids = models("mistral", sliding_window=9), ids_of(1, 40)
    logits, _ = run_on_cache(model, KeepAll(), ids, chunks=[15] + [1] * 25)
    torch.testing.assert_close(logits, eager(model, ids), atol=1e-5, rtol=1e-5)


# -- a reference that shares no code with the host ---------------------------------------------------------------------


def rotate_by_hand(x, position, theta=10000.0):
    """Rotary embedding of one vector `[D]`, pair (i, i + D/2) turned by position * theta^(-2i/D), in float64."""
    d = x.shape[0]
    out = x.double().clone()
    for i in range(d // 2):
        angle = position * theta ** (-2 * i / d)
        a, b = float(x[i]), float(x[i + d // 2])
        out[i] = a * math.cos(angle) - b * math.sin(angle)
        out[i + d // 2] = a * math.sin(angle) + b * math.cos(angle)
    return out


@torch.no_grad()
def reference(model, ids, *, first, last):
    """Logits and kept tokens of every step of a Llama-like model, with Python lists for a cache."""
    config = model.config
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    d = config.hidden_size // heads
    caches = [[] for _ in model.model.layers]  # per layer: (token, keys [H_kv, D], values [H_kv, D]), oldest first
    all_logits, all_kept = [], []
    for t, token in enumerate(ids.tolist()):
        x = model.model.embed_tokens(torch.tensor([[token]]))
        for layer, cache in zip(model.model.layers, caches, strict=True):
            h = layer.input_layernorm(x)
            attention = layer.self_attn
            q = attention.q_proj(h).view(heads, d)
            cache.append((t, attention.k_proj(h).view(kv_heads, d), attention.v_proj(h).view(kv_heads, d)))
            out = torch.zeros(heads, d, dtype=torch.float64)
            for head in range(heads):
                group = head * kv_heads // heads
                query = rotate_by_hand(q[head], len(cache) - 1)
                logits = torch.stack([query @ rotate_by_hand(k[group], p) for p, (_, k, _) in enumerate(cache)])
                weights = (logits / math.sqrt(d)).softmax(0)
                out[head] = sum(w * v[group].double() for w, (_, _, v) in zip(weights, cache, strict=True))
            x = x + attention.o_proj(out.float().view(1, 1, heads * d))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
            if len(cache) > first + last:
                del cache[first]
        all_logits.append(model.lm_head(model.model.norm(x))[0, 0])
        all_kept.append([entry[0] for entry in caches[0]])
    return torch.stack(all_logits), all_kept


@settings(max_examples=12, deadline=None)
@given(
    kind=st.sampled_from(["llama", "mistral", "qwen2"]),
    layers=st.integers(1, 3),
    shape=st.sampled_from([(2, 1), (2, 2), (4, 2)]),
    first=st.integers(0, 3),
    last=st.integers(1, 5),
    length=st.integers(2, 14),
    seed=st.integers(0, 99),
)
def test_every_step_equals_the_written_out_reference(kind, layers, shape, first, last, length, seed):
    from conftest_models import make_model

    heads, kv_heads = shape
    model = make_model(kind, layers=layers, heads=heads, kv_heads=kv_heads, d_model=8 * heads, seed=seed)
    ids = ids_of(1, length, seed=seed)
    expected, kept = reference(model, ids[0], first=first, last=last)
    with attach(model, kv=Keep(first, last)) as cache, torch.no_grad():
        for t in range(length):
            logits = model(input_ids=ids[:, t : t + 1], past_key_values=cache, use_cache=True).logits[0, 0]
            torch.testing.assert_close(logits, expected[t], atol=2e-4, rtol=1e-4)  # float64 against float32 sums
            for layer in range(layers):
                assert cache.kept(layer)[0, 0].tolist() == kept[t]


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_one_layer_output_is_the_dense_model_on_the_kept_tokens(models, kind):
    model, ids = models(kind, layers=1), ids_of(2, 40)
    with attach(model, kv=Keep(2, 6)) as cache, torch.no_grad():
        steps, seen = [], []
        for t in range(40):
            before = cache.kept()[0, 0].tolist()
            seen.append([*before, t])
            steps.append(model(input_ids=ids[:, t : t + 1], past_key_values=cache, use_cache=True).logits[:, -1])
    for t in range(40):
        dense = eager(model, ids[:, seen[t]])[:, -1]
        torch.testing.assert_close(steps[t], dense, atol=1e-5, rtol=1e-5)


def test_a_chunk_keeps_the_same_tokens_as_single_steps(models):
    model, ids = models("llama"), ids_of(1, 30)
    _, steps = run_on_cache(model, Keep(3, 5), ids, chunks=[1] * 30)
    _, chunk = run_on_cache(model, Keep(3, 5), ids, chunks=[11, 1, 1, 17])
    assert steps.kept().tolist() == chunk.kept().tolist() == [[[0, 1, 2, 25, 26, 27, 28, 29]]]


def test_invariants_hold_at_every_step(models):
    model, ids = models("qwen2"), ids_of(2, 50)
    with attach(model, kv=FakeKVPolicy(6)) as cache, torch.no_grad():
        for t in range(50):
            model(input_ids=ids[:, t : t + 1], past_key_values=cache, use_cache=True)
            for layer in cache.layers:
                n = min(t + 1, 6)
                valid = layer.rank.masked_select(layer.rank >= 0).view(2, 2, n)
                assert (valid.sort(dim=-1).values == torch.arange(n)).all()  # ranks: a permutation of 0..n-1
                kept = layer.kept()
                assert (kept.diff(dim=-1) > 0).all()  # order of rank is order of age
                assert (kept[..., -1] == t).all()  # the newest token stays


def test_scores_add_one_per_query_and_grouped_head(models):
    model, ids = models("qwen2"), ids_of(2, 20)
    policy = FakeKVPolicy(64)
    _, cache = run_on_cache(model, policy, ids, chunks=[5, 1, 1, 6, *([1] * 7)])
    for layer in cache.layers:
        total = layer.score.masked_fill(layer.rank < 0, 0).sum(dim=-1)
        torch.testing.assert_close(total, torch.full((2, 2), 2.0 * 20), rtol=1e-4, atol=0)


class Lightest(FakeKVPolicy):
    """Drops the heaviest token instead: which one that is differs between heads."""

    def select(self, score, token, capacity):
        return super().select(-score, token, capacity)


def test_heads_evict_independently_when_they_have_scores(models):
    model, ids = models("llama"), ids_of(1, 60)
    _, cache = run_on_cache(model, Lightest(24), ids, chunks=[1] * 60)
    assert all(cache.kept(i).shape == (1, 2, 24) for i in (0, 1))
    assert any(cache.kept(i)[0, 0].tolist() != cache.kept(i)[0, 1].tolist() for i in (0, 1))


def test_a_new_token_does_not_inherit_the_score_of_the_one_it_replaces(models):
    model, ids = models("qwen2"), ids_of(1, 30)
    with attach(model, kv=Lightest(6)) as cache, torch.no_grad():
        for t in range(30):
            model(input_ids=ids[:, t : t + 1], past_key_values=cache, use_cache=True)
            for layer in cache.layers:
                newest = layer.score.gather(2, layer.tok.argmax(dim=-1, keepdim=True))
                assert (newest <= 2 + 1e-5).all()  # one query of each of the two grouped heads has seen it


def test_the_rotary_table_stays_small_when_a_long_stream_comes_in_chunks(models):
    model, ids = models("llama"), ids_of(1, 800)
    _, cache = run_on_cache(model, Keep(1, 7), ids, chunks=[8] * 100)
    assert cache.layers[0].rotary._table[0].shape[0] <= 32  # capacity and chunk, whatever the length of the stream


class Quarter(Keep):
    """Capacity from the prompt's length."""

    def __init__(self):
        super().__init__(1, 0)

    def capacity(self, layer, n_layers, prompt_len):
        self.last = max(1, (prompt_len or 8) // 4)
        return self.first + self.last


def test_a_capacity_from_the_prompt_survives_saving(models):
    model, ids = models("llama"), ids_of(1, 40)
    whole, cache = run_on_cache(model, Quarter(), ids, chunks=[24] + [1] * 16)
    assert cache.kept().shape[-1] == 7
    _, half = run_on_cache(model, Quarter(), ids[:, :30], chunks=[24] + [1] * 6)
    with attach(model, kv=Quarter()) as again, torch.no_grad():
        again.load_state_dict(half.state_dict())
        for t in range(30, 40):
            logits = model(input_ids=ids[:, t : t + 1], past_key_values=again, use_cache=True).logits
    assert torch.equal(logits[0, 0], whole[0, -1])


def test_original_positions_equal_the_dense_model_on_one_layer(models):
    """With original positions the kept keys keep their distance: the dense model with those tokens masked out."""
    model, ids = models("llama", layers=1), ids_of(1, 24)
    policy = FakeKVPolicy(6)
    with attach(model, kv=policy) as cache, torch.no_grad():
        for t in range(24):
            before = cache.kept()[0]
            got = model(input_ids=ids[:, t : t + 1], past_key_values=cache, use_cache=True).logits[0, -1]
        visible = [{*row.tolist(), 23} for row in before]
    assert visible[0] == visible[1]  # this policy favours the oldest in both heads, so one mask describes both
    assert len(visible[0]) == 7
    mask = torch.full((1, 1, 24, 24), -torch.inf).triu(1)
    mask[0, 0, 23] = torch.tensor([0.0 if j in visible[0] else -torch.inf for j in range(24)])
    with torch.no_grad():
        want = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[0, -1]
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_own_sliding_window_and_original_positions_meet_grouped_heads(models):
    model, ids = models("mistral", sliding_window=9), ids_of(1, 40)
    logits, _ = run_on_cache(model, FakeKVPolicy(64), ids, chunks=[15, 8] + [1] * 17)
    torch.testing.assert_close(logits, eager(model, ids), atol=1e-5, rtol=1e-5)


def test_the_steady_state_allocates_no_keys(models):
    model, ids = models("llama"), ids_of(1, 40)
    with attach(model, kv=Keep(1, 7)) as cache, torch.no_grad():
        for t in range(40):
            model(input_ids=ids[:, t : t + 1], past_key_values=cache, use_cache=True)
            addresses = [(x.keys.data_ptr(), x.values.data_ptr(), cache.nbytes()) for x in cache.layers]
            if t == 0:
                start = addresses
            assert addresses == start


@pytest.mark.parametrize("policy", [Keep(1, 5), FakeKVPolicy(6), KeepAll()], ids=["rank", "score", "unbounded"])
@pytest.mark.parametrize("at", [3, 20])
def test_a_saved_cache_continues_bit_identically(models, policy, at):
    model, ids = models("qwen2"), ids_of(2, 40)
    whole, _ = run_on_cache(model, policy, ids, chunks=[1] * 40)
    with attach(model, kv=policy) as cache, torch.no_grad():
        for t in range(at):
            model(input_ids=ids[:, t : t + 1], past_key_values=cache, use_cache=True)
        state = cache.state_dict()
        model(input_ids=ids[:, at : at + 1], past_key_values=cache, use_cache=True)  # must not reach the saved state
    with attach(model, kv=policy) as cache, torch.no_grad():
        cache.load_state_dict(state)
        rest = [model(input_ids=ids[:, t : t + 1], past_key_values=cache, use_cache=True).logits for t in range(at, 40)]
    assert torch.equal(torch.cat(rest, dim=1), whole[:, at:])


def test_reset_equals_a_fresh_cache(models):
    model, ids = models("llama"), ids_of(1, 20)
    fresh, _ = run_on_cache(model, Keep(1, 4), ids, chunks=[1] * 20)
    with attach(model, kv=Keep(1, 4)) as cache, torch.no_grad():
        model(input_ids=ids, past_key_values=cache, use_cache=True)
        cache.reset()
        again = [model(input_ids=ids[:, t : t + 1], past_key_values=cache, use_cache=True).logits for t in range(20)]
    assert torch.equal(torch.cat(again, dim=1), fresh)


def test_a_cache_of_other_options_is_not_restored(models):
    model, ids = models("llama"), ids_of(1, 20)
    _, cache = run_on_cache(model, Keep(1, 4), ids, chunks=[20])
    with attach(model, kv=Keep(1, 5)) as other, pytest.raises(InvalidInput, match=r"capacity 5.*has capacity 6"):
        other.load_state_dict(cache.state_dict())


# -- generate() and the rest of the library ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_generate_equals_the_library_while_nothing_is_evicted(models, kind):
    model, ids = models(kind), ids_of(2, 12)
    plain = model.generate(ids, max_new_tokens=20, do_sample=False)
    with attach(model, kv=KeepAll()) as cache:
        assert torch.equal(model.generate(ids, max_new_tokens=20, do_sample=False, past_key_values=cache), plain)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_generate_equals_feeding_its_own_tokens_one_by_one(models, kind):
    model, ids = models(kind), ids_of(1, 12)
    policy = Keep(2, 6)
    with attach(model, kv=policy) as cache:
        out = model.generate(ids, max_new_tokens=25, do_sample=False, past_key_values=cache)
    logits, _ = run_on_cache(model, policy, out[:, :-1], chunks=[12] + [1] * 24)
    assert torch.equal(logits[0, 11:].argmax(-1), out[0, 12:])


def test_attach_is_the_function_whatever_was_imported_before():
    import importlib
    import pkgutil

    import tian.hf

    for module in pkgutil.iter_modules(tian.hf.__path__):
        if module.name not in ("conf", "assets", "lm_eval"):  # the last needs an extra
            importlib.import_module(f"tian.hf.{module.name}")
    assert callable(tian.hf.attach)


def test_everything_is_restored_on_exit_even_after_an_exception(models):
    model, ids = models("llama"), ids_of(1, 10)
    before = eager(model, ids)
    with pytest.raises(RuntimeError, match="mine"), attach(model, kv=KeepAll()):
        raise RuntimeError("mine")
    assert model.config._attn_implementation == "eager"
    assert not any("tian" in key for m in model.modules() for key in vars(m))
    assert torch.equal(eager(model, ids), before)


def test_half_precision_stays_close(models):
    from conftest_models import make_model

    model, ids = make_model("llama").to(torch.bfloat16), ids_of(1, 30)
    logits, _ = run_on_cache(model, KeepAll(), ids, chunks=[10] + [1] * 20)
    torch.testing.assert_close(logits.float(), eager(model, ids).float(), atol=0.5, rtol=0.1)


# -- refusals ------------------------------------------------------------------------------------------------------------


def test_an_unsupported_architecture_is_refused_with_the_list():
    from transformers import BloomConfig, BloomForCausalLM

    model = BloomForCausalLM(BloomConfig(hidden_size=16, n_layer=1, n_head=2, vocab_size=20)).eval()
    with pytest.raises(UnsupportedModel, match="'bloom' is not supported") as caught, attach(model, kv=KeepAll()):
        pass
    assert "llama" in caught.value.hint


def test_a_rotary_type_that_depends_on_length_is_refused():
    from conftest_models import make_model

    model = make_model("llama", rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0})
    with pytest.raises(UnsupportedModel, match="'dynamic'"), attach(model, kv=KeepAll()):
        pass


def test_misuse_is_refused_with_a_remedy(models):
    model, ids = models("llama"), ids_of(2, 6)
    with attach(model, kv=KeepAll()) as cache:
        with pytest.raises(InvalidInput, match="must be given the cache"):
            model(input_ids=ids)
        with pytest.raises(InvalidInput, match="already attached"), attach(model, kv=KeepAll()):
            pass
        mask = torch.tensor([[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]])
        with pytest.raises(InvalidInput, match="padded on the right"):
            model(input_ids=ids, attention_mask=mask, past_key_values=cache)
        model.train()
        with pytest.raises(InvalidInput, match="training mode"):
            model(input_ids=ids, past_key_values=cache)
        model.eval()
        with torch.no_grad():
            model(input_ids=ids, past_key_values=cache)
            with pytest.raises(InvalidInput, match="the cache holds batch 2"):
                model(input_ids=ids[:1], past_key_values=cache)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([[[0, 2, 1]]], "ascending"),
        ([[[0, 1, 1]]], "ascending"),
        ([[[0, 1, 2]]], "newest token is missing"),
        ([[[-1, 2, 9]]], "outside"),
        ([[[0, 1, 2, 3, 9]]], "shape"),
    ],
)
def test_a_policy_that_breaks_its_contract_is_named(models, bad, message):
    class Bad(KeepAll):
        def capacity(self, layer, n_layers, prompt_len):
            return 3

        def select(self, score, token, capacity):
            return torch.tensor(bad)

    model = models("llama")
    with attach(model, kv=Bad()) as cache, torch.no_grad(), pytest.raises(ContractError, match=message):
        model(input_ids=ids_of(1, 10), past_key_values=cache)


def test_a_score_the_host_lacks_is_refused(models):
    class Wants(KeepAll):
        needs: ClassVar = frozenset({"entropy"})

    with pytest.raises(PluginError, match="entropy"), attach(models("llama"), kv=Wants()):
        pass
