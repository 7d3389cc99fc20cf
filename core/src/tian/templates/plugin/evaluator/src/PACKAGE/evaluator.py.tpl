"""The evaluator: the share of questions that are answered exactly right, with a bootstrap interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tian.errors import DataError
from tian.spec import Evaluator, Sample
from tian.types import Measurement

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from @@package@@.options import @@Class@@Options


class @@Class@@(Evaluator):
    """The data is a list of `(question, answer)`, both str; the subject a function from question to answer."""

    def __init__(self, options: @@Class@@Options) -> None:
        self.options = options

    def samples(self, data: Any, *, limit: int | None, seed: int) -> Iterable[Sample]:
        """The pairs in an order that follows from the seed; the id of one is its place in the data.

        Raises:
            DataError: the data is not a list of pairs of str.
        """
        good = isinstance(data, list | tuple) and all(_is_pair(row) for row in data)
        if not good:
            raise DataError("the data is not a list of (question, answer), both str", hint='pass [("2 + 2", "4"), ...]')
        order = np.random.default_rng(seed).permutation(len(data))[:limit]
        return [Sample(str(int(i)), tuple(data[int(i)])) for i in order]

    def measure(self, subject: Any, sample: Sample) -> Mapping[str, float]:
        """`exact`: 1 when the subject's answer is the right one."""
        question, answer = sample.data
        return {"exact": float(self._plain(subject(question)) == self._plain(answer))}

    def _plain(self, text: Any) -> str:
        words = " ".join(str(text).split())
        return words if self.options.case_matters else words.casefold()

    def aggregate(self, rows: Sequence[Mapping[str, float]]) -> list[Measurement]:
        """The share, with the 95 % percentile interval of `resamples` bootstrap samples; nothing for no rows."""
        if not rows:
            return []
        x = np.sort([row["exact"] for row in rows])  # sorted: the order of the rows makes no difference
        share = float(x.mean())
        rng = np.random.default_rng(0)
        means = x[rng.integers(0, len(x), (self.options.resamples, len(x)))].mean(axis=1)
        low, high = (float(q) for q in np.quantile(means, (0.025, 0.975)))
        interval = (min(low, share), max(high, share))
        return [Measurement("exact", share, "1", len(x), interval, higher_is_better=True)]


def _is_pair(row: Any) -> bool:
    return isinstance(row, list | tuple) and len(row) == 2 and all(isinstance(text, str) for text in row)
