"""Claims about regret: attention a policy retains, against the exact offline optimum of the same trace."""

from __future__ import annotations

from typing import Any

from tian.claims import Check, Claim, Ge, Le
from tian_kvcache.claims.streaming import STAND_IN, TEXT, WORLDS

OF = "kvcache/greedy-retains-most"  # whose seeds both checks use
H2O, DECAY, WINDOW = "kv=h2o", "kv=h2o-decay", "kv=window"


def _tiny(*policy: str, **more: Any) -> dict[str, Check]:
    """A check on traces of the shipped model: `kvcache/regret`, all heads of 4 streams of 128 tokens."""
    shared: dict[str, Any] = {"seeds": 4, "budget_s": 28.0, "stands_in": STAND_IN, "worlds": WORLDS}
    return {
        "tiny": Check(
            config="kvcache/regret", overrides=("compare=[]", "curve=[]", TEXT, *policy), **{**shared, **more}
        )
    }


CLAIMS = [
    Claim(
        id=OF,
        paper="2306.14048",
        where="theorem 4.3",
        promises=("HH5",),
        says=(
            "with an eighth of the tokens kept, the greedy rule retains in its worst head at least 1 - 1/e of what the best "
            "eviction of the whole text does; "
            "retained attention is a sum over tokens (modular), for which each single choice is optimal already, so what "
            "this tests is the error carried from step to step, which the theorem leaves to its constants"
        ),
        # 16 of 128 tokens; with 32 a window comes to 0.61, too close to the bar for a control.
        checks=_tiny(
            H2O,
            "budget=0.125",
            metric="retained of the optimum, worst head",
            holds=Ge(0.632),
            control=(WINDOW,),
        ),
    ),
    Claim(
        id="kvcache/fading-scores-lower-regret",
        where="ours",
        promises=("O1",),
        says="with scores that fade, H2O loses at most 6.5 % of the attention the best eviction retains",
        checks=_tiny(
            DECAY, "budget=0.25", metric="regret", holds=Le(0.065), control=(H2O,), seeds=3, seeds_of=OF, budget_s=21.0
        ),
    ),
]
