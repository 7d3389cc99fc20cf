"""Seeds, intervals, verdicts and the words of a claim: pure functions."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tian.claims import Between, Check, Claim, Ge, Le
from tian.claims.stats import DEVELOPMENT, interval, meets, seeds_of, verdict
from tian.errors import InvalidInput

numbers = st.floats(-1e6, 1e6)
ids = st.from_regex(r"[a-z]{1,8}/[a-z-]{1,12}", fullmatch=True)


@given(claim=ids, n=st.integers(1, 12))
def test_seeds_follow_from_the_id_and_are_never_those_of_development(claim, n):
    seeds = seeds_of(claim, n)
    assert len(set(seeds)) == n
    assert all(DEVELOPMENT <= s < 2**31 for s in seeds)
    assert seeds_of(claim, n + 1)[:n] == seeds
    assert seeds_of(f"{claim}x", n) != seeds


def test_seeds_are_the_same_on_every_machine():
    assert seeds_of("kvcache/bounded-memory", 2) == [234852874, 578691648]


@given(values=st.lists(numbers, min_size=2, max_size=40))
def test_the_interval_is_centred_on_the_mean_and_widens_with_the_spread(values):
    mean, low, high = interval(values)
    assert mean == pytest.approx(statistics.fmean(values), abs=1e-6)
    assert low <= mean <= high
    assert (high - mean) == pytest.approx(mean - low, abs=1e-6)
    wider = interval([mean + 2 * (v - mean) for v in values])
    assert wider[2] - wider[1] == pytest.approx(2 * (high - low), rel=1e-6, abs=1e-6)


def test_the_interval_is_students():
    """Against a textbook value: n = 4, mean 2.5, s = 1.291, t = 3.182."""
    assert interval([1.0, 2.0, 3.0, 4.0]) == pytest.approx((2.5, 0.446, 4.554), abs=1e-3)
    assert interval([3.0]) == (3.0, 3.0, 3.0)


@given(values=st.lists(numbers, min_size=1, max_size=6), bound=numbers)
def test_a_bar_and_its_opposite_never_both_hold(values, bound):
    below, above = meets(Le(bound), values), meets(Ge(math.nextafter(bound, math.inf)), values)
    assert not (below and above)
    assert {below, above} in ({True, False}, {None})


YES, NO, UNSURE = [1.0, 1.0], [3.0, 3.0], [1.0, 3.0]


@pytest.mark.parametrize(
    ("claim", "control", "expected"),
    [
        (YES, NO, "holds"),
        (YES, YES, "vacuous"),
        (YES, UNSURE, "inconclusive"),
        (NO, NO, "fails"),
        (NO, YES, "fails"),
        (NO, UNSURE, "fails"),
        (UNSURE, NO, "inconclusive"),
        (UNSURE, YES, "inconclusive"),
        (YES, [3.0, math.nan], "error"),
        ([math.inf], NO, "error"),
    ],
)
def test_the_verdict(claim, control, expected):
    got, reason = verdict(Le(2.0), claim, control)
    assert got == expected
    assert bool(reason) == (expected != "holds")


def test_bars_read_like_bars():
    assert [str(b) for b in (Le(1.05), Ge(0.3), Between(1, 2))] == ["<= 1.05", ">= 0.3", "1 to 2"]
    assert Between(1.0, 2.0) != Le(2.0)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"control": ()}, "has no control"),
        ({"control": "kv=window"}, "tuples"),
        ({"seeds": 0}, "seeds >= 1"),
        ({"budget_s": 0}, "budget_s > 0"),
        ({"holds": Between(2, 1)}, "no number is within 2 to 1"),
    ],
)
def test_a_check_that_proves_nothing_is_refused(wrong, word):
    with pytest.raises(InvalidInput, match=word):
        Check(**{"config": "a/b", "metric": "m", "holds": Le(1), "control": ("x=1",), **wrong})


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"id": "nothing"}, "plugin/short-name"),
        ({"checks": {}}, "scales"),
        ({"checks": {"huge": None}}, "scales"),
        ({"expected": "maybe"}, "holds, fails, inconclusive"),
        ({"expected": "fails"}, "because="),
    ],
)
def test_a_claim_that_cannot_be_judged_is_refused(wrong, word):
    check = Check("a/b", "m", Le(1), ("x=1",))
    with pytest.raises(InvalidInput) as error:
        Claim(**{"id": "a/b", "says": "s", "where": "ours", "checks": {"tiny": check}, **wrong})
    assert word in f"{error.value} {error.value.hint}"
