"""Every supported architecture on the slot cache: exact while nothing is evicted, the dense model on the kept tokens after.

Also what a host must take: padded batches, beams, tokens taken back, prompts in pieces, decayed and windowed scores.
"""

from typing import ClassVar

import pytest
import torch
from kv_policies import FirstAndLast as Keep

from tian.errors import InvalidInput, UnsupportedModel
from tian.hf import attach
from tian.hf.families import FAMILIES
from tian.hf.host import prefill
from tian.spec import KVPolicy

KINDS = sorted({*FAMILIES, "falcon-new", "falcon-alibi"})
MOVABLE = [k for k in KINDS if k != "opt"]  # learned positions cannot move inside a cache


class Heavy(KVPolicy):
    """The newest `recent` and, of the rest, the tokens that received most attention."""

    needs: ClassVar = frozenset({"colsum"})

    def __init__(self, heavy, recent, decay=1.0, positions="in_cache"):
        self.heavy, self.recent, self.decay, self.positions = heavy, recent, decay, positions

    def capacity(self, layer, n_layers, prompt_len):
        return self.heavy + self.recent

    def select(self, score, token, capacity):
        old = score[..., : -self.recent]
        top = old.sort(dim=-1, descending=True, stable=True).indices[..., : self.heavy]
        tail = torch.arange(old.shape[-1], score.shape[-1]).expand(*score.shape[:2], -1)
        return torch.cat([top, tail], dim=-1).sort(dim=-1).values


