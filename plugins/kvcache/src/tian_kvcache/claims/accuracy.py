"""Claims of H2O, arXiv 2306.14048, section 5: a balance of heavy and recent tokens at 20 % of the prompt."""

from __future__ import annotations

from typing import Any

from tian.claims import Check, Claim, Ge, Le
from tian_kvcache.claims.streaming import STAND_IN as STREAM
from tian_kvcache.claims.streaming import TEXT, WORLDS

PAPER = "2306.14048"
OF = "kvcache/balance-keeps-log-probs"  # whose seeds all use
H2O, WINDOW, HEAVY = ("kv=h2o",), ("kv=window",), ("kv.heavy=9999", "kv.recent=1")  # equal parts; local; heavy alone
STAND_IN = (
    f"{STREAM}; cloze items (64 tokens, 12 kept) in place of exams; with so few questions accuracy itself cannot be told "
    "apart, log-probabilities can, and part of what heavy tokens save here is the first token"
)


def _tiny(**more: Any) -> dict[str, Check]:
    """A check on the shipped model: `kvcache/accuracy`, 60 items, beside the first token with recent ones."""
    shared: dict[str, Any] = {"seeds": 4, "budget_s": 60.0, "stands_in": STAND_IN, "worlds": WORLDS, "seeds_of": OF}
    overrides = ("items=60", "compare=[{use: kvcache/streaming, sinks: 1, recent: 31}]", TEXT, *H2O)
    return {"tiny": Check(config="kvcache/accuracy", overrides=overrides, **{**shared, **more})}


CLAIMS = [
    Claim(
        id=OF,
        paper=PAPER,
        where="section 5.1, local tokens alone",
        promises=("HH4",),
        says=(
            "with 20 % of the prompt kept, half heavy and half recent, log-probabilities of choices stay within 0.25 nats a "
            "token of full attention; with recent tokens alone they do not"
        ),
        checks=_tiny(metric="log-prob change", holds=Le(0.25), control=WINDOW, seeds_of=""),
    ),
    Claim(
        id="kvcache/balance-needs-recent-tokens",
        paper=PAPER,
        where="table 9, heavy tokens alone",
        promises=("HH4",),
        says="the same; with heavy tokens alone they do not stay within 0.25 nats either",
        checks=_tiny(metric="log-prob change", holds=Le(0.25), control=HEAVY),
    ),
    Claim(
        id="kvcache/heavy-hitters-beyond-the-first-token",
        paper=PAPER,
        where="section 5, with the first token of arXiv 2309.17453 in its place",
        promises=("HH4",),
        says="heavy tokens keep log-probabilities closer to full attention than the first token and as many recent ones",
        expected="fails",
        because=(
            "the model that ships reads little but its first and its last tokens: keeping these changes log-probabilities "
            "by 0.13 nats a token, the balance of heavy and recent ones by 0.17"
        ),
        checks=_tiny(
            metric="log-prob change avoided",
            by={"over": "streaming"},
            holds=Ge(0.0),
            control=WINDOW,
        ),
    ),
]
