"""Diverse designs against enumeration."""

import dataclasses
import functools
import itertools
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tian.errors import InvalidInput
from tian_genco.problem import Milp, Row
from tian_genco.solving.diverse import Extended, diverse, hamming_row
from tian_genco.solving.highs import HighsSolver

C, T = 4, 3
CELLS = np.arange(C * T).reshape(T, C).T  # tile-major, as levels are


def toy():
    """Four cells of three tiles, one tile each; tile 0 at least once, tile 2 at most twice."""
    rows = [Row(cell, np.ones(T), 1.0, 1.0, f"cell {i}") for i, cell in enumerate(CELLS)]
    rows.append(Row(CELLS[:, 0], np.ones(C), 1.0, np.inf, "some 0"))
    rows.append(Row(CELLS[:, 2], np.ones(C), -np.inf, 2.0, "few 2"))
    n = C * T
    return Milp.of(rows, n=n, lower=np.zeros(n), upper=np.ones(n), integer=np.ones(n, bool))


@functools.cache
def designs():
    tiles = [t for t in itertools.product(range(T), repeat=C) if 0 in t and t.count(2) <= 2]
    return np.array([[float(t[i % C] == i // C) for i in range(C * T)] for t in tiles])


def distance(a, b):
    return int((a[CELLS].argmax(1) != b[CELLS].argmax(1)).sum())


def test_all_designs_are_found_once_and_then_there_are_no_more():
    everything, cost = designs(), np.random.default_rng(0).normal(size=C * T)
    got = diverse(HighsSolver(), toy(), cost, k=100, min_hamming=1, time_limit_s=60, cells=CELLS)
    assert got.reason == "exhausted"
    assert len(got.solutions) == len(everything) == 61
    assert {s.x.tobytes() for s in got.solutions} == {x.tobytes() for x in everything}
    np.testing.assert_allclose([s.objective for s in got.solutions], np.sort(everything @ cost), atol=1e-9)


@pytest.mark.parametrize("h", [2, 3, 4])
def test_designs_are_h_cells_apart_and_the_set_cannot_be_extended(h):
    cost = np.random.default_rng(h).normal(size=C * T)
    got = diverse(HighsSolver(), toy(), cost, k=100, min_hamming=h, time_limit_s=60, cells=CELLS)
    assert got.reason == "exhausted"
    left, want = designs(), []
    while len(left):  # the same greedy choice, by enumeration
        want.append(left[(left @ cost).argmin()])
        left = np.array([x for x in left if distance(x, want[-1]) >= h])
    assert [s.x.tolist() for s in got.solutions] == [x.tolist() for x in want]


def test_each_design_has_its_own_cost_and_k_is_enough():
    costs = np.random.default_rng(9).normal(size=(5, C * T))
    got = diverse(HighsSolver(), toy(), costs, k=5, min_hamming=2, time_limit_s=60, cells=CELLS)
    assert (got.reason, len(got.solutions)) == ("complete", 5)
    for i, s in enumerate(got.solutions):
        allowed = [x for x in designs() if all(distance(x, p.x) >= 2 for p in got.solutions[:i])]
        assert s.objective == pytest.approx(min(costs[i] @ x for x in allowed), abs=1e-9)


def test_the_clock_ends_it():
    got = diverse(HighsSolver(), toy(), np.zeros(C * T), k=3, min_hamming=1, time_limit_s=0.0, cells=CELLS)
    assert (got.solutions, got.reason) == ((), "timeout")
    begin = time.perf_counter()
    got = diverse(HighsSolver(), toy(), np.zeros(C * T), k=10**6, min_hamming=1, time_limit_s=0.1, cells=CELLS)
    assert time.perf_counter() - begin < 5
    assert got.reason in ("timeout", "exhausted")


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=9), st.integers(1, 9))
def test_the_row_counts_the_entries_that_differ(pairs, h):
    a, b = np.array(pairs, float).T
    h = min(h, len(a))
    row = hamming_row(a, None, h)
    assert (row.lower - 1e-9 <= row.value @ b[row.index] <= row.upper) == ((a != b).sum() >= h)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, C))
def test_the_row_counts_the_cells_that_differ(i, j, h):
    a, b = designs()[[i, j]]
    row = hamming_row(a, CELLS, h)
    assert (row.value @ b[row.index] <= row.upper + 1e-9) == (distance(a, b) >= h)


def test_what_makes_no_sense_is_refused():
    x = designs()[0]
    for call, why in (
        (lambda: hamming_row(x * 0.5, CELLS, 1), "zeros and ones"),
        (lambda: hamming_row(x * 0.0, CELLS, 1), "cell 0 holds 0 tiles"),
        (lambda: hamming_row(x, CELLS, 5), "1 to 4"),
        (lambda: hamming_row(x, None, 0), "1 to 12"),
        (lambda: diverse(HighsSolver(), toy(), np.zeros(3), k=1, min_hamming=1, time_limit_s=1), "12"),
        (lambda: diverse(HighsSolver(), toy(), np.zeros((2, 12)), k=3, min_hamming=1, time_limit_s=1), "3 designs"),
    ):
        with pytest.raises(InvalidInput, match=why):
            call()


def test_an_extended_problem_obeys_both_and_says_what_is_broken():
    x = designs()[0]
    extended = Extended.of(toy(), [hamming_row(x, CELLS, 3)])
    assert extended.broken(x).startswith("at least 3 places away")
    assert extended.broken(x * 0).startswith("cell 0")
    got = HighsSolver().solve(extended.instance(-x), time_limit_s=9)
    assert distance(got.x, x) == 3
    assert extended.broken(got.x) == ""
    assert dataclasses.replace(extended).n == 12
