"""Longer proofs, for `make test-all`."""

import json
import math

import pytest

import tian
from tian.hf.loading import SHIPPED


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_training_again_gives_the_shipped_model(tmp_path):
    """Bit for bit on the processor it was trained on; elsewhere the last digits differ and grow, the quality does not."""
    shipped = json.loads((SHIPPED / "card.json").read_text())
    tian.run("lm/train", folder=tmp_path / "run")
    again = json.loads((tmp_path / "run" / "model" / "card.json").read_text())
    assert again["recipe"] == shipped["recipe"]
    assert again["text"] == shipped["text"]
    if again["weights_sha256"] != shipped["weights_sha256"]:
        assert again["held_out_perplexity"] == pytest.approx(shipped["held_out_perplexity"], rel=0.15)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_shows_what_the_readme_says(tmp_path):
    """The shipped model at two cache sizes; thresholds of the README's table."""
    tian.run("kvcache/demo", folder=tmp_path / "run")
    data = json.loads((tmp_path / "run" / "stream.json").read_text())
    rows = {r["label"]: r for r in data["arms"]}
    assert rows["window 0+32"]["ratio"] >= 1.3  # dropping the first token hurts ...
    assert rows["window 0+32"]["ratio_ci"][0] > 1.0
    for size in ("1+31", "1+63"):  # ... keeping it does not, whatever the size
        assert rows[f"streaming {size}"]["ratio"] <= 1.02
        assert rows[f"streaming {size}"]["cache_growth"] == 0
    assert abs(math.log(rows["recompute 1+31"]["ratio"])) <= 0.01  # as good as running the kept tokens again
    assert rows["full"]["ratio"] >= 1.5  # dense attention past the training length
    assert data["verdict"]["words"] == "dependence on the first token, not yet an emergent attention sink"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_memory_does_not_grow_over_a_long_stream(tmp_path):
    tian.run(
        "kvcache/stream",
        ["tokens=20000", "streams=1", "compare=[window]", "checks=false", "threads=1"],
        folder=tmp_path / "run",
    )
    for row in json.loads((tmp_path / "run" / "stream.json").read_text())["arms"]:
        assert row["cache_growth"] == 0
        early, late = row["rss"][len(row["rss"]) // 4][1], row["rss"][-1][1]
        assert late - early <= 2 * 2**20  # bytes; the allocator's noise, not the stream's length
