"""A small language of rules for levels, read when levels are sampled.

A rule is one line:

    count(wall) <= 60                     tiles of a kind, the border included; sums on both sides: 2*count(key) + 1
    tile(3,4) == key, tile(2,2) != wall   row and column, counted from 0
    dist(player,key) >= 6                 rows plus columns between two of player, key, door
    dist_path(player,key) <= 10           steps of the shortest way past neither walls nor the door; also >= and ==
    symmetric: lr                         walls mirrored left to right; ud: top to bottom; rot: turned by 180 degrees
    connected                             every cell that is no wall can be reached
    hamming(previous) >= 12               cells in which a level differs from every earlier one of its set

Tiles are wall, empty, key, door, enemy1, enemy2, enemy3, player; enemy stands for the three kinds together.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import NamedTuple, NoReturn

from tian.errors import InvalidInput
from tian_genco.levels.rule_kinds import Connected, Count, Distance, Rule, Symmetric, Tile
from tian_genco.levels.ruled import RuledLevel
from tian_genco.levels.rules import LevelRules
from tian_genco.levels.tiles import DOOR, ENEMIES, KEY, NAMES, PLAYER

_GROUPS = {**{name: (t,) for t, name in enumerate(NAMES)}, "enemy": ENEMIES}
_ENDS = {NAMES[t]: t for t in (PLAYER, KEY, DOOR)}
_FORMS = ("count", "tile", "dist", "dist_path", "symmetric", "connected", "hamming")
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?)|(?P<name>[A-Za-z_]\w*)|(?P<sign>[<>=!]=|[-+*(),:<>=])|(?P<end>$))"
)


@dataclass(frozen=True)
class Request:
    """What a list of rules asks for.

    Attributes:
        level: the rules of one level.
        hamming: cells in which levels of one set must differ at least; 0 when nothing is asked.
    """

    level: RuledLevel
    hamming: int


def parse_rules(lines: Iterable[str], base: LevelRules) -> Request:
    """Read rules, see the head of this module.

    Args:
        lines: one rule each.
        base: size and rules of every level.

    Raises:
        InvalidInput: a line that is no rule, with the position in it, counted from 1, and the nearest known name.
    """
    rules: list[Rule] = []
    hamming = 0
    for line in lines:
        found = _Line(line, base).rule()
        if isinstance(found, int):
            hamming = max(hamming, found)
        else:
            rules.append(found)
    return Request(RuledLevel(base, tuple(rules)), hamming)


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


class _Line:
    """Reads one rule from left to right."""

    def __init__(self, text: str, base: LevelRules) -> None:
        self.text, self.base = text, base
        self.tokens: list[_Token] = []
        at = 0
        while not self.tokens or self.tokens[-1].kind != "end":
            match = _TOKEN.match(text, at)
            if match is None or match.lastgroup is None:
                at += len(text[at:]) - len(text[at:].lstrip())
                self.fail(f"unexpected {text[at]!r}", at)
            self.tokens.append(_Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)))
            at = match.end()
        self.next = 0

    def rule(self) -> Rule | int:
        """The rule, or the number of cells of a `hamming` rule."""
        first = self.tokens[0]
        readers = {
            "tile": self.tile,
            "dist": self.distance,
            "dist_path": self.distance,
            "symmetric": self.symmetric,
            "connected": self.connected,
            "hamming": self.hamming,
        }
        if first.kind == "name" and first.text not in _FORMS:
            self.unknown("rule", first, _FORMS)
        found = readers.get(first.text, self.count)()
        if self.peek().kind != "end":
            self.fail(f"unexpected {self.peek().text!r} after the rule", self.peek().at)
        return found

    def count(self) -> Rule:
        left = self.sum()
        sign = self.comparison(("<=", ">=", "=="))
        right = self.sum()
        total = {t: left.get(t, 0.0) - right.get(t, 0.0) for t in range(len(NAMES))}
        terms = tuple((t, c) for t, c in total.items() if c)
        if not terms:
            self.fail("no tile is counted", 0)
        return Count(self.text, terms, *_limits(sign, right.get(None, 0.0) - left.get(None, 0.0)))

    def sum(self) -> dict[int | None, float]:
        """Coefficients by tile; the constant under None."""
        total: dict[int | None, float] = {}
        sign = 1.0
        if self.peek().text in ("+", "-"):
            sign = -1.0 if self.take().text == "-" else 1.0
        while True:
            factor = sign
            tiles: tuple[int, ...] = ()
            if self.peek().kind == "number":
                factor *= float(self.take().text)
                if self.peek().text == "*":
                    self.take()
                    tiles = self.counted()
            else:
                tiles = self.counted()
                if self.peek().text == "*":
                    self.take()
                    factor *= self.number()
            for t in tiles or (None,):
                total[t] = total.get(t, 0.0) + factor
            if self.peek().text not in ("+", "-"):
                return total
            sign = -1.0 if self.take().text == "-" else 1.0

    def counted(self) -> tuple[int, ...]:
        token = self.take()
        if token.text != "count":
            what = f", got {token.text!r}" if token.text else " here"
            self.fail(f"a number or count(tile) is due{what}", token.at)
        self.take("(")
        tiles = self.tiles()
        self.take(")")
        return tiles

    def tile(self) -> Rule:
        self.take()
        self.take("(")
        row = self.index(self.base.height, "row")
        self.take(",")
        column = self.index(self.base.width, "column")
        self.take(")")
        sign = self.comparison(("==", "!="))
        return Tile(self.text, row, column, self.tiles(), equal=sign == "==")

    def distance(self) -> Rule:
        path = self.take().text == "dist_path"
        self.take("(")
        first = self.known("tile that occurs once", tuple(_ENDS))
        self.take(",")
        at = self.peek().at
        second = self.known("tile that occurs once", tuple(_ENDS))
        if first == second:
            self.fail("the two tiles are the same", at)
        self.take(")")
        sign = self.comparison(("<=", ">=", "=="))
        ends = sorted((_ENDS[first], _ENDS[second]), key=lambda t: (t == DOOR, t != PLAYER))
        return Distance(self.text, ends[0], ends[1], *_limits(sign, self.whole()), path=path)

    def symmetric(self) -> Rule:
        self.take()
        self.take(":")
        return Symmetric(self.text, self.known("symmetry", ("lr", "ud", "rot")))

    def connected(self) -> Rule:
        self.take()
        return Connected(self.text)

    def hamming(self) -> int:
        self.take()
        self.take("(")
        self.known("set of levels", ("previous",))
        self.take(")")
        self.comparison((">=",))
        return self.whole()

    # -- tokens --------------------------------------------------------------------------------------------------------

    def peek(self) -> _Token:
        return self.tokens[self.next]

    def take(self, text: str = "") -> _Token:
        token = self.peek()
        if text and token.text != text:
            self.fail(f"{text!r} is due, got {token.text!r}" if token.text else f"{text!r} is missing", token.at)
        self.next = min(self.next + 1, len(self.tokens) - 1)
        return token

    def known(self, what: str, names: Sequence[str]) -> str:
        token = self.take()
        if token.text not in names:
            self.unknown(what, token, names)
        return token.text

    def tiles(self) -> tuple[int, ...]:
        return _GROUPS[self.known("tile", tuple(_GROUPS))]

    def comparison(self, signs: tuple[str, ...]) -> str:
        token = self.take()
        if token.text not in signs:
            self.fail(f"{' or '.join(signs)} is due, got {token.text!r}", token.at)
        return token.text

    def number(self) -> float:
        token = self.take()
        if token.kind != "number":
            self.fail(f"a number is due, got {token.text!r}", token.at)
        return float(token.text)

    def whole(self) -> int:
        at, value = self.peek().at, self.number()
        if value != int(value):
            self.fail(f"a whole number is due, got {value:g}", at)
        return int(value)

    def index(self, size: int, what: str) -> int:
        at, value = self.peek().at, self.whole()
        if value >= size:
            self.fail(f"{what} {value} is outside the level, which has {size}", at)
        return value

    def unknown(self, what: str, token: _Token, names: Sequence[str]) -> NoReturn:
        near = difflib.get_close_matches(token.text, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(names)}"
        self.fail(f"unknown {what} {token.text!r}" if token.text else f"a {what} is missing", token.at, hint)

    def fail(self, what: str, at: int, hint: str = "") -> NoReturn:
        hint = hint or "for instance count(wall) <= 60, tile(3,4) == key, dist(player,key) >= 6, symmetric: lr"
        raise InvalidInput(f"rule {self.text!r}, position {at + 1}: {what}", hint=hint)


def _limits(sign: str, bound: float) -> tuple[float, float]:
    return (-inf if sign == "<=" else bound), (inf if sign == ">=" else bound)
