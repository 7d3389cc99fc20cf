"""Score of a free answer: F1 over words and exact match. Source: the F1 of LongBench, arXiv 2308.14508, as for SQuAD."""

from __future__ import annotations

import re
import string
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_DROPPED = str.maketrans("", "", string.punctuation)


def words_of(text: str) -> list[str]:
    """Lower-case words without punctuation and articles.

    Example:
        >>> words_of("The end, of a line.")
        ['end', 'of', 'line']
    """
    return re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_DROPPED)).split()


def f1(answer: str, references: Sequence[str]) -> float:
    """Harmonic mean of precision and recall over bags of words, best over the references; nothing equals nothing only.

    Example:
        >>> f1("the red fox", ["a fox", "a dog"])
        0.6666666666666666
    """
    ours, best = Counter(words_of(answer)), 0.0
    for reference in references:
        theirs = Counter(words_of(reference))
        size = ours.total() + theirs.total()
        best = max(best, 2 * (ours & theirs).total() / size if size else 1.0)
    return best


def exact(answer: str, references: Sequence[str]) -> bool:
    """Whether the words are those of a reference, in its order.

    Example:
        >>> exact("The fox.", ["dog", "fox"])
        True
    """
    return any(words_of(answer) == words_of(r) for r in references)
