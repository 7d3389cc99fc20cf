"""Checks of role reward_model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from hypothesis import strategies as st

from tian.errors import InvalidInput
from tian.spec import TextItem, TrajectoryItem
from tian.testing.conformance.base import Option, fail, is_tensor, prop, require, skip
from tian.testing.conformance.common import CommonChecks
from tian.testing.conformance.watch import global_randomness_untouched, unchanged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

TEXTS = (
    "",
    "It rained.",
    "It rained, and nobody had told the sea.",
    "a a a a",
    "\u00c9t\u00e9 \u2014 \u590f",
    "It rained.",
)
PICKS = st.lists(st.integers(0, 99), min_size=1, max_size=5)


def items_of(kind: Any) -> list[Any]:
    """The items of a kind, `text` or `trajectory`, or the given ones.

    Raises:
        InvalidInput: neither a kind nor at least two items.
    """
    if kind == "text":
        items: list[Any] = [TextItem("Begin a story.", text) for text in TEXTS]
        return [*items, TextItem("", "It rained.", context="likes short sentences")]
    if kind == "trajectory":
        g = torch.Generator().manual_seed(0)
        return [TrajectoryItem(torch.randn(5, 4, generator=g), torch.randn(5, 2, generator=g)) for _ in range(6)]
    if isinstance(kind, str) or len(list(kind)) < 2:
        raise InvalidInput(f"items is {kind!r}", hint="give 'text', 'trajectory', or a list of at least two items")
    return list(kind)


class RewardModelChecks(CommonChecks):
    """Contract of `tian.spec.RewardModel`."""

    role: ClassVar[str] = "reward_model"
    items: ClassVar[list[Any]]

    def test_rm01_aspects_are_named(self, option: Option) -> None:
        """`aspects` is a tuple of at least one name, all different; `order_sensitive` is a bool."""
        model = self.make(option)
        names = model.aspects
        good = isinstance(names, tuple) and names and all(isinstance(a, str) and a for a in names)
        require(good and len(set(names)) == len(names), f"aspects is {names!r}")
        require(isinstance(model.order_sensitive, bool), f"order_sensitive is {model.order_sensitive!r}")

    # -- score ---------------------------------------------------------------------------------------------------------

    @prop(picks=PICKS)
    def test_rm02_score_returns_a_row_an_item_and_a_column_an_aspect(self, option: Option, picks: list[int]) -> None:
        """`score` returns `[N, A]` float32."""
        model = self.make(option)
        table(model, model.score(self.some(picks)), len(picks), "score")

    @prop(picks=PICKS)
    def test_rm03_scores_are_finite(self, option: Option, picks: list[int]) -> None:
        """Every score is finite."""
        scores = self.make(option).score(self.some(picks))
        require(torch.isfinite(scores).all(), f"scores {scores.tolist()}")

    def test_rm04_no_items_give_an_empty_table(self, option: Option) -> None:
        """No items give `[0, A]`, and no pairs too."""
        model = self.make(option)
        table(model, model.score([]), 0, "score")
        table(model, model.compare([]), 0, "compare")

    @prop(picks=PICKS)
    def test_rm05_the_batch_makes_no_difference(self, option: Option, picks: list[int]) -> None:
        """An item is scored in a batch as it is alone (1e-5)."""
        model, items = self.make(option), self.some(picks)
        together = model.score(items)
        alone = torch.cat([model.score([i]) for i in items])
        require(together.shape == alone.shape, f"{list(together.shape)} in a batch, {list(alone.shape)} one by one")
        close(together, alone, "an item's score depends on the batch")

    @prop(picks=PICKS)
    def test_rm06_the_same_items_get_the_same_scores(self, option: Option, picks: list[int]) -> None:
        """Asked again, before or after other items, or of another instance, the scores are the same."""
        model, items = self.make(option), self.some(picks)
        first = model.score(items).clone()
        model.score(self.items)
        model.compare([(self.items[0], self.items[1])])
        require(torch.equal(model.score(items), first), "the same items were scored in two ways")
        require(torch.equal(self.make(option).score(items), first), "another instance scores otherwise")

    def test_rm07_an_empty_response_is_scored(self, option: Option) -> None:
        """An empty response is scored like any other."""
        texts = [i for i in self.items if isinstance(i, TextItem)]
        if not texts:
            skip("the items are no texts")
        model, empty = self.make(option), TextItem(texts[0].prompt, "")
        scores = model.score([texts[0], empty, TextItem("", "")])
        table(model, scores, 3, "score")
        require(torch.isfinite(scores).all(), f"scores {scores.tolist()} with an empty response")

    @prop(picks=PICKS)
    def test_rm08_any_sequence_will_do(self, option: Option, picks: list[int]) -> None:
        """A tuple of items is scored as the list is, and a tuple of pairs compared."""
        model, items = self.make(option), self.some(picks)
        require(torch.equal(model.score(tuple(items)), model.score(items)), "a tuple is scored unlike a list")
        pairs = self.pairs(picks)
        require(torch.equal(model.compare(tuple(pairs)), model.compare(pairs)), "a tuple is compared unlike a list")

    def test_rm09_an_item_of_a_wrong_kind_is_refused(self, option: Option) -> None:
        """Something that is no item raises InvalidInput."""
        model = self.make(option)
        for wrong in ("a bare string", None):
            try:
                model.score([wrong])
            except InvalidInput:
                continue
            fail(f"the item {wrong!r} was accepted; InvalidInput is due")

    # -- compare -------------------------------------------------------------------------------------------------------

    @prop(picks=PICKS)
    def test_rm10_comparisons_are_probabilities(self, option: Option, picks: list[int]) -> None:
        """`compare` returns `[N, A]` float32 within 0..1."""
        model = self.make(option)
        p = model.compare(self.pairs(picks))
        table(model, p, len(picks), "compare")
        require(((p >= 0) & (p <= 1)).all(), f"not within 0..1: {p.tolist()}")

    @prop(picks=PICKS)
    def test_rm11_both_orders_sum_to_one_or_the_model_says_so(self, option: Option, picks: list[int]) -> None:
        """compare(a, b) + compare(b, a) = 1 within 1e-6, unless `order_sensitive`."""
        model = self.make(option)
        if model.order_sensitive:
            skip("the model is order_sensitive")
        pairs = self.pairs(picks)
        total = model.compare(pairs) + model.compare([(b, a) for a, b in pairs])
        gap = float((total - 1).abs().max())
        require(gap <= 1e-6, f"both orders sum to {total.tolist()}; declare order_sensitive = True")

    @prop(picks=PICKS)
    def test_rm12_pairs_are_compared_one_by_one(self, option: Option, picks: list[int]) -> None:
        """A pair is compared in a batch as it is alone (1e-5)."""
        model, pairs = self.make(option), self.pairs(picks)
        alone = torch.cat([model.compare([p]) for p in pairs])
        close(model.compare(pairs), alone, "a comparison depends on the other pairs")

    # -- manners -------------------------------------------------------------------------------------------------------

    def test_rm13_an_explanation_is_words_or_none(self, option: Option) -> None:
        """`explain` returns a str or None."""
        model = self.make(option)
        for item in self.items:
            words = model.explain(item)
            require(words is None or isinstance(words, str), f"explain returned a {type(words).__name__}")

    @prop(picks=PICKS)
    def test_rm14_items_are_not_modified(self, option: Option, picks: list[int]) -> None:
        """`score`, `compare` and `explain` change neither the items nor the list of them."""
        model, items, pairs = self.make(option), self.some(picks), self.pairs(picks)
        with unchanged("score, compare or explain", items=items, pairs=pairs):
            model.score(items)
            model.compare(pairs)
            model.explain(items[0])

    @prop(picks=PICKS)
    def test_rm15_no_global_randomness_is_consumed(self, option: Option, picks: list[int]) -> None:
        """`score`, `compare` and `explain` leave the global random states alone."""
        model = self.make(option)
        with global_randomness_untouched("the reward model"):
            model.score(self.some(picks))
            model.compare(self.pairs(picks))
            model.explain(self.items[0])

    @prop(picks=PICKS)
    def test_rm16_one_model_does_not_influence_another(self, option: Option, picks: list[int]) -> None:
        """Scoring with one instance makes no difference to the scores of another, existing one."""
        one, two = self.make(option), self.make(option)
        items = self.some(picks)
        expected = one.score(items).clone()
        two.score(self.items)
        two.compare(self.pairs(picks))
        require(torch.equal(one.score(items), expected), "another instance changed the scores")

    # -- help ----------------------------------------------------------------------------------------------------------

    def some(self, picks: Sequence[int]) -> list[Any]:
        """Items by number, repetition allowed."""
        return [self.items[i % len(self.items)] for i in picks]

    def pairs(self, picks: Sequence[int]) -> list[tuple[Any, Any]]:
        """Pairs of different and equal items."""
        n = len(self.items)
        return [(self.items[i % n], self.items[(i // n + i) % n]) for i in picks]


def table(model: Any, value: Tensor, n: int, method: str) -> None:
    """Raise Violation unless the value is `[n, A]` float32."""
    require(is_tensor(value, torch.float32), f"{method} returned no float32 tensor")
    wanted = (n, len(model.aspects))
    require(tuple(value.shape) == wanted, f"{method} returned {list(value.shape)}, wanted {list(wanted)}")


def close(a: Tensor, b: Tensor, message: str) -> None:
    """Raise Violation unless both are equal within 1e-5, relative above 1."""
    gap = float(((a - b).abs() / b.abs().clamp(min=1.0)).max()) if a.numel() else 0.0
    require(gap <= 1e-5, f"{message}: a gap of {gap:.2g}")