def ids_of(batch, length, *, seed=1, vocab=61):
    return torch.randint(1, vocab, (batch, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def feed(model, cache, ids, chunks, mask=None):
    """Logits of all tokens, fed in chunks; `mask [B, T]` goes along with the first."""
    out, start = [], 0
    for size in chunks:
        more = {} if mask is None else {"attention_mask": mask[:, : start + size]}
        piece = ids[:, start : start + size]
        out.append(model(input_ids=piece, past_key_values=cache, use_cache=True, **more).logits)
        start += size
    return torch.cat(out, dim=1)


@torch.no_grad()
def eager(model, ids):
    return model(input_ids=ids, use_cache=False).logits


def close(got, want, kind):
    # Falcon rounds its ALiBi table to bfloat16, MPT adds the bias before a softmax in another order.
    tolerance = 5e-3 if kind == "falcon-alibi" else 2e-5
    torch.testing.assert_close(got, want, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_every_architecture_equals_its_eager_model_while_nothing_is_evicted(models, kind):
    model, ids = models(kind), ids_of(2, 50)
    positions = "original" if kind == "opt" else "in_cache"
    before = eager(model, ids)
    for policy in (Keep(2, 62, positions), Heavy(20, 40, positions=positions)):
        with attach(model, kv=policy) as cache:
            close(feed(model, cache, ids, [30] + [1] * 20), before, kind)
    assert torch.equal(eager(model, ids), before)  # everything is restored


@pytest.mark.parametrize("kind", MOVABLE)
def test_after_eviction_one_layer_is_the_dense_model_on_the_kept_tokens(models, kind):
    """Positions inside the cache: what is kept looks like a text of its own."""
    model, ids = models(kind, layers=1), ids_of(1, 40)
    with attach(model, kv=Keep(2, 9)) as cache:
        got = feed(model, cache, ids, [1] * 40)
    for t in (12, 25, 39):
        seen = torch.cat([ids[:, :2], ids[:, t - 9 : t + 1]], dim=1)  # the step still sees what it evicts afterwards
        close(got[:, t], eager(model, seen)[:, -1], kind)


@pytest.mark.parametrize("kind", MOVABLE)
def test_generate_runs_on_every_architecture(models, kind):
    model, ids = models(kind), ids_of(2, 12)
    with attach(model, kv=Keep(1, 60)) as cache, torch.no_grad():
        ours = model.generate(ids, past_key_values=cache, max_new_tokens=12, do_sample=False, pad_token_id=0)
    with torch.no_grad():
        theirs = model.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0)
    assert torch.equal(ours, theirs)
    with attach(model, kv=Keep(1, 5)) as cache, torch.no_grad():
        model.generate(ids, past_key_values=cache, max_new_tokens=12, do_sample=False, pad_token_id=0)
        assert cache.kept().shape[-1] == 6


def test_learned_positions_refuse_to_move_and_end_at_their_table(models):
    model = models("opt", context=24)
    with pytest.raises(UnsupportedModel, match="learned positions") as caught, attach(model, kv=Keep(1, 5)):
        pass
    assert "kv.positions=original" in caught.value.hint
    with attach(model, kv=Keep(1, 5, "original")) as cache:
        got = feed(model, cache, ids_of(1, 24), [1] * 24)
        assert torch.isfinite(got).all()
        with pytest.raises(InvalidInput, match="24 learned positions, and token 25"):
            feed(model, cache, ids_of(1, 1), [1])


# -- padding -----------------------------------------------------------------------------------------------------------


def padded(lengths, width, *, seed=3):
    """Rows of the given lengths, padded on the left with token 5, and their mask."""
    ids = ids_of(len(lengths), width, seed=seed)
    mask = torch.arange(width) >= width - torch.tensor(lengths)[:, None]
    return torch.where(mask, ids, 5), mask.long()


@pytest.mark.parametrize("kind", ["llama", "gpt_neox", "mpt", "falcon", "falcon-alibi", "opt"])
@pytest.mark.parametrize("make", [Keep, Heavy], ids=["no scores", "scores"])
@pytest.mark.parametrize("size", [(2, 7), (3, 40)], ids=["evicting", "roomy"])
def test_a_padded_row_is_that_row_alone(models, kind, make, size):
    model = models(kind)
    positions = "original" if kind == "opt" else "in_cache"
    lengths, width, steps = [20, 13, 4, 19], 20, 15
    ids, mask = padded(lengths, width)
    more = ids_of(4, steps, seed=9)
    full = torch.cat([mask, torch.ones(4, steps, dtype=torch.long)], dim=1)
    with attach(model, kv=make(*size, positions=positions)) as cache:
        got = feed(model, cache, torch.cat([ids, more], dim=1), [width] + [1] * steps, full)
        kept = [cache.kept(1)[r if cache.kept(1).shape[0] > 1 else 0] for r in range(4)]
        scores = None if cache.layers[1].score is None else cache.layers[1].in_order(cache.layers[1].score)
    for r, n in enumerate(lengths):
        alone = torch.cat([ids[r : r + 1, width - n :], more[r : r + 1]], dim=1)
        with attach(model, kv=make(*size, positions=positions)) as cache:
            want = feed(model, cache, alone, [n] + [1] * steps)
            own = cache.kept(1)[0]
            if scores is not None:
                want_scores = cache.layers[1].in_order(cache.layers[1].score)[0]
        close(got[r, width - n :], want[0], kind)
        for head in range(kept[r].shape[0]):
            assert kept[r][head][kept[r][head] >= 0].tolist() == own[min(head, own.shape[0] - 1)].tolist()
        if scores is not None:
            visible = scores[r][:, -own.shape[-1] :]
            torch.testing.assert_close(visible, want_scores, atol=1e-4, rtol=1e-4)


def test_generate_takes_a_padded_batch(models):
    model = models("llama")
    ids, mask = padded([9, 4], 9)
    with attach(model, kv=Keep(1, 60)) as cache, torch.no_grad():
        ours = model.generate(
            ids, attention_mask=mask, past_key_values=cache, max_new_tokens=8, do_sample=False, pad_token_id=5
        )
    with torch.no_grad():
        theirs = model.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False, pad_token_id=5)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("mask", [[[1, 1, 0]], [[1, 0, 1]], [[0, 0, 0]]], ids=["right", "hole", "empty"])
def test_padding_that_cannot_be_served_is_refused(models, mask):
    with attach(models("llama"), kv=Keep(1, 5)) as cache, pytest.raises(InvalidInput) as caught:
        feed(models("llama"), cache, ids_of(1, 3), [3], torch.tensor(mask))
    assert "left" in caught.value.hint or "empty" in caught.value.hint


# -- beams, crop, pieces -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Keep, Heavy], ids=["no scores", "scores"])
def test_beams_equal_the_librarys_while_nothing_is_evicted(models, make):
    model, ids = models("llama"), ids_of(2, 8)
    options = {"max_new_tokens": 10, "num_beams": 3, "do_sample": False, "pad_token_id": 0}
    with attach(model, kv=make(4, 60)) as cache, torch.no_grad():
        ours = model.generate(ids, past_key_values=cache, **options)
    with torch.no_grad():
        assert torch.equal(ours, model.generate(ids, **options))


def test_reordered_rows_carry_keys_tokens_and_scores_along(models):
    model, ids = models("llama"), ids_of(3, 30)
    order = torch.tensor([2, 0, 0])
    next_ids = ids_of(3, 6, seed=8)
    with attach(model, kv=Heavy(3, 4)) as cache:
        feed(model, cache, ids, [10] + [1] * 20)
        cache.reorder_cache(order)
        got = feed(model, cache, next_ids, [1] * 6)
    with attach(model, kv=Heavy(3, 4)) as cache:
        want = feed(model, cache, torch.cat([ids[order], next_ids], dim=1), [10] + [1] * 26)[:, -6:]
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("make", [lambda: Heavy(3, 4), lambda: Keep(2, 5)], ids=["scores", "no scores"])
def test_one_row_can_become_several(models, make):
    model, ids, next_ids = models("llama"), ids_of(1, 20), ids_of(3, 6, seed=8)
    with attach(model, kv=make()) as cache:
        feed(model, cache, ids, [10] + [1] * 10)
        cache.reorder_cache(torch.tensor([0, 0, 0]))
        got = feed(model, cache, next_ids, [1] * 6)
    with attach(model, kv=make()) as cache:
        want = feed(model, cache, torch.cat([ids.expand(3, 20), next_ids], dim=1), [10] + [1] * 16)[:, -6:]
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_tokens_can_be_taken_back_until_something_was_evicted_for_them(models):
    model, ids = models("llama"), ids_of(1, 12)
    with attach(model, kv=Keep(2, 8)) as cache:
        feed(model, cache, ids[:, :9], [6, 1, 1, 1])
        cache.crop(6)
        assert (cache.get_seq_length(), cache.kept()[0, 0].tolist()) == (6, list(range(6)))
        other = ids_of(1, 4, seed=5)
        got = feed(model, cache, other, [1] * 4)
        feed(model, cache, other, [1])  # the eleventh: one leaves
        with pytest.raises(InvalidInput, match="cannot go back from 11 to 10 tokens: older ones were evicted"):
            cache.crop(10)
        cache.crop(11)  # nothing to take back
    torch.testing.assert_close(got, eager(model, torch.cat([ids[:, :6], other], dim=1))[:, -4:], atol=1e-5, rtol=1e-5)
    with attach(model, kv=Heavy(2, 8)) as cache:
        feed(model, cache, ids[:, :5], [5])
        with pytest.raises(InvalidInput, match="scores already count them"):
            cache.crop(-1)


@pytest.mark.parametrize("make", [Keep, Heavy], ids=["no scores", "scores"])
def test_a_prompt_in_pieces_is_the_stream_read_in_pieces(models, make):
    model, ids = models("qwen2"), ids_of(2, 50)
    with attach(model, kv=make(2, 9)) as cache:
        want = feed(model, cache, ids, [16, 16, 16, 2])[:, -1]
        kept = cache.kept(1)
    with attach(model, kv=make(2, 9)) as cache, torch.no_grad():
        got = prefill(model, ids, cache, chunk=16)
        assert torch.equal(cache.kept(1), kept)
    torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-6)
    with attach(model, kv=make(2, 9)) as cache, pytest.raises(InvalidInput, match="chunk >= 1"):
        prefill(model, ids, cache, chunk=0)


