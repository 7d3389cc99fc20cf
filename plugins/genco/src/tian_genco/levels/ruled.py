"""Levels with further rules: counts, single tiles, distances, symmetry, connected floor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tian_genco.levels.rule_kinds import Connected, Count, Distance, Rule, Symmetric, Tile
from tian_genco.levels.ruled_checker import rule_offence
from tian_genco.levels.rules import LevelRules
from tian_genco.levels.tiles import DOOR, KEY, NAMES, PLAYER, WALL
from tian_genco.problem import Floats, Milp, Problem, Row


@dataclass(frozen=True)
class RuledLevel(Problem):
    """A playable level that obeys further rules; x as in `LevelRules`."""

    kind: ClassVar[str] = "level-ruled"
    base: LevelRules
    rules: tuple[Rule, ...]

    @property
    def n(self) -> int:
        """Tiles times cells."""
        return self.base.n

    def milp(self) -> Milp:
        """The program of the base, further rows named by the rules' text, and continuous columns for ways.

        No cuts are needed: a way of at most d steps is a unit flow of total at most d, one of at least d steps is a
        potential that rises by at most 1 a step, from 0 at one end to d at the other; both exist for integral x just
        when the way does.
        """
        plain = self.base.milp()
        program = _Program(self.base, len(plain.col_lower))
        for rule in self.rules:
            program.add(rule)
        lower = np.concatenate([plain.col_lower, np.zeros(len(program.upper))])
        upper = np.concatenate([plain.col_upper, program.upper])
        integer = np.concatenate([plain.integer, np.zeros(len(program.upper), bool)])
        return Milp.of([*plain.rows(), *program.rows], n=self.n, lower=lower, upper=upper, integer=integer)

    def broken(self, x: Floats) -> str:
        """The first rule that `x` breaks, those of the base first."""
        found = self.base.broken(x)
        if found:
            return found
        grid = x.reshape(len(NAMES), self.base.height, self.base.width).argmax(axis=0).tolist()
        return next(filter(None, (rule_offence(rule, grid) for rule in self.rules)), "")


class _Program:
    """Rows and further columns, from 0 to `upper`, of rules."""

    def __init__(self, base: LevelRules, columns: int) -> None:
        self.base, self.columns = base, columns
        self.rows: list[Row] = []
        self.upper: list[float] = []

    def add(self, rule: Rule) -> None:
        """Append what the rule needs."""
        match rule:
            case Count():
                self.count(rule)
            case Tile():
                self.tile(rule)
            case Distance(path=True):
                self.path(rule)
            case Distance():
                self.distance(rule)
            case Symmetric():
                self.symmetric(rule)
            case Connected():
                self.connected(rule)

    def count(self, rule: Count) -> None:
        terms = {t * self.base.cells + i: c for t, c in rule.terms for i in range(self.base.cells)}
        self.row(terms, rule.text, lower=rule.lower, upper=rule.upper)

    def tile(self, rule: Tile) -> None:
        terms = dict.fromkeys((self.base.column(t, rule.row, rule.column) for t in rule.tiles), 1.0)
        held = float(rule.equal)
        self.row(terms, rule.text, lower=held, upper=held)

    def distance(self, rule: Distance) -> None:
        width, cells = self.base.width, self.base.cells
        for i in self.base.interior():
            far = {j: abs(i // width - j // width) + abs(i % width - j % width) for j in self.base.interior()}
            wrong = [rule.second * cells + j for j, d in far.items() if not rule.lower <= d <= rule.upper]
            terms = {rule.first * cells + i: 1.0} | dict.fromkeys(wrong, 1.0)
            self.row(terms, f"{rule.text}, {NAMES[rule.first]} at {self.at(i)}", upper=1)

    def path(self, rule: Distance) -> None:
        if rule.upper < np.inf:
            self.short_path(rule)
        if rule.lower > -np.inf:
            self.long_path(rule)

    def short_path(self, rule: Distance) -> None:
        count = len(self.base.arcs())
        if rule.first == PLAYER:  # the flows to key and door are there already, in this order
            flow = self.base.n + (0 if rule.second == KEY else count)
        else:
            flow = self.new(count, 1.0)
            self.rows += self.base.flow(rule.first, rule.second, flow)
        self.row(dict.fromkeys(range(flow, flow + count), 1.0), f"{rule.text}, at most", upper=rule.upper)

    def long_path(self, rule: Distance) -> None:
        cells, d, inside = self.base.cells, float(rule.lower), self.base.interior()
        start = self.new(len(inside), d)
        height = {i: start + k for k, i in enumerate(inside)}
        for i in inside:
            self.row({height[i]: 1.0, rule.first * cells + i: d}, f"{rule.text}, start {self.at(i)}", upper=d)
            self.row({height[i]: 1.0, rule.second * cells + i: -d}, f"{rule.text}, end {self.at(i)}", lower=0)
        for i, j in self.base.arcs():
            shut = dict.fromkeys((WALL * cells + i, WALL * cells + j, DOOR * cells + i), -d)
            self.row({height[j]: 1.0, height[i]: -1.0} | shut, f"{rule.text}, {self.at(i)}-{self.at(j)}", upper=1)

    def symmetric(self, rule: Symmetric) -> None:
        height, width = self.base.height, self.base.width
        image: dict[str, Callable[[int, int], tuple[int, int]]] = {
            "lr": lambda r, c: (r, width - 1 - c),
            "ud": lambda r, c: (height - 1 - r, c),
            "rot": lambda r, c: (height - 1 - r, width - 1 - c),
        }
        for i in self.base.interior():
            r, c = image[rule.how](i // width, i % width)
            j = r * width + c
            if i < j:
                terms = {WALL * self.base.cells + i: 1.0, WALL * self.base.cells + j: -1.0}
                self.row(terms, f"{rule.text}, {self.at(i)}", lower=0, upper=0)

    def connected(self, rule: Connected) -> None:
        """The player sends one unit to each open cell, itself included."""
        cells, inside, arcs = self.base.cells, self.base.interior(), self.base.arcs()
        most = float(len(inside))
        flow, supply = self.new(len(arcs), most), self.new(len(inside), most)
        into: dict[int, list[int]] = {i: [] for i in inside}
        off: dict[int, list[int]] = {i: [] for i in inside}
        for a, (i, j) in enumerate(arcs, flow):
            off[i].append(a)
            into[j].append(a)
        for s, i in enumerate(inside, supply):
            wall, inflow = WALL * cells + i, dict.fromkeys(into[i], 1.0)
            fed = inflow | dict.fromkeys(off[i], -1.0) | {s: 1.0, wall: 1.0}
            self.row(fed, f"{rule.text}, {self.at(i)}", lower=1, upper=1)
            self.row(inflow | {wall: most}, f"{rule.text}, wall {self.at(i)}", upper=most)
            self.row({s: 1.0, PLAYER * cells + i: -most}, f"{rule.text}, player {self.at(i)}", upper=0)

    def row(self, terms: dict[int, float], name: str, *, lower: float = -np.inf, upper: float = np.inf) -> None:
        self.rows.append(Row.of(terms, lower=lower, upper=upper, name=name))

    def new(self, count: int, upper: float) -> int:
        """The first of further columns."""
        first = self.columns + len(self.upper)
        self.upper += [upper] * count
        return first

    def at(self, cell: int) -> str:
        return f"({cell // self.base.width},{cell % self.base.width})"
