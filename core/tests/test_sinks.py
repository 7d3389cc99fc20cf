"""Sinks in the softmax: exact against slow forms, trained, saved, loaded, generated with; refused where they cannot be."""

import copy
import json
import shutil

import pytest
import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask

import tian
from tian.errors import DataError, TianError, UnsupportedModel
from tian.hf import attach, sinks
from tian.hf.families import SINK, attention_modules
from tian.hf.loading import SHIPPED, load_model
from tian.hf.options import LMOptions
from tian.hf.sinks import add_sinks, attention_with_sink, check_sinks
from tian.hf.small_lm import build_lm, training_batch
from tian.hf.tokenizer import train_tokenizer, without_first
from tian.testing.fakes import FakeKVPolicy

HUGE = torch.finfo(torch.float32).min
TINY = LMOptions(vocab_size=257, d_model=16, layers=2, heads=2, kv_heads=1, ffn=16, context=16)


def slow(query, key, value, sink, mask, scale):
    """Sheet form: softmax output x sigmoid(lse - s), the heads' keys repeated."""
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    logits = query @ key.transpose(-1, -2) * scale + mask
    lse = logits.logsumexp(dim=-1, keepdim=True)
    return logits.softmax(dim=-1) @ value * torch.sigmoid(lse - sink.view(1, -1, 1, 1))


def slow_in_models(module, query, key, value, mask, *, scaling, **_rest):
    return slow(query, key, value, getattr(module, SINK), mask, scaling).transpose(1, 2), None


AttentionInterface.register("slow_sink", slow_in_models)
AttentionMaskInterface.register("slow_sink", eager_mask)


@pytest.fixture
def sinky(models):
    """A random Llama with grouped heads and a sink; the scalar's logits differ by head and layer."""

    def make(kind, base="llama"):
        model = copy.deepcopy(models(base))
        add_sinks(model, kind)
        if kind == "scalar":
            generator = torch.Generator().manual_seed(1)
            for module in attention_modules(model).values():
                getattr(module, SINK).data.normal_(0, 2, generator=generator)
        return model

    return make


def save(model, folder):
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(SHIPPED / name, folder / name)
    return str(folder)


def ids_of(batch=2, length=12, seed=0):
    return torch.randint(1, 61, (batch, length), generator=torch.Generator().manual_seed(seed))


# -- the function ------------------------------------------------------------------------------------------------------


def inputs(kv_heads, n=9, m=6):
    generator = torch.Generator().manual_seed(3)
    shapes = [(2, 4, m, 8), (2, kv_heads, n, 8), (2, kv_heads, n, 8), (4,)]
    return [torch.randn(s, generator=generator, requires_grad=True) for s in shapes]


def causal(n=9, m=6):
    return torch.full((m, n), HUGE).triu(n - m + 1)[None, None]


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_outputs_and_gradients_equal_the_softmax_scaled_by_what_the_sink_leaves(kv_heads):
    args = inputs(kv_heads)
    made = attention_with_sink(*args[:3], sink=args[3], mask=causal(), scale=0.3)
    exact = [a.detach().double().requires_grad_() for a in args]
    want = slow(*exact, causal().double(), 0.3)
    torch.testing.assert_close(made.double(), want, atol=1e-6, rtol=0)
    upstream = torch.randn(made.shape, generator=torch.Generator().manual_seed(4))
    for mine, reference in zip(
        torch.autograd.grad(made, args, upstream), torch.autograd.grad(want, exact, upstream.double()), strict=True
    ):
        torch.testing.assert_close(mine.double(), reference, atol=1e-6, rtol=1e-6)


def test_softmax1_is_the_sink_of_logit_zero():
    query, key, value, _ = (a.detach() for a in inputs(4))
    e = ((query @ key.transpose(-1, -2)) * 0.3 + causal()).exp()
    want = e / (1 + e.sum(dim=-1, keepdim=True)) @ value
    got = attention_with_sink(query, key, value, sink=torch.zeros(4), mask=causal(), scale=0.3)
    torch.testing.assert_close(got, want, atol=1e-6, rtol=0)


def test_a_sink_of_no_weight_is_plain_attention_and_one_of_all_weight_gives_nothing():
    query, key, value, _ = (a.detach() for a in inputs(4))
    plain = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=causal(), scale=0.3)
    none, all_ = (
        attention_with_sink(query, key, value, sink=torch.full((4,), s), mask=causal(), scale=0.3) for s in (-1e4, 1e4)
    )
    torch.testing.assert_close(none, plain, atol=1e-6, rtol=0)
    assert all_.abs().max() == 0


