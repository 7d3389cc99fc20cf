"""A model with quantised weights under `attach`; needs torchao."""

import pytest

import tian
from tian.hf.host import attach
from tian.hf.loading import load_model, load_tokenizer
from tian.hf.scoring import Row, score

pytestmark = pytest.mark.filterwarnings("ignore")  # torchao warns about its own extensions on import


@pytest.mark.parametrize(("name", "sizes"), [("full", {}), ("h2o", {"heavy": 4, "recent": 4})])
def test_int8_weights_serve_under_a_policy_as_without(name, sizes):
    quantization = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    model = load_model(None)
    ids = tuple(load_tokenizer(None)("def f(x):\n    for i in range(10):\n        x += i\n    return x")["input_ids"])
    row = Row(ids[:20], ids[20:])
    policy = tian.load("kv_policy", f"kvcache/{name}", **sizes)
    with attach(model, kv=policy) as cache:
        before = score(model, [row], cache=cache)[0].log_prob
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    with attach(model, kv=policy) as cache:
        after = score(model, [row], cache=cache)[0].log_prob
    moved = (after - before).abs().max()
    assert 0 < moved < 0.2  # eight bits, not another model
    if name == "full":
        plain = score(model, [row])[0].log_prob
        assert (after - plain).abs().max() < 1e-4
