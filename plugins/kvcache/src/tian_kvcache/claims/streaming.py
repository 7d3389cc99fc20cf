"""Claims of StreamingLLM, arXiv 2309.17453. The control of each check is the same run under another cache policy."""

from __future__ import annotations

from typing import Any

from tian.claims import Check, Claim, Ge, Le, World

STAND_IN = (
    "the 1M-parameter model that ships with tian, on Python sources; "
    "dependence on the first token, not yet an emergent attention sink"
)
WORLDS = (World("shipped-lm", 1, "tian:hf/assets/small-lm"), World("networkx-generators", 1, "networkx:generators"))
SIZE = ("streams=12", "tokens=512", "checks=false", "text.packages=[networkx.generators]")  # 4 training lengths
PAPER = "2309.17453"
STREAMING, WINDOW, FULL = "kv=streaming", "kv=window", "kv=full"  # 1+31, 0+32, everything: conf/kv/*.yaml


def _tiny(*overrides: str, control: str, **more: Any) -> dict[str, Check]:
    """A check on the shipped model: `kvcache/stream` with these overrides, against another policy."""
    shared: dict[str, Any] = {"seeds": 4, "budget_s": 220.0, "stands_in": STAND_IN, "worlds": WORLDS}
    first, policy = overrides
    return {
        "tiny": Check(
            config="kvcache/stream", overrides=(first, *SIZE, policy), control=(control,), **{**shared, **more}
        )
    }


CLAIMS = [
    Claim(
        id="kvcache/bounded-memory",
        paper=PAPER,
        where="section 1 and figure 1",
        promises=("SL1",),
        says="a cache of first and recent tokens stops growing; keeping every key and value grows with the stream",
        checks=_tiny(
            "compare=[]",
            STREAMING,
            control=FULL,
            metric="cache growth",
            holds=Le(0.0),
            seeds=1,  # bytes do not depend on the text
            budget_s=60.0,
        ),
    ),
    Claim(
        id="kvcache/dense-fails-past-training-length",
        paper=PAPER,
        where="figure 3, dense attention",
        promises=("SL2",),
        says="beyond its training length a model reads worse with everything kept than with 32 tokens run again each time",
        checks=_tiny(
            "compare=['recompute 1+31']",
            FULL,
            control=STREAMING,
            metric="perplexity ratio",
            by={"policy": "recompute 1+31"},
            holds=Le(0.8),
        ),
    ),
    Claim(
        id="kvcache/window-fails-at-first-eviction",
        paper=PAPER,
        where="figure 3, window attention",
        promises=("SL3",),
        says="a window of recent tokens fails as soon as the first token leaves it, still within the training length",
        checks=_tiny(
            "compare=[full]",
            WINDOW,
            control=STREAMING,
            metric="perplexity over full attention",
            holds=Ge(1.2),
        ),
    ),
    Claim(
        id="kvcache/first-tokens-recover",
        paper=PAPER,
        where="table 1 and table 2",
        promises=("SL5",),
        says="with the first token kept, a cache of the same size is as good as running its tokens again every time",
        checks=_tiny(
            "compare=['recompute 1+31']",
            STREAMING,
            control=WINDOW,
            metric="perplexity ratio",
            by={"policy": "recompute 1+31"},
            holds=Ge(0.95),
        ),
    ),
]
