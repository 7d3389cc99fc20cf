"""The model in the wheel is the one its card describes."""

import hashlib
import json
import math

import pytest

from tian.hf.corpus import read_text
from tian.hf.evaluate import held_out_loss
from tian.hf.loading import SHIPPED, load_model, load_tokenizer
from tian.hf.options import TextSource

CARD = json.loads((SHIPPED / "card.json").read_text())


def test_it_is_small_and_has_the_recorded_hash():
    assert sum(f.stat().st_size for f in SHIPPED.iterdir()) < 12 * 2**20
    assert hashlib.sha256((SHIPPED / "model.safetensors").read_bytes()).hexdigest() == CARD["weights_sha256"]


def test_the_tokenizer_loses_no_byte_and_begins_with_the_first_token():
    tokenizer = load_tokenizer(None)
    text = "def f(x):\n\treturn 'ä∑🙂' # \r\n\x00 end"
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id == 0
    assert tokenizer.decode(ids[1:]) == text


def test_it_reaches_the_recorded_perplexity():
    held_out = read_text(TextSource(packages=CARD["recipe"]["held_out"]["packages"]))
    if held_out.sha256 != CARD["held_out"]["sha256"]:
        pytest.skip(f"the installed text is not {CARD['held_out']['label']}; install with constraints.txt")
    context, tokens = CARD["recipe"]["lm"]["context"], CARD["recipe"]["eval_tokens"]
    loss = held_out_loss(load_model(None), load_tokenizer(None), held_out.text, context=context, tokens=tokens)
    assert loss.numel() == CARD["held_out_tokens"]
    assert math.exp(float(loss.mean())) == pytest.approx(CARD["held_out_perplexity"], rel=1e-3)


def test_the_held_out_packages_were_not_trained_on():
    assert not set(CARD["recipe"]["text"]["packages"]) & set(CARD["recipe"]["held_out"]["packages"])
