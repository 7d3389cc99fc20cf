"""What is claimed. A check is a run, a bar, and a control that changes one thing and must miss the bar."""

from __future__ import annotations

from tian.claims import Check, Claim, @@Bar@@

CLAIMS = [
    Claim(
        id="@@name@@/@@claim@@",
        says="@@says@@",
        where="ours",
        checks={
            "tiny": Check(
                config="@@name@@/demo",
                metric="@@metric@@",
                holds=@@Bar@@(@@bar@@),
                control=("@@control@@",),
                seeds=3,
                budget_s=300,
            ),
        },
    ),
]
