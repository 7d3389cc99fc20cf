"""Where the cache host warns, says what it does, or refuses: trained positions, long prompts, scores that are no numbers."""

from typing import ClassVar

import pytest
import torch
from kv_policies import FirstAndLast as Keep

from tian.errors import InvalidInput, UnsupportedModel
from tian.hf import attach
from tian.testing.fakes import FakeKVPolicy


def ids_of(batch, length):
    return torch.randint(1, 61, (batch, length), generator=torch.Generator().manual_seed(1))


def test_a_cache_beyond_the_trained_positions_is_refused_for_rotary_and_warned_of_for_alibi(models, caplog):
    llama, mpt = models("llama", context=32), models("mpt", context=32)
    with pytest.raises(InvalidInput, match="holds 33 tokens, and the model was trained on 32") as error:
        with attach(llama, kv=Keep(1, 32)):
            pass
    assert "at most 31 tokens" in error.value.hint
    with attach(llama, kv=Keep(1, 30)), caplog.at_level("WARNING", "tian"):
        assert not caplog.messages
    for model, last in ((llama, 31), (mpt, 40)):  # as many as trained: the query sits one further, as in the paper
        with attach(model, kv=Keep(1, last)):
            assert "beyond the training length 32" in caplog.messages[-1]
            caplog.clear()


def test_a_prompt_longer_than_the_cache_is_said_to_be_attended_in_full(models, caplog):
    caplog.set_level("INFO", "tian")
    for length, said in ((8, []), (9, ["a prompt of 9 tokens is attended in full, then FirstAndLast keeps 8"])):
        with attach(models("llama"), kv=Keep(2, 6)) as cache:
            models("llama")(input_ids=ids_of(1, length), past_key_values=cache, use_cache=True)
        assert [m.split(" (")[0] for m in caplog.messages] == said
        assert cache.kept().shape[-1] == 8


def test_with_debugging_on_a_score_that_is_not_a_number_is_reported(models, monkeypatch):
    monkeypatch.setenv("TIAN_DEBUG", "1")
    model, ids = models("llama"), ids_of(1, 12)
    with attach(model, kv=FakeKVPolicy(8)) as cache:
        model(input_ids=ids[:, :5], past_key_values=cache, use_cache=True)
        cache.layers[1].score.fill_(torch.inf)
        with pytest.raises(InvalidInput, match="layer 1 has scores that are not numbers after token 5"):
            model(input_ids=ids[:, 5:6], past_key_values=cache, use_cache=True)


def test_a_score_that_is_not_a_number_evicts_an_old_token_and_nothing_else(models):
    class Ranged(FakeKVPolicy):
        needs: ClassVar = frozenset({"colsum"})

        def capacity(self, layer, n_layers, prompt_len):
            return 8

        def victim_ranks(self, capacity):
            return 2, 5

    model, ids = models("llama"), ids_of(1, 30)
    with attach(model, kv=Ranged()) as cache:
        for t in range(30):
            if t == 15:
                for layer in cache.layers:
                    layer.score.fill_(torch.nan)
            before = cache.kept()
            model(input_ids=ids[:, t : t + 1], past_key_values=cache, use_cache=True)
            if t >= 15:  # ranks 0, 1, 6 and 7 are out of reach, the oldest of the broken ones goes
                assert torch.equal(cache.kept()[0, 0, :2], before[0, 0, :2])
                assert cache.kept()[0, 0, -3:].tolist() == [t - 2, t - 1, t]


def test_a_model_that_lost_the_sink_it_was_trained_with_is_refused(models):
    model = models("llama", seed=7)
    model.config.attention_sink = "softmax1"  # what transformers leaves of such a folder
    with pytest.raises(UnsupportedModel, match="trained with attention_sink='softmax1'") as error:
        with attach(model, kv=Keep(2, 6)):
            pass
    assert "tian.hf.load_model" in error.value.hint
