"""Policies that keep the tokens which received most attention (H2O and relatives), and the oracle among them.

Source: H2O, arXiv 2306.14048, algorithm 1, with scores accumulated over all queries as in the authors' code; TOVA, arXiv
2401.06104. Candidates for eviction are all tokens but the sinks and the `recent` newest; among equals the oldest goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from tian.errors import InvalidInput
from tian.spec import KVPolicy
from tian_kvcache.budget import LEAST, budget_tokens, layer_tokens
from tian_kvcache.ranking import keep_all, keep_highest, with_recent

if TYPE_CHECKING:
    from torch import Tensor

    from tian_kvcache.policy_options import H2ODecayOptions, H2OOptions, SinkH2OOptions, SnapKVOptions, TovaOptions


class H2O(KVPolicy):
    """Heavy hitters and recent tokens: the `heavy` older tokens with the largest attention so far, the `recent` newest.

    A chunk is attended in full before anything is dropped (the paper's prefill), hence not chunk-invariant.

    Attributes:
        decay: factor the host applies to the scores before it adds a step's attention.
        sinks: first tokens that always stay.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"colsum"})
    positions: Literal["original", "in_cache"] = "in_cache"
    chunk_invariant: ClassVar[bool] = False
    decay: float = 1.0
    sinks: int = 0

    def __init__(self, options: H2OOptions | SnapKVOptions) -> None:
        self.heavy = options.heavy
        self.recent = options.recent
        self.budget = options.budget
        self.layers = options.layers
        self.positions = options.positions

    def capacity(self, layer: int, n_layers: int, prompt_len: int | None) -> int | None:
        """Sinks + heavy + recent, or the budget, spread over layers as the options say.

        Raises:
            InvalidInput: a share of an unknown prompt, or too few tokens for the policy.
        """
        size = self.sinks + self.heavy + self.recent
        tokens = size if self.budget is None else budget_tokens(self.budget, prompt_len)
        least = self.sinks + 1 if self.budget is None else max(LEAST, self.sinks + 1)
        return layer_tokens(tokens, layer=layer, n_layers=n_layers, shape=self.layers, least=least)

    def recent_of(self, capacity: int) -> int:
        """How many of `capacity` tokens are recent ones: `recent` in proportion, at least 1."""
        return max(1, (capacity - self.sinks) * self.recent // (self.heavy + self.recent))

    def select(self, score: Tensor | None, token: Tensor, capacity: int) -> Tensor:
        """Sinks, the heaviest of the older ones, the recent ones.

        Raises:
            InvalidInput: no score was given.
        """
        score, length = given(score, self), token.shape[-1]
        if length <= capacity:
            return keep_all(token)
        recent = self.recent_of(capacity)
        kept = keep_highest(
            score[..., : length - recent], sinks=self.sinks, heavy=max(0, capacity - self.sinks - recent)
        )
        return with_recent(kept, length=length, recent=recent)

    def victim_ranks(self, capacity: int) -> tuple[int, int] | None:
        """All but the sinks and the `recent` newest."""
        return self.sinks, capacity - self.recent_of(capacity)

    def victim(self, score: Tensor | None, rank: Tensor, capacity: int) -> Tensor:
        """The lowest score among `victim_ranks`.

        Raises:
            InvalidInput: no score was given.
        """
        return super().victim(given(score, self), rank, capacity)


class H2ODecay(H2O):
    """H2O whose scores fade: what was received n steps ago counts `decay ** n`. Source: ours.

    The plain sum never forgets: tokens that were heavy once block newcomers when the topic changes.
    """

    def __init__(self, options: H2ODecayOptions) -> None:
        super().__init__(options)
        self.decay = options.decay


class SinkH2O(H2O):
    """H2O with the first tokens always kept. Source: ours, H2O with the sinks of arXiv 2309.17453."""

    def __init__(self, options: SinkH2OOptions) -> None:
        super().__init__(options)
        self.sinks = options.sinks


class Tova(H2O):
    """The token the newest query looks at least is dropped; nothing but the newest is protected.

    Source: TOVA, arXiv 2401.06104, section 3.2: the last row of attention, averaged over heads.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"last_row"})

    def __init__(self, options: TovaOptions) -> None:
        self.budget = options.budget
        self.layers = options.layers
        self.positions = options.positions
        self.heavy, self.recent = 1, 0  # nothing but the newest is protected, whatever the budget


class H2OGlobal(H2O):
    """H2O that ranks tokens by attention of the whole text, later queries included: an oracle, for traces only.

    Source: what the LLaMA evaluation file of the authors' repository computes since April 2024.
    """

    def capacity(self, layer: int, n_layers: int, prompt_len: int | None) -> int | None:
        """Refused: a running model has no later queries to ask.

        Raises:
            InvalidInput: always.
        """
        raise InvalidInput(
            "h2o-global ranks tokens by attention that is still to come, so no cache can run under it",
            where="kv",
            hint="compare it on a trace, tian run kvcache/regret; to read text use kv=h2o",
        )


def given(score: Tensor | None, policy: KVPolicy) -> Tensor:
    """The score, which must be there.

    Raises:
        InvalidInput: it is not.
    """
    if score is None:
        raise InvalidInput(
            f"{type(policy).__name__} chooses by the score {', '.join(sorted(policy.needs))}, and none was given",
            where="kv",
            hint="use kv=streaming, which needs no score",
        )
    return score