def test_a_query_that_sees_no_key_gives_zeros():
    query, key, value, sink = (a.detach() for a in inputs(4))
    out = attention_with_sink(query, key, value, sink=sink, mask=torch.full((2, 1, 6, 9), HUGE), scale=0.3)
    assert out.abs().max() == 0


# -- in a model --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["llama", "gpt_neox", "qwen2"])
def test_a_model_and_its_gradients_equal_the_slow_form(sinky, base):
    model, ids = sinky("scalar", base), ids_of()
    found = []
    for name in (sinks.NAME, "slow_sink"):
        model.set_attn_implementation(name)
        out = model(input_ids=ids, labels=ids)
        model.zero_grad()
        out.loss.backward()
        found.append((out.logits.detach(), [p.grad.clone() for n, p in model.named_parameters() if SINK in n]))
    (fast, fast_grads), (want, want_grads) = found
    torch.testing.assert_close(fast, want, atol=1e-5, rtol=1e-5)
    assert len(fast_grads) == 2
    for got, expected in zip(fast_grads, want_grads, strict=True):
        assert expected.abs().min() > 0
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-4)


def test_a_sink_changes_the_logits(sinky, models):
    plain = models("llama")(input_ids=ids_of()).logits
    for kind in sinks.KINDS:
        assert (sinky(kind)(input_ids=ids_of()).logits - plain).abs().max() > 1e-3


@pytest.mark.parametrize("kind", sinks.KINDS)
@pytest.mark.parametrize("shard", ["20KB", "5GB"])
def test_what_was_saved_is_loaded_with_identical_logits(sinky, tmp_path, kind, shard):
    model = sinky(kind)
    folder = save(model, tmp_path)
    model.save_pretrained(folder, max_shard_size=shard)
    loaded = load_model(folder)
    assert json.loads((tmp_path / "config.json").read_text())["attention_sink"] == kind
    assert torch.equal(loaded(input_ids=ids_of()).logits, model(input_ids=ids_of()).logits)
    assert [n for n, _ in loaded.named_parameters()] == [n for n, _ in model.named_parameters()]
    assert all(getattr(m, SINK).shape == (4,) for m in attention_modules(loaded).values())


@pytest.mark.parametrize("kind", sinks.KINDS)
def test_generation_with_a_cache_equals_running_everything_again(sinky, kind):
    model, ids = sinky(kind), ids_of(batch=2, length=5)
    made = model.generate(ids, max_new_tokens=8, do_sample=False)
    again = ids
    for _ in range(8):
        again = torch.cat([again, model(input_ids=again, use_cache=False).logits[:, -1:].argmax(dim=-1)], dim=1)
    assert torch.equal(made, again)


def test_a_padded_row_equals_the_row_alone(sinky):
    model, ids = sinky("scalar"), ids_of(batch=1, length=6)
    padded = torch.cat([torch.zeros(1, 3, dtype=torch.int64), ids], dim=1)
    mask = (torch.arange(9) >= 3).long()[None]
    got = model(input_ids=padded, attention_mask=mask, position_ids=(mask.cumsum(dim=1) - 1).clamp_min(0)).logits[:, 3:]
    torch.testing.assert_close(got, model(input_ids=ids).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", sinks.KINDS)
@pytest.mark.parametrize("pieces", [[1] * 12, [5, 1, 6]])
def test_on_the_slot_cache_the_logits_are_those_of_the_plain_model(sinky, kind, pieces):
    model, ids = sinky(kind), ids_of()
    with torch.no_grad(), attach(model, kv=FakeKVPolicy(budget=64)) as cache:
        got = [model(input_ids=x, past_key_values=cache, use_cache=True).logits for x in ids.split(pieces, dim=1)]
    torch.testing.assert_close(torch.cat(got, dim=1), model(input_ids=ids).logits, atol=1e-5, rtol=1e-5)


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["mpt", "falcon"])
def test_a_model_with_attention_of_its_own_is_refused(models, base):
    with pytest.raises(UnsupportedModel, match="computes attention by itself") as caught:
        add_sinks(copy.deepcopy(models(base)), "softmax1")
    assert "Llama" in caught.value.hint


def test_an_unknown_kind_of_sink_is_refused_at_loading(models, tmp_path):
    folder = save(models("llama"), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"attention_sink": "vector"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModel, match="'vector'") as caught:
        load_model(folder)
    assert "softmax1, scalar" in caught.value.hint


def test_trained_logits_that_are_missing_are_named(models, tmp_path):
    folder = save(models("llama"), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"attention_sink": "scalar"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"layers\.0\.self_attn\.tian_sink of shape \[4\], found no"):
        load_model(folder)


