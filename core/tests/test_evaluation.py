"""Scoring continuations: against sums by hand, whatever stands beside a row, plain and under a cache."""

import math

import pytest
import torch

import tian
from tian.errors import DataError, InvalidInput
from tian.hf.choices import SHOT_GAP, choose, cloze, encode_pair, encode_questions
from tian.hf.host import attach
from tian.hf.loading import load_model, load_tokenizer
from tian.hf.perplexity import text_loss
from tian.hf.scoring import Row, score
from tian.hf.texts import Document, Question

KINDS = ["llama", "gpt_neox", "opt", "mpt"]
ROWS = [
    Row((1, 2, 3, 4, 5, 6, 7, 8, 9), (10, 11, 12)),
    Row((1, 2, 3, 4, 5, 6, 7, 8, 9), (13,)),
    Row((5,), (6, 7, 8, 9)),
    Row((3, 1, 4, 1, 5), (9, 2)),
]


def by_hand(model, row):
    """Sum over the target of log-softmax, from one row alone."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([row.ids]), use_cache=False).logits[0].double()
    table = logits - logits.exp().sum(-1, keepdim=True).log()
    at = range(len(row.prefix) - 1, len(row.ids) - 1)
    return torch.stack([table[t, row.ids[t + 1]] for t in at]).float()


def policy(name, **options):
    return tian.load("kv_policy", f"kvcache/{name}", **options)


@pytest.mark.parametrize("kind", KINDS)
def test_a_score_is_the_sum_by_hand_whatever_the_batch_and_the_side_of_the_padding(models, kind):
    """Plain rows are padded on the right, attached ones on the left: both equal the row alone."""
    model = models(kind)
    full = policy("full")
    for batch in (1, 4):
        plain = score(model, ROWS, batch=batch)
        with attach(model, kv=full) as cache:
            attached = score(model, ROWS, cache=cache, batch=batch)
            streamed = score(model, ROWS, cache=cache, reading="stream", batch=batch)
        for row, *found in zip(ROWS, plain, attached, streamed, strict=True):
            for one in found:
                torch.testing.assert_close(one.log_prob, by_hand(model, row), atol=1e-4, rtol=0)


@pytest.mark.parametrize("reading", ["whole", "stream"])
@pytest.mark.parametrize("name", ["h2o", "streaming"])
def test_under_a_policy_a_row_scores_as_if_it_were_alone(models, name, reading):
    model = models("llama")
    sizes = {"heavy": 2, "recent": 2} if name == "h2o" else {"sinks": 1, "recent": 3}
    with attach(model, kv=policy(name, **sizes)) as cache:
        together = score(model, ROWS, cache=cache, reading=reading)
        for row, found in zip(ROWS, together, strict=True):
            alone = score(model, [row], cache=cache, reading=reading)[0]
            torch.testing.assert_close(found.log_prob, alone.log_prob, atol=1e-4, rtol=0)
            assert found.greedy == alone.greedy
    assert (together[0].log_prob - by_hand(model, ROWS[0])).abs().max() > 1e-3  # something was evicted


def test_a_share_of_the_prompt_is_each_rows_own(models):
    """Rows of other lengths in the batch change nothing, although a batch has one capacity."""
    model = models("llama")
    rows = [Row(tuple(range(1, n)), (9, 8)) for n in (14, 24, 25, 34)]
    with attach(model, kv=policy("h2o", budget=0.25, heavy=1, recent=1)) as cache:
        together = score(model, rows, cache=cache)
        alone = [score(model, [row], cache=cache)[0] for row in rows]
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a.log_prob, b.log_prob, atol=1e-4, rtol=0)


def test_greedy_says_whether_decoding_would_write_the_target(models):
    model = models("llama")
    prompt = torch.tensor([[1, 2, 3]])
    written = tuple(model.generate(prompt, max_new_tokens=3, do_sample=False)[0, 3:].tolist())
    other = (*written[:2], (written[2] + 1) % 61)
    assert [s.greedy for s in score(model, [Row((1, 2, 3), written), Row((1, 2, 3), other)])] == [True, False]


def test_a_row_needs_something_before_and_something_to_score():
    for before, target in (((), (1,)), ((1,), ())):
        with pytest.raises(InvalidInput, match="a row needs"):
            Row(before, target)


# -- perplexity --------------------------------------------------------------------------------------------------------


def test_every_token_of_every_document_is_scored_once_behind_the_first_token():
    tokenizer, model = load_tokenizer(None), load_model(None)
    texts = ["def f(x):\n    return x\n" * 9, "import os\n"]
    loss = text_loss(model, tokenizer, texts, context=32)
    ids = [tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts]
    assert [n.numel() for n in loss.nll] == [len(i) for i in ids]
    want = [-by_hand(model, Row((0,), tuple(ids[0][at : at + 31]))) for at in range(0, len(ids[0]), 31)]
    torch.testing.assert_close(loss.nll[0], torch.cat(want), atol=1e-4, rtol=0)
    nats = float(torch.cat(loss.nll).sum())
    assert loss.perplexity == pytest.approx(math.exp(nats / sum(map(len, ids))), rel=1e-5)
    assert loss.bits_per_byte == pytest.approx(nats / math.log(2) / len("".join(texts)), rel=1e-5)


def test_perplexity_under_a_policy_that_keeps_everything_is_the_plain_one_and_else_it_differs():
    tokenizer, model = load_tokenizer(None), load_model(None)
    texts = ["for i in range(10):\n    print(i)\n" * 2]
    plain = text_loss(model, tokenizer, texts, context=24)
    with attach(model, kv=policy("full")) as cache:
        full = text_loss(model, tokenizer, texts, context=24, cache=cache)
    torch.testing.assert_close(full.nll[0], plain.nll[0], atol=1e-4, rtol=0)
    with attach(model, kv=policy("window", recent=4)) as cache:
        assert text_loss(model, tokenizer, texts, context=24, cache=cache).perplexity > 1.1 * plain.perplexity


def test_a_context_without_room_and_an_empty_document_are_refused():
    tokenizer, model = load_tokenizer(None), load_model(None)
    with pytest.raises(InvalidInput, match="context must be > 1"):
        text_loss(model, tokenizer, ["abc"], context=1)
    with pytest.raises(InvalidInput, match="document 1 has 0 tokens"):
        text_loss(model, tokenizer, ["abc", ""], context=8)


# -- multiple choice ---------------------------------------------------------------------------------------------------


def test_context_and_choice_are_encoded_together_and_the_space_moves_to_the_choice():
    tokenizer = load_tokenizer(None)
    spaced, other = encode_pair(tokenizer, "return ", "self"), encode_pair(tokenizer, "return", " self")
    assert spaced == other
    assert tokenizer.decode(spaced.target) == " self"
    assert spaced.prefix[0] == tokenizer.bos_token_id
    assert encode_pair(tokenizer, "", "x").prefix == (tokenizer.bos_token_id,)


def test_a_choice_that_adds_no_token_is_refused_with_its_line():
    class Merging:
        """Everything is one token."""

        bos_token_id = eos_token_id = 0

        def __call__(self, text, **_):
            return {"input_ids": [1] if text else []}

    with pytest.raises(DataError, match="adds no token") as caught:
        encode_pair(Merging(), "a", "b", where="q.jsonl:4")
    assert caught.value.where == "q.jsonl:4"


def test_examples_stand_solved_in_front_and_are_not_asked():
    tokenizer = load_tokenizer(None)
    questions = [Question(f"q{i}:", (" yes", " no"), i % 2, f"f:{i}") for i in range(4)]
    items = encode_questions(tokenizer, questions, shots=2)
    assert len(items) == 2
    assert tokenizer.decode(items[0].rows[0].prefix[1:]) == f"q0: yes{SHOT_GAP}q1: no{SHOT_GAP}q2:"
    assert (items[1].gold, items[1].bytes_) == (1, (4, 3))
    with pytest.raises(DataError, match="leave none to ask"):
        encode_questions(tokenizer, questions, shots=4)


def test_of_equals_the_first_is_chosen_and_bytes_change_the_choice():
    assert choose([-1.0, -1.0]) == 0
    assert choose([-4.0, -6.0], [2, 6]) == 1


def test_cloze_items_hold_the_true_continuation_once_and_others_from_elsewhere():
    tokenizer = load_tokenizer(None)
    documents = [Document(c, " ".join(f"{c}{i}" for i in range(60))) for c in "abc"]
    items = cloze(tokenizer, documents, items=20, context=12, continuation=4, seed=3)
    assert items == cloze(tokenizer, documents, items=20, context=12, continuation=4, seed=3)
    assert items != cloze(tokenizer, documents, items=20, context=12, continuation=4, seed=4)
    texts = {d.name: tokenizer(d.text, add_special_tokens=False)["input_ids"] for d in documents}

    def inside(part, whole):
        return any(tuple(whole[i : i + len(part)]) == part for i in range(len(whole)))

    for item in items:
        assert {r.prefix for r in item.rows} == {item.rows[0].prefix}
        assert (len(item.rows[0].prefix), len(item.rows[0].target)) == (12, 4)
        true = [inside((*r.prefix[1:], *r.target), ids) for r in item.rows for ids in texts.values()]
        assert sum(true) == 1
        assert any(inside((*item.rows[item.gold].prefix[1:], *item.rows[item.gold].target), x) for x in texts.values())
    assert len({item.gold for item in items}) == 4


def test_cloze_items_need_two_documents():
    with pytest.raises(DataError, match="1 of 1 documents"):
        cloze(load_tokenizer(None), [Document("a", "x y " * 200)], items=2)


def test_held_out_windows_of_a_model_without_a_first_token_stand_behind_the_token_before(models):
    """Every window but the first once stood behind the first token of the text."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers import models as kinds
    from transformers import PreTrainedTokenizerFast

    from tian.hf.evaluate import held_out_loss

    plain = Tokenizer(kinds.WordLevel({"?": 0, **{str(i): i for i in range(1, 60)}}, unk_token="?"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    model, ids = models("llama"), torch.randint(1, 60, (1, 25), generator=torch.Generator().manual_seed(0))
    text = " ".join(map(str, ids[0].tolist()))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="?")
    found = held_out_loss(model, tokenizer, text, context=9, tokens=24)
    with torch.no_grad():
        rows = torch.cat([ids[:, at : at + 9] for at in (0, 8, 16)])
        logits = model(input_ids=rows).logits[:, :-1]
    expected = torch.nn.functional.cross_entropy(logits.transpose(1, 2), rows[:, 1:], reduction="none").flatten()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
