"""Mutants of FakeEvaluator."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from tian.spec import Sample
from tian.testing import conformance
from tian.testing.fakes import FakeEvaluator
from tian.testing.mutants import Mutant, mutant
from tian.testing.mutants.common import common_mutants, count, entropy, first
from tian.types import Measurement

FAKE = E = FakeEvaluator


def subject(x: list[int]) -> bool:
    """What is measured: divisible by three."""
    return x[0] % 3 == 0


def conform(target: Any) -> type:
    """Its conformance class."""
    return conformance.evaluator(
        target,
        options=[{"z": 2.0}],
        bad_options=[{"z": 0.0}],
        data=[[i] for i in range(11)],
        subject=subject,
        bad_data=None,
    )


def sampled(name: str, change: Any) -> Mutant:
    """One whose samples are `change(samples, seed)`."""
    return mutant(
        name,
        E,
        samples=lambda s, data, *, limit, seed: change(list(E.samples(s, data, limit=limit, seed=seed)), seed),
    )


def measured(name: str, change: Any) -> Mutant:
    """One whose rows are `change(row, sample)`."""
    return mutant(name, E, measure=lambda s, subject, sample: change(dict(E.measure(s, subject, sample)), sample))


def aggregated(name: str, change: Any) -> Mutant:
    """One whose measurements have other fields: `change(m, rows) -> fields`."""
    return mutant(
        name,
        E,
        aggregate=lambda s, rows: [dataclasses.replace(m, **change(m, rows)) for m in E.aggregate(s, rows)],
    )


def _running(self: Any, subject: Any, sample: Any) -> Any:
    row = dict(E.measure(self, subject, sample))
    last = self.__dict__.get("_last", 0.0)
    self.__dict__["_last"] = row["accepted"]
    return {"accepted": (row["accepted"] + last) / 2}


def _all_rows(self: Any, rows: Any) -> Any:
    kept = self.__dict__.setdefault("_rows", [])
    kept.extend(rows)
    return E.aggregate(self, kept)


def _consume(self: Any, rows: Any) -> Any:
    found = E.aggregate(self, rows)
    while isinstance(rows, list) and rows:
        rows.pop()
    return found


def _smooth(rows: Any) -> float:
    value = 0.0
    for row in rows:
        value = 0.5 * value + 0.5 * row["accepted"]
    return value


def _crash(self: Any, rows: Any) -> Any:
    mean = sum(r["accepted"] for r in rows) / len(rows)
    return [dataclasses.replace(m, value=mean) for m in E.aggregate(self, rows)]


def _unseeded(self: Any, data: Any, *, limit: Any, seed: int) -> Any:
    return E.samples(self, data, limit=limit, seed=entropy())


def _crude(self: Any, data: Any, *, limit: Any, seed: int) -> Any:
    order = np.random.default_rng(seed).permutation(len(data))[:limit]
    return [Sample(str(int(i)), data[int(i)]) for i in order]


MUTANTS = [
    *common_mutants(E, method="samples"),
    mutant("the subject under another name", E, measure=lambda s, model, sample: dict(E.measure(s, model, sample))),
    sampled("ids as numbers", lambda found, seed: [dataclasses.replace(s, id=int(s.id)) for s in found]),
    sampled(
        "one id for two samples", lambda found, seed: [dataclasses.replace(s, id=str(int(s.id) // 2)) for s in found]
    ),
    sampled("bare data instead of samples", lambda found, seed: [s.data for s in found]),
    sampled("ids by place", lambda found, seed: [Sample(str(i), s.data) for i, s in enumerate(found)]),
    sampled("ids with the seed", lambda found, seed: [Sample(f"{seed}-{s.id}", s.data) for s in found]),
    mutant("order unseeded", E, samples=_unseeded),
    mutant(
        "order by the number of calls",
        E,
        samples=lambda s, data, *, limit, seed: E.samples(s, data, limit=limit, seed=seed + count(s)),
    ),
    mutant("limit ignored", E, samples=lambda s, data, *, limit, seed: E.samples(s, data, limit=None, seed=seed)),
    mutant(
        "limit off by one",
        E,
        samples=lambda s, data, *, limit, seed: E.samples(s, data, limit=limit and limit + 1, seed=seed),
    ),
    mutant("unreadable data crash", E, samples=_crude),
    mutant(
        "unreadable data are no samples",
        E,
        samples=lambda s, data, *, limit, seed: E.samples(s, data or [], limit=limit, seed=seed),
    ),
    measured("a NaN where it is not accepted", lambda row, s: {"accepted": row["accepted"] or math.nan}),
    measured("a name only where it is accepted", lambda row, s: row if row["accepted"] else {"refused": 1.0}),
    measured("bools", lambda row, s: {"accepted": bool(row["accepted"])}),
    measured("numpy's float32", lambda row, s: {"accepted": np.float32(row["accepted"])}),
    mutant("averages with the sample before", E, measure=_running),
    mutant(
        "numbers its measurements",
        E,
        measure=lambda s, subject, sample: {**E.measure(s, subject, sample), "nr": float(count(s))},
    ),
    measured("adds to the sample", lambda row, s: first(row, s.data.append(0))),
    mutant(
        "removes a sample from the data",
        E,
        samples=lambda s, data, *, limit, seed: first(
            list(E.samples(s, data, limit=limit, seed=seed)), len(data or []) > 5 and data.pop()
        ),
    ),
    mutant("measurements as a dict", E, aggregate=lambda s, rows: {m.name: m for m in E.aggregate(s, rows)}),
    mutant("nothing measured", E, aggregate=lambda s, rows: []),
    aggregated("a value of NaN", lambda m, rows: {"value": math.nan}),
    aggregated("an interval beside the value", lambda m, rows: {"ci95": (m.value + 0.1, m.value + 0.2)}),
    aggregated("an interval upside down", lambda m, rows: {"ci95": (m.ci95[1], m.ci95[0])}),
    aggregated("n of nothing", lambda m, rows: {"n": 0}),
    aggregated("n counts every sample twice", lambda m, rows: {"n": 2 * m.n}),
    aggregated("later rows count more", lambda m, rows: {"value": _smooth(rows), "ci95": None}),
    aggregated("the first row only", lambda m, rows: {"value": rows[0]["accepted"], "ci95": None}),
    mutant("rows pile up", E, aggregate=_all_rows),
    mutant("no rows crash", E, aggregate=_crash),
    mutant(
        "no rows give NaN",
        E,
        aggregate=lambda s, rows: E.aggregate(s, rows) or [Measurement("accepted", math.nan)],
    ),
    measured("rows hold the sample itself", lambda row, s: {**row, "sample": s}),
    mutant("rows are consumed", E, aggregate=_consume),
    aggregated("bootstrap by numpy's global generator", lambda m, rows: {"ci95": first(m.ci95, np.random.rand())}),
    mutant(
        "interval from fresh noise",
        E,
        aggregate=lambda s, rows: [
            dataclasses.replace(m, ci95=(m.value - 1 - entropy() / 2**32, m.value + 1)) for m in E.aggregate(s, rows)
        ],
    ),
]