def test_a_model_whose_sink_was_left_out_is_found_out(sinky, tmp_path):
    from transformers import AutoModelForCausalLM

    model = sinky("softmax1")
    check_sinks(model)
    careless = AutoModelForCausalLM.from_pretrained(save(model, tmp_path))
    with pytest.raises(UnsupportedModel, match="loaded without") as caught:
        check_sinks(careless)
    assert "tian.hf.load_model" in caught.value.hint


# -- training ----------------------------------------------------------------------------------------------------------


def test_models_that_differ_in_first_token_and_sink_begin_with_the_same_weights():
    def state(bos_id=0, **kind):
        options = LMOptions(**{**vars(TINY), **kind})
        return build_lm(options, vocab_size=257, bos_id=bos_id, seed=5).state_dict()

    usual = state()
    for other in (state(None, first="none"), state(None, first="none", sink="softmax1")):
        assert other.keys() == usual.keys()
        assert all(torch.equal(other[k], usual[k]) for k in usual)
    scalar = state(None, first="none", sink="scalar")
    extra = scalar.keys() - usual.keys()
    assert len(extra) == 2
    assert all(scalar[k].abs().max() == 0 for k in extra)
    assert all(torch.equal(scalar[k], usual[k]) for k in usual)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_with_and_without_the_first_token_the_targets_are_the_same(share):
    stream = torch.arange(1, 400)
    args = {"batch": 8, "context": 32, "copy_share": share, "seed": 7}
    ours, theirs = (training_batch(stream, 3, bos_id=b, **args)["input_ids"] for b in (0, None))
    assert torch.equal(ours[:, 1:], theirs[:, 1:])
    assert (ours[:, 0] == 0).all()
    assert torch.equal(theirs[:, 0] + 1, theirs[:, 1])  # what stands before the window in the text


def test_a_tokenizer_without_the_first_token_gives_the_same_ids_and_nothing_in_front():
    with_first = train_tokenizer(["the sink holds the stream in place " * 20], vocab_size=290)
    bare = without_first(with_first)
    text = "the sink ä"
    assert with_first(text)["input_ids"] == [0, *bare(text)["input_ids"]]
    assert bare("")["input_ids"] == []
    assert bare.bos_token_id is None
    assert len(bare) == len(with_first)
    assert bare.decode(bare(text)["input_ids"]) == text


@pytest.fixture(scope="module")
def overrides(tmp_path_factory):
    text = tmp_path_factory.mktemp("text") / "text.txt"
    text.write_text("".join(f"{i} what the window loses the sink holds in place\n" for i in range(60)))
    shape = [f"lm.{k}={v}" for k, v in vars(TINY).items() if k not in ("first", "sink", "vocab_size")]
    steps = ["lm.vocab_size=300", "trainer.max_steps=2", "trainer.accelerator=cpu", "batch=2", "eval_tokens=64"]
    return [*shape, *steps, f"text.path={text}", f"held_out.path={text}"]


@pytest.mark.parametrize("kind", ["none", *sinks.KINDS])
def test_a_training_leaves_a_folder_that_loads(overrides, tmp_path, kind):
    tian.run("lm/train", [*overrides, f"lm.sink={kind}", "lm.first=none"], folder=tmp_path / "run")
    folder = tmp_path / "run" / "model"
    model = load_model(str(folder))
    card = json.loads((folder / "card.json").read_text())
    found = [getattr(m, SINK, None) for m in attention_modules(model).values()]
    assert all((s is None) == (kind == "none") for s in found)
    if kind == "scalar":
        assert all(s.abs().min() > 0 for s in found)  # trained: they began with 0
    assert card["recipe"]["lm"]["first"] == "none"
    assert card["recipe"]["lm"].get("sink", "none") == kind
    assert model.config.bos_token_id is None
    page = (tmp_path / "run" / "report.html").read_text()
    assert ("load_model" in page) == (kind != "none")


def test_the_usual_kind_of_model_needs_no_word_on_its_card(overrides, tmp_path):
    tian.run("lm/train", overrides, folder=tmp_path / "run")
    card = json.loads((tmp_path / "run" / "model" / "card.json").read_text())
    assert not {"first", "sink"} & card["recipe"]["lm"].keys()
    assert load_model(str(tmp_path / "run" / "model")).config.bos_token_id == 0


def test_a_kind_of_sink_that_does_not_exist_is_refused_when_composing():
    with pytest.raises(TianError, match=r"lm\.sink"):
        tian.compose("lm/train", ["lm.sink=kept"])
