"""Checks of role sparsity_predictor, on traces whose magnitudes depend on the input."""

from __future__ import annotations

import io
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from hypothesis import strategies as st

from tian.errors import InvalidInput, NotFitted
from tian.spec import Site, Trace
from tian.testing.conformance.base import Option, fail, is_tensor, prop, require
from tian.testing.conformance.common import CommonChecks
from tian.testing.conformance.watch import global_randomness_untouched, host_reads, same, unchanged

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from tian.spec import SparsityPredictor

SOURCES = ("mlp_in", "attn_in", "prev_mlp_in", "prev_attn_in")
SEEDS = st.integers(0, 2**16)
TOKENS = 96


class SparsityPredictorChecks(CommonChecks):
    """Contract of `tian.spec.SparsityPredictor`."""

    role: ClassVar[str] = "sparsity_predictor"
    d: ClassVar[int] = 8
    units: ClassVar[int] = 12

    def test_sp01_source_and_sites_are_declared(self, option: Option) -> None:
        """`source` is one of four streams, `site_kinds` a non-empty set of `neuron` and `head`."""
        predictor = self.make(option)
        require(predictor.source in SOURCES, f"source is {predictor.source!r}, not one of {', '.join(SOURCES)}")
        kinds = set(predictor.site_kinds)
        require(kinds and kinds <= {"neuron", "head"}, f"site_kinds is {predictor.site_kinds!r}")

    # -- fit -----------------------------------------------------------------------------------------------------------

    def test_sp02_select_before_fit_is_refused(self, option: Option) -> None:
        """`select` before `fit` raises NotFitted, and so does `select` at a site that was not fitted."""
        predictor = self.make(option)
        site, x = self.site(predictor), self.trace(predictor, 0).x
        raises(NotFitted, "select before fit", lambda: predictor.select(site, x, 2))
        fitted, elsewhere = self.fitted(option, 0), Site(site.kind, site.layer + 7, site.width)
        raises(NotFitted, "select at a site without fit", lambda: fitted.select(elsewhere, x, 2))

    @prop(seed=SEEDS, examples=5)
    def test_sp03_the_report_gives_a_recall_a_site(self, option: Option, seed: int) -> None:
        """`fit` reports a recall for every fitted site, each within 0..1."""
        predictor = self.make(option)
        traces = [self.trace(predictor, seed), self.trace(predictor, seed + 1, layer=1)]
        recall = dict(predictor.fit(traces, seed=seed).recall)
        require(len(recall) == 2, f"recall of {sorted(recall)} for two sites")
        require(all(0.0 <= r <= 1.0 for r in recall.values()), f"recall {recall} is not within 0..1")

    @prop(seed=SEEDS, examples=5)
    def test_sp04_the_same_seed_gives_the_same_fit(self, option: Option, seed: int) -> None:
        """Two instances fitted on the same traces with the same seed select the same units."""
        one, two = self.fitted(option, seed), self.fitted(option, seed)
        x = self.trace(one, seed + 1).x
        require(torch.equal(self.select(one, x, 4), self.select(two, x, 4)), "two fits with one seed differ")

    @prop(seed=SEEDS, examples=5)
    def test_sp05_traces_may_come_from_an_iterator(self, option: Option, seed: int) -> None:
        """`fit` reads the traces once: an iterator does as well as a list."""
        one, two = self.make(option), self.make(option)
        traces = [self.trace(one, seed), self.trace(one, seed + 1, layer=1)]
        one.fit(traces, seed=seed)
        two.fit(iter(traces), seed=seed)
        for t in traces:
            both = one.select(t.site, t.x, 4), two.select(t.site, t.x, 4)
            require(torch.equal(*both), "an iterator of traces gives another fit than a list")

    @prop(seed=SEEDS, examples=4)
    def test_sp06_the_large_units_are_found(self, option: Option, seed: int) -> None:
        """On a signal that can be learned, held-out recall of the large units is above that of chance."""
        predictor, k = self.fitted(option, seed), max(1, self.units // 4)
        test = self.trace(predictor, seed, part=1)
        chosen = self.select(predictor, test.x, k).long()
        picked = torch.zeros_like(test.magnitude, dtype=torch.bool)
        picked.scatter_(1, chosen.clamp(min=0), value=True)
        recall = float(picked.gather(1, test.magnitude.topk(k, dim=1).indices).float().mean())
        require(recall > 1.25 * k / self.units, f"recall {recall:.2f}, choosing blindly gives {k / self.units:.2f}")

    # -- select --------------------------------------------------------------------------------------------------------

    @prop(seed=SEEDS, n=st.integers(1, 5), k=st.integers(1, 16), examples=8)
    def test_sp07_select_returns_the_right_shape(self, option: Option, seed: int, n: int, k: int) -> None:
        """`select` returns `[N, k]` int32 for any k >= 1, more than there are units included."""
        predictor = self.fitted(option, 0)
        units = self.select(predictor, self.trace(predictor, seed).x[:n], k)
        require(is_tensor(units, torch.int32), "select returned no int32 tensor")
        require(tuple(units.shape) == (n, k), f"select returned {list(units.shape)}, wanted [{n}, {k}]")

    @prop(seed=SEEDS, k=st.integers(1, 16), examples=8)
    def test_sp08_units_ascend_and_padding_is_at_the_end(self, option: Option, seed: int, k: int) -> None:
        """Units ascend, are unique and within 0..M-1; -1 stands at the end only."""
        predictor = self.fitted(option, 0)
        for row in self.select(predictor, self.trace(predictor, seed).x[:5], k).tolist():
            units = [u for u in row if u != -1]
            require(row == units + [-1] * (k - len(units)), f"-1 before a unit: {row}")
            require(units == sorted(set(units)), f"not ascending or not unique: {row}")
            require(all(0 <= u < self.units for u in units), f"outside 0..{self.units - 1}: {row}")

    @prop(seed=SEEDS, extra=st.integers(0, 3), examples=5)
    def test_sp09_k_of_all_units_is_dense(self, option: Option, seed: int, extra: int) -> None:
        """With k >= M every unit is selected, and the rest is padding."""
        predictor = self.fitted(option, 0)
        units = self.select(predictor, self.trace(predictor, seed).x[:3], self.units + extra)
        expected = [*range(self.units), *[-1] * extra]
        require(all(row == expected for row in units.tolist()), f"k = M + {extra} selects {units[0].tolist()}")

    def test_sp10_a_k_below_one_is_refused(self, option: Option) -> None:
        """A `k` below 1 raises InvalidInput."""
        predictor = self.fitted(option, 0)
        x = self.trace(predictor, 0).x
        for k in (0, -1):
            raises(InvalidInput, f"k = {k}", partial(self.select, predictor, x, k))

    @prop(seed=SEEDS, examples=5)
    def test_sp11_rows_are_independent(self, option: Option, seed: int) -> None:
        """A token's units are those it gets when it is alone."""
        predictor = self.fitted(option, 0)
        x = self.trace(predictor, seed).x[:6]
        alone = torch.cat([self.select(predictor, row[None], 4) for row in x])
        require(torch.equal(self.select(predictor, x, 4), alone), "a token's units depend on the other tokens")

    def test_sp12_select_reads_nothing_back_from_the_device(self, option: Option) -> None:
        """`select` has no host sync: no item(), no tolist(), no `if` on a tensor."""
        predictor = self.fitted(option, 0)
        x = self.trace(predictor, 1).x[:4]
        with host_reads() as seen:
            self.select(predictor, x, 4)
        require(not seen, f"select reads a tensor back: {', '.join(seen)}")

    @prop(seed=SEEDS, examples=4)
    def test_sp13_the_result_depends_on_fit_and_arguments_alone(self, option: Option, seed: int) -> None:
        """Earlier calls of `select`, and fits of another instance, make no difference."""
        predictor = self.fitted(option, 0)
        x = self.trace(predictor, seed).x[:6]
        first = self.select(predictor, x, 4)
        self.select(predictor, 1 - x, 3)
        require(torch.equal(self.select(predictor, x, 4), first), "the same question got two answers")
        self.fitted(option, seed + 1)
        require(torch.equal(self.select(predictor, x, 4), first), "fitting another instance changed this one")

    @prop(seed=SEEDS, examples=4)
    def test_sp14_arguments_are_not_modified(self, option: Option, seed: int) -> None:
        """`fit` leaves its traces, and `select` its input, as they were."""
        predictor = self.make(option)
        trace = self.trace(predictor, seed)
        with unchanged("fit", x=trace.x, magnitude=trace.magnitude):
            predictor.fit([trace], seed=seed)
        with unchanged("select", x=trace.x):
            self.select(predictor, trace.x, 4)

    @prop(seed=SEEDS, examples=4)
    def test_sp15_no_global_randomness_is_consumed(self, option: Option, seed: int) -> None:
        """`fit` and `select` leave the global random states alone."""
        predictor = self.make(option)
        trace = self.trace(predictor, seed)
        with global_randomness_untouched("the predictor"):
            predictor.fit([trace], seed=seed)
            self.select(predictor, trace.x, 4)

    @prop(n=st.integers(1, 64), examples=6)
    def test_sp16_the_cost_is_counted(self, option: Option, n: int) -> None:
        """`cost` gives bytes and flops as ints >= 0 that do not fall with the number of tokens."""
        predictor = self.fitted(option, 0)
        site = self.site(predictor)
        small, large = predictor.cost(site, n), predictor.cost(site, 2 * n)
        numbers = (small.bytes_, small.flops, large.bytes_, large.flops)
        require(all(type(v) is int and v >= 0 for v in numbers), f"cost {small}")
        require(small.bytes_ <= large.bytes_ and small.flops <= large.flops, f"{n} tokens cost {small}, twice {large}")

    # -- state ---------------------------------------------------------------------------------------------------------

    @prop(seed=SEEDS, examples=4)
    def test_sp17_state_survives_a_file(self, option: Option, seed: int) -> None:
        """`state_dict` through `torch.save` and `torch.load(weights_only=True)` restores every selection."""
        predictor, fresh = self.fitted(option, seed), self.make(option)
        fresh.load_state_dict(through_a_file(predictor.state_dict()))
        for layer in (0, 1):
            t = self.trace(predictor, seed + 5, layer=layer)
            both = predictor.select(t.site, t.x, 4), fresh.select(t.site, t.x, 4)
            require(torch.equal(*both), "a restored predictor selects other units")

    def test_sp18_a_foreign_state_is_refused(self, option: Option) -> None:
        """A state of another source, or one that is no state at all, raises InvalidInput."""
        predictor = self.fitted(option, 0)
        state = dict(predictor.state_dict())
        require("source" in state, f"the state does not say its source; it holds {sorted(state)}")
        other = next(s for s in SOURCES if s != state["source"])
        foreign = state | {"source": other}
        raises(InvalidInput, f"a state of source {other!r}", lambda: self.make(option).load_state_dict(foreign))
        raises(InvalidInput, "an empty state", lambda: self.make(option).load_state_dict({}))

    def test_sp19_the_state_is_a_snapshot(self, option: Option) -> None:
        """A state taken or loaded is a copy: changing it, or fitting again, leaves the other side as it was."""
        predictor = self.fitted(option, 0)
        x = self.trace(predictor, 3).x
        state = predictor.state_dict()
        kept, before = through_a_file(state), self.select(predictor, x, 4)
        fresh = self.make(option)
        fresh.load_state_dict(state)
        for value in state.values():
            if isinstance(value, torch.Tensor):
                value.zero_()
        require(torch.equal(self.select(predictor, x, 4), before), "changing a state changed the predictor it is of")
        require(torch.equal(self.select(fresh, x, 4), before), "changing a state changed the predictor that loaded it")
        require(same(through_a_file(predictor.state_dict()), kept), "state_dict changed without a fit")

    # -- help ----------------------------------------------------------------------------------------------------------

    def site(self, predictor: SparsityPredictor, layer: int = 0) -> Site:
        """A site of a kind the predictor takes."""
        return Site(min(predictor.site_kinds), layer, self.units)

    def trace(self, predictor: SparsityPredictor, seed: int, *, layer: int = 0, part: int = 0) -> Trace:
        """Magnitudes |W x| with units of very different size; `part` 1 is held out from 0."""
        rule = torch.Generator().manual_seed(seed)
        weight = torch.randn(self.units, self.d, generator=rule)
        weight *= torch.linspace(0.2, 3.0, self.units)[torch.randperm(self.units, generator=rule), None]
        x = torch.randn(TOKENS, self.d, generator=torch.Generator().manual_seed(seed + 10_000 + part))
        return Trace(self.site(predictor, layer), x, (x @ weight.T).abs())

    def fitted(self, option: Option, seed: int) -> SparsityPredictor:
        """A predictor fitted on two layers."""
        predictor: SparsityPredictor = self.make(option)
        predictor.fit([self.trace(predictor, seed), self.trace(predictor, seed + 1, layer=1)], seed=seed)
        return predictor

    def select(self, predictor: SparsityPredictor, x: Tensor, k: int) -> Tensor:
        """`select` at layer 0."""
        return predictor.select(self.site(predictor), x, k)


def through_a_file(state: Any) -> Any:
    """The state as it comes back from a checkpoint that may hold plain data and tensors only."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def raises(error: type[Exception], what: str, call: Callable[[], Any]) -> None:
    """Raise Violation unless the call raises the error."""
    try:
        call()
    except error:
        return
    fail(f"{what} was accepted; {error.__name__} is due")