# -- scores ------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def weights_of(model, ids):
    """Attention weights of the first layer, summed over grouped heads: `[B, H_kv, T, T]`."""
    found = []
    handle = model.model.layers[0].self_attn.register_forward_hook(lambda _m, _a, out: found.append(out[1]))
    model(input_ids=ids, use_cache=False)
    handle.remove()
    (p,) = found
    kv = model.config.num_key_value_heads
    return p.view(p.shape[0], kv, -1, *p.shape[-2:]).sum(dim=2)


@pytest.mark.parametrize("decay", [1.0, 0.9])
@pytest.mark.parametrize("chunks", [[200], [1] * 200, [150] + [1] * 50], ids=["chunk", "steps", "both"])
def test_column_sums_are_those_of_the_whole_matrix_with_older_queries_decayed(models, decay, chunks):
    """More queries than a block of weights holds; the eager model is the reference."""
    model, ids = models("llama", layers=1), ids_of(1, 200)
    p = weights_of(model, ids)
    age = torch.arange(199, -1, -1, dtype=torch.float32)
    want = (p * (decay**age)[:, None]).sum(dim=2)
    with attach(model, kv=Heavy(100, 200, decay)) as cache:
        feed(model, cache, ids, chunks)
        got = cache.layers[0].in_order(cache.layers[0].score)
    torch.testing.assert_close(got, want, atol=1e-3, rtol=1e-4)


class LastQueries(Heavy):
    needs: ClassVar = frozenset({"window_sum"})
    window = 7


def test_a_window_sum_counts_the_last_queries_of_the_prompt_only(models):
    model, ids = models("llama", layers=1), ids_of(1, 40)
    want = weights_of(model, ids)[:, :, -7:].sum(dim=2)
    with attach(model, kv=LastQueries(20, 30)) as cache:
        feed(model, cache, ids, [40])
        torch.testing.assert_close(cache.layers[0].in_order(cache.layers[0].score), want, atol=1e-5, rtol=1e-5)
        feed(model, cache, ids_of(1, 3), [1] * 3)
        after = cache.layers[0].in_order(cache.layers[0].score)
    torch.testing.assert_close(after[..., :40], want, atol=1e-5, rtol=1e-5)  # steps leave it alone
