"""Checks of role kv_policy: the rules by themselves on simulated streams, then on a tiny model under `tian.hf.attach`."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from hypothesis import strategies as st

from tian.errors import ContractError
from tian.spec import KVPolicy
from tian.spec.contract import check_kept, check_victim
from tian.spec.victims import lowest_slot
from tian.testing.conformance.base import Option, prop, require, skip
from tian.testing.conformance.common import CommonChecks
from tian.testing.conformance.watch import global_randomness_untouched, host_reads, unchanged

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

LAYERS = 2
SCORES = frozenset({"colsum", "last_row", "window_sum"})
SEEDS = st.integers(0, 2**16)
PIECES = st.lists(st.integers(1, 5), min_size=1, max_size=6)


class KVPolicyChecks(CommonChecks):
    """Contract of `tian.spec.KVPolicy`."""

    role: ClassVar[str] = "kv_policy"

    # -- declarations --------------------------------------------------------------------------------------------------

    @prop(layer=st.integers(0, 47), prompt=st.none() | st.integers(1, 5000))
    def test_kv01_capacity_is_none_or_a_positive_number_of_tokens(
        self, option: Option, layer: int, prompt: int | None
    ) -> None:
        """`capacity` is None or an int >= 1 in every layer and for every prompt length."""
        c = self.make(option).capacity(layer, 48, prompt)
        require(c is None or (type(c) is int and c >= 1), f"capacity({layer}, 48, {prompt}) is {c!r}")

    @prop(layers=st.lists(st.integers(0, 7), min_size=1, max_size=6), prompt=st.none() | st.integers(1, 300))
    def test_kv02_capacity_depends_on_its_arguments_alone(
        self, option: Option, layers: list[int], prompt: int | None
    ) -> None:
        """`capacity` gives the same answer whenever, and in whatever order of layers, it is asked."""
        one, two = self.make(option), self.make(option)
        forward = {i: one.capacity(i, 8, prompt) for i in layers}
        again = {i: one.capacity(i, 8, prompt) for i in reversed(layers)}
        fresh = {i: two.capacity(i, 8, prompt) for i in reversed(layers)}
        require(forward == again == fresh, f"capacity changes with the calls: {forward}, {again}, {fresh}")

    def test_kv03_needs_name_a_score_the_host_has(self, option: Option) -> None:
        """`needs` is a set of at most one of `colsum` and `last_row`."""
        needs = self.make(option).needs
        require(isinstance(needs, frozenset | set), f"needs is {needs!r}, not a set")
        require(set(needs) <= SCORES and len(needs) <= 1, f"needs is {set(needs)}, the host has {sorted(SCORES)}")

    def test_kv04_positions_are_declared(self, option: Option) -> None:
        """`positions` is `in_cache` or `original`, and `chunk_invariant` a bool."""
        policy = self.make(option)
        require(policy.positions in ("in_cache", "original"), f"positions is {policy.positions!r}")
        require(isinstance(policy.chunk_invariant, bool), f"chunk_invariant is {policy.chunk_invariant!r}")

    # -- select --------------------------------------------------------------------------------------------------------

    @prop(seed=SEEDS, pieces=PIECES)
    def test_kv05_select_returns_indices_of_the_right_shape(self, option: Option, seed: int, pieces: list[int]) -> None:
        """`select` returns `[B, H_kv, K]` int64 with 1 <= K <= capacity."""
        policy = self.make(option)
        for score, token, c in states(policy, seed, pieces):
            keep = policy.select(score, token, c)
            require(isinstance(keep, torch.Tensor), f"select returned a {type(keep).__name__}")
            require(keep.dtype == torch.int64, f"select returned {keep.dtype}, wanted int64")
            good = keep.dim() == 3 and keep.shape[:2] == token.shape[:2] and 1 <= keep.shape[-1] <= c
            require(good, f"select returned {list(keep.shape)} for {list(token.shape)} and capacity {c}")

    @prop(seed=SEEDS, pieces=PIECES)
    def test_kv06_kept_indices_ascend_are_unique_and_in_range(
        self, option: Option, seed: int, pieces: list[int]
    ) -> None:
        """The indices `select` returns ascend, are unique, and lie within 0..T-1."""
        policy = self.make(option)
        for score, token, c in states(policy, seed, pieces):
            keep = policy.select(score, token, c)
            require((keep.diff(dim=-1) > 0).all(), f"not ascending or not unique: {keep[0, 0].tolist()}")
            require(((keep >= 0) & (keep < token.shape[-1])).all(), f"outside 0..{token.shape[-1] - 1}")

    @prop(seed=SEEDS, pieces=PIECES)
    def test_kv07_the_newest_token_is_kept(self, option: Option, seed: int, pieces: list[int]) -> None:
        """The newest token is always among those `select` keeps."""
        policy = self.make(option)
        for score, token, c in states(policy, seed, pieces):
            kept = policy.select(score, token, c) == token.shape[-1] - 1
            require(kept.any(dim=-1).all(), f"of {token.shape[-1]} tokens the newest was dropped at capacity {c}")

    @prop(seed=SEEDS, pieces=PIECES)
    def test_kv08_the_result_depends_on_the_arguments_alone(self, option: Option, seed: int, pieces: list[int]) -> None:
        """The same arguments give the same result, whatever the policy was asked before."""
        used, fresh = self.make(option), self.make(option)
        for score, token, c in states(used, seed, pieces):
            first, again = used.select(score, token, c), used.select(score, token, c)
            other = fresh.select(score, token, c)
            require(torch.equal(first, again), "select answered the same question in two ways")
            require(torch.equal(first, other), "a policy that was used before answers unlike a fresh one")

    @prop(seed=SEEDS, pieces=PIECES)
    def test_kv09_one_policy_does_not_influence_another(self, option: Option, seed: int, pieces: list[int]) -> None:
        """What one instance is asked makes no difference to another instance."""
        lone = [(s, t, c, self.make(option).select(s, t, c)) for s, t, c in states(self.make(option), seed, pieces)]
        busy = self.make(option)
        for score, token, c in states(busy, seed + 1, [*pieces, 3]):
            busy.select(score, token, c)
        for other in self.other_options(option):
            self.make(other)
        policy = self.make(option)
        for score, token, c, expected in lone:
            require(torch.equal(policy.select(score, token, c), expected), "another instance changed the result")

    @prop(seed=SEEDS, pieces=PIECES)
    def test_kv10_arguments_are_not_modified(self, option: Option, seed: int, pieces: list[int]) -> None:
        """Neither `select` nor `victim` changes the tensors it is given."""
        policy = self.make(option)
        for score, token, c in states(policy, seed, pieces):
            with unchanged("select", score=score, token=token):
                policy.select(score, token, c)
        for score, rank, c in slots(policy, seed):
            with unchanged("victim", score=score, rank=rank):
                policy.victim(score, rank, c)

    @prop(seed=SEEDS, pieces=PIECES)
    def test_kv11_no_global_randomness_is_consumed(self, option: Option, seed: int, pieces: list[int]) -> None:
        """Neither `select` nor `victim` touches the global random states."""
        policy = self.make(option)
        asked = [*states(policy, seed, pieces)]
        stepped = [*slots(policy, seed)]
        with global_randomness_untouched("the policy"):
            for score, token, c in asked:
                policy.select(score, token, c)
            for score, rank, c in stepped:
                policy.victim(score, rank, c)

    @prop(seed=SEEDS, pieces=PIECES)
    def test_kv12_rows_and_heads_are_independent(self, option: Option, seed: int, pieces: list[int]) -> None:
        """A row and head is decided as if it were alone in the batch."""
        policy = self.make(option)
        if not policy.needs:
            skip("without needs the host keeps one row for all")
        for score, token, c in states(policy, seed, pieces):
            keep = policy.select(score, token, c)
            for b in range(token.shape[0]):
                for h in range(token.shape[1]):
                    cut = (slice(b, b + 1), slice(h, h + 1))
                    alone = policy.select(None if score is None else score[cut], token[cut], c)
                    require(torch.equal(alone, keep[cut]), f"row {b}, head {h} depends on the rest of the batch")

    # -- victim --------------------------------------------------------------------------------------------------------

    @prop(seed=SEEDS)
    def test_kv13_victim_returns_one_slot_a_row(self, option: Option, seed: int) -> None:
        """`victim` returns `[B, H_kv]` int64 slots within 0..C, never that of the newest token."""
        policy = self.make(option)
        for score, rank, c in slots(policy, seed):
            check_victim(policy, policy.victim(score, rank, c), rank)

    @prop(seed=SEEDS, steps=st.integers(1, 20), examples=25)
    def test_kv14_victim_agrees_with_select(self, option: Option, seed: int, steps: int) -> None:
        """On every state a stream can reach, `victim` frees the slot whose token `select` would drop."""
        policy = self.make(option)
        for score, token, c in states(policy, seed, [1] * steps):
            if token.shape[-1] != c + 1:
                continue  # a chunk, which `victim` is never asked about
            order = torch.rand(token.shape, generator=torch.Generator().manual_seed(seed)).argsort(-1)
            rank = order.int()  # slot s holds the token of rank order[s]
            by_slot = None if score is None else score.gather(-1, order)
            victim = policy.victim(by_slot, rank, c)
            keep = policy.select(score, token, c)
            require(keep.shape[-1] == c, f"after one step select kept {keep.shape[-1]} of {c + 1}; it must keep {c}")
            gone = torch.ones_like(token).scatter(-1, keep, 0).argmax(-1)
            dropped = rank.gather(-1, victim[..., None]).squeeze(-1).long()
            require(torch.equal(dropped, gone), f"victim drops rank {dropped.tolist()}, select drops {gone.tolist()}")

    @prop(seed=SEEDS, examples=3)
    def test_kv15_victim_reads_nothing_back_from_the_device(self, option: Option, seed: int) -> None:
        """A `victim` of the policy's own reads no tensor back: no item(), no tolist(), no `if` on a tensor."""
        policy = self.make(option)
        if type(policy).victim is KVPolicy.victim:
            skip("the policy has the derived victim")
        for score, rank, c in slots(policy, seed):
            with host_reads() as seen:
                policy.victim(score, rank, c)
            require(not seen, f"victim reads a tensor back: {', '.join(seen)}")

    @prop(seed=SEEDS)
    def test_kv20_victim_follows_victim_ranks(self, option: Option, seed: int) -> None:
        """`victim_ranks` is None or (first, last), 0 <= first <= last < C, and names the slot that `victim` does."""
        policy = self.make(option)
        for score, rank, c in slots(policy, seed):
            ranks = policy.victim_ranks(c)
            if ranks is None:
                skip("victim_ranks is None")
            right = (
                isinstance(ranks, tuple) and [type(r) for r in ranks] == [int, int] and 0 <= ranks[0] <= ranks[1] < c
            )
            require(right, f"victim_ranks({c}) is {ranks!r}")
            expected = lowest_slot(score, rank, first=ranks[0], last=ranks[1])
            require(torch.equal(policy.victim(score, rank, c), expected), f"victim leaves its own ranks {ranks}")

    @prop(seed=SEEDS, pieces=PIECES)
    def test_kv21_a_contiguous_policy_keeps_the_first_and_the_newest(
        self, option: Option, seed: int, pieces: list[int]
    ) -> None:
        """If `contiguous`, no score is needed and `select` keeps the first `victim_ranks[0]` tokens and the newest."""
        policy = self.make(option)
        if not policy.contiguous:
            skip("contiguous is False")
        require(not policy.needs, f"contiguous, but it needs {sorted(policy.needs)}")
        for score, token, c in states(policy, seed, pieces):
            ranks = policy.victim_ranks(c)
            require(ranks is not None and ranks[0] == ranks[1], f"contiguous, but victim_ranks({c}) is {ranks!r}")
            assert ranks is not None  # noqa: S101 - for the type checker
            kept = token.gather(-1, policy.select(score, token, c))
            newest = token[..., token.shape[-1] - (c - ranks[0]) :]
            expected = torch.cat([token[..., : ranks[0]], newest], dim=-1)
            require(torch.equal(kept, expected), f"of {token[0, 0].tolist()} it keeps {kept[0, 0].tolist()}")

    # -- on a model ----------------------------------------------------------------------------------------------------

    def test_kv16_a_capacity_beyond_the_length_equals_no_policy(self, option: Option) -> None:
        """While nothing has to go, logits equal those of the model without a policy (1e-5, fp32)."""
        model = tiny_model()
        for length in (24, 12, 6, 3, 2, 1):
            bounds = [self.make(option).capacity(i, LAYERS, length) for i in range(LAYERS)]
            if all(c is None or c >= length for c in bounds):
                break
        else:
            skip("the capacity is below one token")
        ids = tokens(2, length, seed=1)
        with torch.no_grad():
            expected = model(input_ids=ids, use_cache=False).logits
        for pieces in ([length], [(length + 1) // 2] + [1] * (length // 2)):
            got, _ = stream(model, self.make(option), ids, pieces)
            worst = float((got - expected).abs().max())
            require(worst <= 1e-5, f"logits differ by {worst:.2g} although the capacity is not reached")

    def test_kv17_one_chunk_equals_its_pieces_or_the_policy_says_so(self, option: Option) -> None:
        """A chunk gives the outputs and kept tokens of its pieces (1e-5), unless `chunk_invariant` is False."""
        policy = self.make(option)
        if not policy.chunk_invariant:
            skip("chunk_invariant is False")
        length = self.enough(policy)
        ids = tokens(1, length, seed=2)
        whole, cache = stream(tiny_model(), policy, ids, [length])
        cut, other = stream(tiny_model(), self.make(option), ids, [length - 6, 1, 3, 2])
        require(float((whole - cut).abs().max()) <= 1e-5, "a chunk gives other logits than its pieces")
        for layer in range(LAYERS):
            require(torch.equal(cache.kept(layer), other.kept(layer)), "a chunk keeps other tokens than its pieces")

    def test_kv18_the_cache_stays_within_capacity_and_keeps_the_newest(self, option: Option) -> None:
        """On a model, after every step, each layer holds at most its capacity, the newest token among them."""
        from tian.hf import attach

        policy = self.make(option)
        length, seen = self.enough(policy), 0
        ids = tokens(2, length, seed=3)
        with attach(tiny_model(), kv=policy) as cache, torch.no_grad():
            for piece in [length - 8, *[1] * 6, 2]:
                tiny_model()(input_ids=ids[:, seen : seen + piece], past_key_values=cache, use_cache=True)
                seen += piece
                for i in range(LAYERS):
                    kept, c = cache.kept(i), policy.capacity(i, LAYERS, length - 8)
                    require(c is None or kept.shape[-1] <= c, f"layer {i} holds {kept.shape[-1]} tokens, capacity {c}")
                    require((kept[..., -1] == seen - 1).all(), f"after {seen} tokens the newest is not kept")
                    require((kept.diff(dim=-1) > 0).all(), f"layer {i} holds a token twice")

    def test_kv19_a_policy_serves_one_stream_after_another(self, option: Option) -> None:
        """A second stream under the same policy object gives what a fresh one gives, bit by bit."""
        policy = self.make(option)
        length = self.enough(policy)
        pieces = [length - 8] + [1] * 8
        stream(tiny_model(), policy, tokens(1, length, seed=4), pieces)
        ids = tokens(1, length, seed=5)
        again, cache = stream(tiny_model(), policy, ids, pieces)
        fresh, other = stream(tiny_model(), self.make(option), ids, pieces)
        require(torch.equal(again, fresh), "logits of a second stream differ from those of a fresh policy")
        require(torch.equal(cache.kept(), other.kept()), "a second stream keeps other tokens than a fresh policy")

    def test_kv22_ranks_and_scores_are_those_of_what_is_kept(self, option: Option) -> None:
        """On a model, ranks are 0..n-1 in order of age; with `colsum`, a row adds G at most and undecayed scores grow."""
        from tian.hf import attach

        policy = self.make(option)
        length = self.enough(policy)
        ids = tokens(2, length, seed=6)
        with attach(tiny_model(), kv=policy) as cache:
            held: dict[int, dict[tuple[int, ...], float]] = {}
            for t in range(length):
                tiny_model()(input_ids=ids[:, t : t + 1], past_key_values=cache, use_cache=True)
                for i, layer in enumerate(cache.layers):
                    order = layer.in_order(layer.rank)
                    whole = torch.arange(layer.count, dtype=torch.int32).expand_as(order)
                    require(torch.equal(order, whole), f"layer {i}: ranks are {order[0, 0].tolist()}")
                    require((cache.kept(i).diff(dim=-1) > 0).all(), f"layer {i}: ranks are not in order of age")
                    if set(policy.needs) == {"colsum"} and policy.decay == 1.0 and t < 24:
                        held[i] = grown(layer, held.get(i, {}))

    # -- help ----------------------------------------------------------------------------------------------------------

    def other_options(self, option: Option) -> list[Option]:
        """The other option sets."""
        return [o for o in self.options if o != option]

    def enough(self, policy: KVPolicy) -> int:
        """A length at which something has to go, for capacities that allow it; at most 320 tokens."""
        found = [policy.capacity(i, LAYERS, None) for i in range(LAYERS)]
        return min(320, 16 + max((c for c in found if c is not None), default=8))


def grown(layer: Any, before: dict[tuple[int, ...], float], *, groups: int = 2) -> dict[tuple[int, ...], float]:
    """Score by (row, head, token): none has fallen, and a query of `groups` heads added as much at most."""
    token, score = layer.kept(), layer.in_order(layer.score)
    now: dict[tuple[int, ...], float] = {}
    for b, h in ((b, h) for b in range(token.shape[0]) for h in range(token.shape[1])):
        of = dict(zip(token[b, h].tolist(), score[b, h].tolist(), strict=True))
        now.update({(b, h, t): x for t, x in of.items()})
        added = sum(x - before.get((b, h, t), 0.0) for t, x in of.items())
        require(added <= groups + 1e-4, f"one query added {added:.4f} to the scores, {groups} heads share a key")
        fallen = [t for t, x in of.items() if x < before.get((b, h, t), 0.0) - 1e-6]
        require(not fallen, f"the scores of tokens {fallen} fell without decay")
    return now


def states(policy: KVPolicy, seed: int, pieces: Sequence[int]) -> Iterator[tuple[Tensor | None, Tensor, int]]:
    """What a host would ask `select` along one stream: `(score, token, capacity)`, scores random with ties.

    The first piece is 4 tokens longer than the capacity; every later one brings the given number of tokens. The policy's
    own answers decide what stays, as in a host, so every state is reachable.
    """
    capacity = policy.capacity(seed % LAYERS, LAYERS, None)
    if capacity is None:
        skip("capacity is None: select is never asked")
    g = torch.Generator().manual_seed(seed)
    rows = (2, 2) if policy.needs else (1, 1)
    token = torch.zeros(*rows, 0, dtype=torch.int64)
    score = torch.zeros(*rows, 0)
    seen = 0
    for m in [capacity + 4, *pieces]:
        token = torch.cat([token, torch.arange(seen, seen + m).expand(*rows, m)], dim=-1)
        score = torch.cat([score, torch.zeros(*rows, m)], dim=-1)
        score = score + torch.randint(0, 3, score.shape, generator=g) / 4  # few distinct values: ties are common
        seen += m
        if token.shape[-1] <= capacity:
            continue
        yield (score.clone() if policy.needs else None), token.clone(), capacity
        asked = score.clone() if policy.needs else None
        keep = policy.select(asked, token.clone(), capacity)
        try:
            check_kept(policy, keep, rows=rows, n=token.shape[-1], capacity=capacity)
        except ContractError:
            return  # the check of that sentence tells; the stream cannot go on
        token, score = token.gather(-1, keep), score.gather(-1, keep)


def slots(policy: KVPolicy, seed: int) -> Iterator[tuple[Tensor | None, Tensor, int]]:
    """What a host would ask `victim`: `(score, rank, capacity)` with full slots in random order, for each layer."""
    for layer in range(LAYERS):
        c = policy.capacity(layer, LAYERS, None)
        if c is None:
            skip("capacity is None: victim is never asked")
        g = torch.Generator().manual_seed(seed + layer)
        rows = (2, 2) if policy.needs else (1, 1)
        rank = torch.rand(*rows, c + 1, generator=g).argsort(-1).int()
        yield (torch.rand(*rows, c + 1, generator=g) if policy.needs else None), rank, c


@lru_cache(maxsize=1)
def tiny_model() -> Any:
    """A random Llama with two layers and grouped heads; made without touching the global random state."""
    try:
        from tian.hf.options import LMOptions
        from tian.hf.small_lm import build_lm
    except ImportError as error:
        skip(f"transformers is not installed ({error.name}): pip install 'tian-framework[hf]'")
    shape = LMOptions(vocab_size=257, d_model=16, layers=LAYERS, heads=4, kv_heads=2, ffn=24, context=512)
    with torch.random.fork_rng(devices=[]):
        model = build_lm(shape, vocab_size=64, bos_id=0, seed=0).eval()
    with torch.no_grad():
        for p in model.parameters():  # sharper attention than at initialisation, so that a lost token shows
            if p.dim() > 1:
                p.mul_(3)
    return model


def tokens(batch: int, length: int, *, seed: int) -> Tensor:
    """Random ids `[batch, length]`."""
    return torch.randint(1, 64, (batch, length), generator=torch.Generator().manual_seed(seed))


def stream(model: Any, policy: KVPolicy, ids: Tensor, pieces: Sequence[int]) -> tuple[Tensor, Any]:
    """Logits of all tokens, fed in pieces under the policy, and the cache."""
    from tian.hf import attach

    out, start = [], 0
    with attach(model, kv=policy) as cache, torch.no_grad():
        for size in pieces:
            piece = ids[:, start : start + size]
            out.append(model(input_ids=piece, past_key_values=cache, use_cache=True).logits)
            start += size
    return torch.cat(out, dim=1), cache


__all__ = ["KVPolicyChecks"]
