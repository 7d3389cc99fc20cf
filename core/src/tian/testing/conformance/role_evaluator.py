"""Checks of role evaluator, on data and a subject the author gives."""

from __future__ import annotations

import copy
import json
import math
import random
from typing import TYPE_CHECKING, Any, ClassVar

from hypothesis import strategies as st

from tian.errors import DataError
from tian.spec import Sample
from tian.spec.contract import check_rows
from tian.testing.conformance.base import NOTHING, Option, fail, prop, require, skip
from tian.testing.conformance.common import CommonChecks
from tian.testing.conformance.watch import frozen, global_randomness_untouched, same, unchanged
from tian.types import Measurement

if TYPE_CHECKING:
    from tian.spec import Evaluator

SEEDS = st.integers(0, 2**16)


class EvaluatorChecks(CommonChecks):
    """Contract of `tian.spec.Evaluator`."""

    role: ClassVar[str] = "evaluator"
    data: ClassVar[Any]
    subject: ClassVar[Any]
    bad_data: ClassVar[Any] = NOTHING

    # -- samples -------------------------------------------------------------------------------------------------------

    @prop(seed=SEEDS)
    def test_ev01_samples_have_unique_ids(self, option: Option, seed: int) -> None:
        """`samples` gives `Sample`s whose ids are non-empty strings, no two alike."""
        found = self.samples(self.make(option), seed)
        require(found, "the data gave no samples")
        require(all(type(s) is Sample for s in found), "not every sample is a tian.spec.Sample")
        require(all(type(s.id) is str and s.id for s in found), "an id is no string, or empty")
        require(len({s.id for s in found}) == len(found), "two samples have the same id")

    @prop(seed=SEEDS, other=SEEDS)
    def test_ev02_an_id_never_changes(self, option: Option, seed: int, other: int) -> None:
        """An id means the same sample for every seed, limit and instance."""
        first = {s.id: s.data for s in self.samples(self.make(option), seed)}
        later = {s.id: s.data for s in self.samples(self.make(option), other)}
        require(first.keys() == later.keys(), "the ids depend on the seed")
        require(all(same(first[i], later[i]) for i in first), "an id names another sample under another seed")
        some = self.samples(self.make(option), other, limit=3)
        require(all(s.id in first and same(first[s.id], s.data) for s in some), "an id depends on the limit")

    @prop(seed=SEEDS)
    def test_ev03_the_order_follows_from_the_seed_alone(self, option: Option, seed: int) -> None:
        """The same seed gives the same order, again and on another instance."""
        evaluator = self.make(option)
        first = [s.id for s in self.samples(evaluator, seed)]
        self.samples(evaluator, seed + 1)
        require([s.id for s in self.samples(evaluator, seed)] == first, "the same seed gave another order")
        require([s.id for s in self.samples(self.make(option), seed)] == first, "another instance has another order")

    @prop(seed=SEEDS, limit=st.integers(0, 30))
    def test_ev04_the_limit_is_kept(self, option: Option, seed: int, limit: int) -> None:
        """At most `limit` samples come, and all of them when there are no more."""
        evaluator = self.make(option)
        total, some = len(self.samples(evaluator, seed)), len(self.samples(evaluator, seed, limit=limit))
        require(some <= limit, f"{some} samples with a limit of {limit}")
        require(some == total or total > limit, f"{some} of {total} samples with a limit of {limit}")

    def test_ev05_data_that_cannot_be_read_is_refused(self, option: Option) -> None:
        """Data that cannot be read raises DataError."""
        if self.bad_data is NOTHING:
            skip("no bad_data= was given to the kit")
        try:
            list(self.make(option).samples(self.bad_data, limit=None, seed=0))
        except DataError:
            return
        fail(f"the data {self.bad_data!r} was accepted; DataError is due")

    # -- measure -------------------------------------------------------------------------------------------------------

    @prop(seed=SEEDS)
    def test_ev06_a_measurement_is_names_and_finite_numbers(self, option: Option, seed: int) -> None:
        """`measure` returns names with plain finite numbers, the same names for every sample."""
        evaluator = self.make(option)
        rows = check_rows(evaluator, self.rows(evaluator, seed))
        names = {tuple(sorted(row)) for row in rows}
        require(len(names) == 1, f"samples are measured by different names: {sorted(names)[:3]}")

    @prop(seed=SEEDS)
    def test_ev07_a_sample_is_measured_independently_of_the_others(self, option: Option, seed: int) -> None:
        """A sample's numbers are the same first, last, alone, and after the others were aggregated."""
        evaluator = self.make(option)
        found = self.samples(evaluator, seed)
        forward = {s.id: frozen(evaluator.measure(self.subject, s)) for s in found}
        evaluator.aggregate(list(forward.values()))
        backward = {s.id: evaluator.measure(self.subject, s) for s in reversed(found)}
        require(same(forward, backward), "a sample's numbers depend on what was measured before")
        alone = {s.id: self.make(option).measure(self.subject, s) for s in found}
        require(same(forward, alone), "a sample alone gets other numbers")

    @prop(seed=SEEDS)
    def test_ev08_samples_are_not_modified(self, option: Option, seed: int) -> None:
        """`samples` leaves the data, and `measure` its sample, as they were."""
        evaluator = self.make(option)
        data = self.own_data()
        with unchanged("samples", data=data):
            found = list(evaluator.samples(data, limit=None, seed=seed))
        for s in found:
            with unchanged("measure", sample=s.data):
                evaluator.measure(self.subject, s)

    # -- aggregate -----------------------------------------------------------------------------------------------------

    @prop(seed=SEEDS)
    def test_ev09_aggregate_gives_finite_measurements(self, option: Option, seed: int) -> None:
        """`aggregate` returns a list of at least one `Measurement` with a finite value."""
        found = self.aggregated(option, seed)
        require(type(found) is list and found, f"aggregate returned {type(found).__name__}, or nothing")
        require(all(type(m) is Measurement for m in found), "not every entry is a Measurement")
        require(all(math.isfinite(m.value) for m in found), "a value is NaN or infinite")

    @prop(seed=SEEDS)
    def test_ev10_an_interval_contains_its_value(self, option: Option, seed: int) -> None:
        """`ci95` is None or (low, high) with low <= value <= high."""
        for m in self.aggregated(option, seed):
            good = m.ci95 is None or m.ci95[0] <= m.value <= m.ci95[1]
            require(good, f"{m.name}: {m.value} outside {m.ci95}")

    @prop(seed=SEEDS)
    def test_ev11_n_counts_samples(self, option: Option, seed: int) -> None:
        """`n` is at least 1 and at most the number of rows."""
        evaluator = self.make(option)
        rows = self.rows(evaluator, seed)
        for m in evaluator.aggregate(rows):
            require(1 <= m.n <= len(rows), f"{m.name}: n = {m.n} from {len(rows)} rows")

    @prop(seed=SEEDS)
    def test_ev12_the_order_of_rows_makes_no_difference(self, option: Option, seed: int) -> None:
        """Values do not depend on the order of the rows (1e-9), intervals by a tenth of their width at most."""
        evaluator = self.make(option)
        rows = self.rows(evaluator, seed)
        shuffled = random.Random(seed).sample(rows, len(rows))
        one, two = evaluator.aggregate(rows), evaluator.aggregate(shuffled)
        require([(m.name, m.n) for m in one] == [(m.name, m.n) for m in two], "names or n depend on the order")
        for a, b in zip(one, two, strict=True):
            near = math.isclose(a.value, b.value, rel_tol=1e-9, abs_tol=1e-12)
            require(near, f"{a.name} is {a.value} in one order of rows and {b.value} in another")
            if a.ci95 and b.ci95:  # a bootstrap draws rows by their place
                width = 0.1 * (a.ci95[1] - a.ci95[0]) + 1e-9
                ends = [abs(x - y) for x, y in zip(a.ci95, b.ci95, strict=True)]
                require(max(ends) <= width, f"{a.name}: {a.ci95} in one order and {b.ci95} in another")

    @prop(seed=SEEDS)
    def test_ev13_aggregate_depends_on_the_rows_alone(self, option: Option, seed: int) -> None:
        """The same rows give the same measurements: again, after others, and on another instance."""
        evaluator = self.make(option)
        rows = self.rows(evaluator, seed)
        first = frozen(evaluator.aggregate(rows))
        evaluator.aggregate(rows[:2])
        require(same(evaluator.aggregate(rows), first), "the same rows gave other measurements")
        require(same(self.make(option).aggregate(rows), first), "another instance gives other measurements")

    def test_ev14_no_rows_give_a_list(self, option: Option) -> None:
        """No rows give a list, without an exception and without NaN."""
        found = self.make(option).aggregate([])
        require(isinstance(found, list), f"no rows give a {type(found).__name__}")
        require(not any(math.isnan(m.value) for m in found), "no rows give NaN")

    @prop(seed=SEEDS)
    def test_ev15_rows_survive_a_file(self, option: Option, seed: int) -> None:
        """Rows written as JSON lines and read back give the same measurements."""
        evaluator = self.make(option)
        rows = self.rows(evaluator, seed)
        try:
            back = [json.loads(json.dumps(dict(row))) for row in rows]
        except TypeError as error:
            fail(f"a row cannot be written as JSON: {error}")
        require(same(evaluator.aggregate(back), evaluator.aggregate(rows)), "rows from a file aggregate otherwise")

    @prop(seed=SEEDS)
    def test_ev16_rows_are_not_modified(self, option: Option, seed: int) -> None:
        """`aggregate` leaves the rows, and their order, as they were."""
        evaluator = self.make(option)
        rows = [dict(r) for r in self.rows(evaluator, seed)]
        with unchanged("aggregate", rows=rows):
            evaluator.aggregate(rows)

    @prop(seed=SEEDS)
    def test_ev17_no_global_randomness_is_consumed(self, option: Option, seed: int) -> None:
        """`samples`, `measure` and `aggregate` leave the global random states alone."""
        evaluator = self.make(option)
        with global_randomness_untouched("the evaluator"):
            evaluator.aggregate(self.rows(evaluator, seed))

    # -- help ----------------------------------------------------------------------------------------------------------

    def samples(self, evaluator: Evaluator, seed: int, limit: int | None = None) -> list[Sample]:
        """The samples as a list."""
        return list(evaluator.samples(self.own_data(), limit=limit, seed=seed))

    def own_data(self) -> Any:
        """A copy of the data, so that what one check does to them does not reach the next."""
        try:
            return copy.deepcopy(self.data)
        except TypeError:  # a file or a connection
            return self.data

    def rows(self, evaluator: Evaluator, seed: int) -> list[Any]:
        """One row a sample."""
        return [evaluator.measure(self.subject, s) for s in self.samples(evaluator, seed)]

    def aggregated(self, option: Option, seed: int) -> list[Measurement]:
        """The measurements over all rows of a fresh evaluator."""
        evaluator: Evaluator = self.make(option)
        return evaluator.aggregate(self.rows(evaluator, seed))
