"""Claims of H2O, arXiv 2306.14048, section 3: heavy hitters. The control names other tokens heavy, in the same texts."""

from __future__ import annotations

from typing import Any

from tian.claims import Check, Claim, Ge
from tian_kvcache.claims.streaming import STAND_IN, TEXT, WORLDS

PAPER = "2306.14048"
OF = "kvcache/heavy-hitters-carry-attention"  # whose seeds all use
UNIFORM, RANDOM = ("rank_by=uniform",), ("rank_by=random",)  # by age alone; by nothing


def _tiny(**more: Any) -> dict[str, Check]:
    """A check on the shipped model: `kvcache/heavy-hitters`, the heaviest tenth of the tokens of 16 streams."""
    shared: dict[str, Any] = {"seeds": 4, "budget_s": 56.0, "stands_in": STAND_IN, "worlds": WORLDS, "seeds_of": OF}
    return {"tiny": Check(config="kvcache/heavy-hitters", overrides=(TEXT,), **{**shared, **more})}


CLAIMS = [
    Claim(
        id=OF,
        paper=PAPER,
        where="section 3.2 and figure 2",
        promises=("HH1",),
        says="a tenth of the tokens receives at least 35 % of the accumulated attention, more than its age explains",
        checks=_tiny(metric="share of attention on the heavy tokens", holds=Ge(0.35), control=UNIFORM, seeds_of=""),
    ),
    Claim(
        id="kvcache/heavy-hitters-co-occur",
        paper=PAPER,
        where="section 3.2 and figure 2",
        promises=("HH2",),
        says="kinds of tokens that stand beside many others receive more attention than their age and number explain",
        expected="fails",
        because=(
            "here the attention a token attracts, over what its age gives, does not go with co-occurrence (a correlation "
            "within what chance gives); the sum over all its occurrences does, since both count occurrences"
        ),
        checks=_tiny(
            metric="correlation with co-occurrence",
            by={"attention": "per occurrence, over uniform"},
            holds=Ge(0.2),
            control=RANDOM,
        ),
    ),
    Claim(
        id="kvcache/masking-heavy-hitters-hurts",
        paper=PAPER,
        where="section 3.2",
        promises=("HH3",),
        says="hiding the heaviest tenth of the tokens costs at least 5 % more perplexity than hiding as many others",
        checks=_tiny(metric="perplexity, heavy masked / random masked", holds=Ge(1.05), control=RANDOM),
    ),
]
