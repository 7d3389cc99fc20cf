"""The papers' promises and who answers each: a claim, a reason why it cannot be tested, or nobody yet."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tian.claims.model import Claim


@dataclass(frozen=True)
class Promise:
    """One statement of a paper's abstract, in our words.

    Attributes:
        id: e.g. `SL1`.
        paper: short name.
        arxiv: id, empty for goals of our own.
        plugin: who is to answer it.
        says: the statement.
        open: True while nobody answers it.
        not_testable: why it cannot be tested here, empty otherwise.
    """

    id: str
    paper: str
    arxiv: str
    plugin: str
    says: str
    open: bool
    not_testable: str


def promises() -> list[Promise]:
    """The list, in its order."""
    data = tomllib.loads(files("tian.claims").joinpath("promises.toml").read_text(encoding="utf-8"))
    return [
        Promise(
            row["id"],
            paper["name"],
            paper.get("arxiv", ""),
            row.get("plugin", paper.get("plugin", "")),
            row["says"],
            bool(row.get("open", False)),
            str(row.get("not_testable", "")),
        )
        for paper in data["paper"]
        for row in paper["promise"]
    ]


def unanswered(found: Iterable[Promise], claims: Iterable[Claim]) -> Mapping[str, str]:
    """What is wrong with the mapping of promises to claims: id -> problem; empty when all is well.

    Every promise is answered by a claim, or gives a reason why it is not testable, or is open: exactly one of them.
    """
    claimed: dict[str, list[str]] = {}
    for claim in claims:
        for name in claim.promises:
            claimed.setdefault(name, []).append(claim.id)
    out: dict[str, str] = {}
    known = list(found)
    for p in known:
        answers = [bool(claimed.get(p.id)), bool(p.not_testable), p.open]
        if sum(answers) != 1:
            parts = [n for n, on in zip(("claimed", "not testable", "open"), answers, strict=True) if on]
            out[p.id] = f"is {' and '.join(parts)}" if parts else "has no claim, is not open and gives no reason"
    for name, by in claimed.items():
        if name not in {p.id for p in known}:
            out[name] = f"is claimed by {', '.join(by)} but not on the list"
    return out
