"""Claims of StreamingLLM, arXiv 2309.17453. The control of each check is the same run under another cache policy.

Two groups of runs, each with seeds of its own, serve all of them: long ones past the training length, beside running
tokens again; and short ones within it, beside full attention.
"""

from __future__ import annotations

from typing import Any

from tian.claims import Check, Claim, Ge, Le, World

STAND_IN = (
    "the 1M-parameter model that ships with tian, on Python sources; "
    "dependence on the first token, not yet an emergent attention sink"
)
WORLDS = (World("shipped-lm", 1, "tian:hf/assets/small-lm"), World("networkx-generators", 1, "networkx:generators"))
TEXT = "text.packages=[networkx.generators]"
LONG = ("streams=12", "tokens=384", "compare=['recompute 1+31']", "checks=false", TEXT)  # 3 training lengths
SHORT = ("streams=24", "tokens=128", "compare=[full]", TEXT)  # one training length
PAPER = "2309.17453"
STREAMING, WINDOW, FULL = "kv=streaming", "kv=window", "kv=full"  # 1+31, 0+32, everything: conf/kv/*.yaml
OF_LONG, OF_SHORT = "kvcache/first-tokens-recover", "kvcache/window-fails-at-first-eviction"  # whose seeds they use


def _tiny(size: tuple[str, ...], *policy: str, control: tuple[str, ...], **more: Any) -> dict[str, Check]:
    """A check on the shipped model: `kvcache/stream` with these overrides, against another policy."""
    shared: dict[str, Any] = {"seeds": 4, "budget_s": 110.0, "stands_in": STAND_IN, "worlds": WORLDS}
    return {"tiny": Check(config="kvcache/stream", overrides=(*size, *policy), control=control, **{**shared, **more})}


CLAIMS = [
    Claim(
        id="kvcache/bounded-memory",
        paper=PAPER,
        where="section 1 and figure 1",
        promises=("SL1",),
        says="a cache of first and recent tokens stops growing; keeping every key and value grows with the stream",
        checks=_tiny(
            LONG,
            STREAMING,
            control=(FULL,),
            metric="cache growth",
            holds=Le(0.0),
            seeds=1,  # bytes do not depend on the text
            seeds_of=OF_LONG,
            budget_s=36.0,
        ),
    ),
    Claim(
        id="kvcache/dense-fails-past-training-length",
        paper=PAPER,
        where="figure 3, dense attention",
        promises=("SL2",),
        says="beyond its training length a model reads worse with everything kept than with 32 tokens run again each time",
        checks=_tiny(
            LONG,
            FULL,
            control=(STREAMING,),
            metric="perplexity ratio",
            by={"policy": "recompute 1+31"},
            holds=Le(0.8),
            seeds=3,
            seeds_of=OF_LONG,
        ),
    ),
    Claim(
        id=OF_LONG,
        paper=PAPER,
        where="table 1 and table 2",
        promises=("SL5",),
        says="with the first token kept, a cache of the same size is as good as running its tokens again every time",
        checks=_tiny(
            LONG,
            STREAMING,
            control=(WINDOW,),
            metric="perplexity ratio",
            by={"policy": "recompute 1+31"},
            holds=Ge(0.95),
            seeds=3,
        ),
    ),
    Claim(
        id=OF_SHORT,
        paper=PAPER,
        where="figure 3, window attention",
        promises=("SL3",),
        says="a window of recent tokens fails as soon as the first token leaves it, still within the training length",
        checks=_tiny(
            SHORT,
            WINDOW,
            control=(STREAMING,),
            metric="perplexity over full attention",
            holds=Ge(1.2),
            budget_s=72.0,
        ),
    ),
    Claim(
        id="kvcache/sinks-equal-full-attention",
        paper=PAPER,
        where="figure 3, within the training length",
        promises=("SL5",),
        says=(
            "within the training length, the first token and 63 recent ones of 128 read within 1 % of full attention "
            "(with 31 recent ones the loss is 1 % itself, too close to tell)"
        ),
        checks=_tiny(
            SHORT,
            STREAMING,
            "kv.recent=63",
            control=(WINDOW, "kv.recent=32"),
            metric="perplexity over full attention",
            holds=Le(1.01),
            seeds_of=OF_SHORT,
            budget_s=72.0,
        ),
    ),
    Claim(
        id="kvcache/first-token-collects-attention",
        paper=PAPER,
        where="section 3.1 and figure 2",
        promises=("SL4",),
        says="above the lowest layer, late queries give the first token at least 0.3 of their attention",
        expected="fails",
        because=(
            "the model that ships is small and briefly trained: it needs its first token, yet above the lowest layer gives "
            "it about 0.04 of its attention, little more than 1/32; a sink takes more text and training than a test has"
        ),
        checks=_tiny(
            SHORT,
            STREAMING,
            control=(WINDOW,),  # the oldest of the recent tokens in its place
            metric="attention on the oldest token kept",
            holds=Ge(0.3),
            seeds_of=OF_SHORT,
            budget_s=72.0,
        ),
    ),
]
