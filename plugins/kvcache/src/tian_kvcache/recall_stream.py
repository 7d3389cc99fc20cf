"""The *constructed* recall stream: one attention head in closed form, planted pairs, and questions about them.

Nothing here is learned or taken from text. Token 0 draws a logit of 10 from every query and carries nothing; a PAIR is found
by its own ASK with a logit of 14; every other logit is 0. An ASK is answered when its pair gets more than half of the
attention. A FILL is read fluently when token 0 gets at least half, since the values of all fills point the same wrong way.

- zipf (skewed demand): 32 pairs in the first quarter, five of them asked about once within four tokens; every fourth token
  then asks, nine times out of ten about one of these five.
- drift: the same up to the middle; there another 32 pairs are planted and five of these become the hot ones.
- one-shot: nobody asks before the last 64 tokens, which ask about every pair once.

Frozen: a change of any number raises `VERSION`, which voids results. Source: ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

VERSION = 1
PAIRS, HOT, TOUCH_WITHIN, ASK_EVERY, HOT_SHARE = 32, 5, 4, 4, 0.9
SINK_LOGIT, PAIR_LOGIT = 10.0, 14.0


@dataclass(frozen=True)
class RecallStreams:
    """A batch of streams.

    Attributes:
        asks: `[S, T]` int64, position of the pair an ASK at t is about, -1 where t is no ASK.
        judged: first position whose questions and fills count.
        pairs: `[S, T]` bool, where pairs are planted.
    """

    asks: torch.Tensor
    judged: int
    pairs: torch.Tensor

    def attention(self) -> torch.Tensor:
        """`[S, T, T]` float32, causal weights of the head that keeps everything."""
        S, T = self.asks.shape
        logits = torch.zeros(S, T, T)
        logits[:, :, 0] = SINK_LOGIT
        stream, time = torch.nonzero(self.asks >= 0, as_tuple=True)
        logits[stream, time, self.asks[stream, time]] = PAIR_LOGIT
        logits.masked_fill_(torch.ones(T, T, dtype=torch.bool).triu(1), -torch.inf)
        return logits.softmax(dim=-1)

    def scores(self, trace: torch.Tensor, visible: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Recall and fluency of each stream, `[S]` float64 each, over the judged part.

        Args:
            trace: `attention()`.
            visible: `[S, T, T]` bool.
        """
        seen = trace * visible
        p = seen / seen.sum(dim=-1, keepdim=True)
        ask = self.asks >= 0
        found = p.gather(2, self.asks.clamp(min=0)[..., None])[..., 0] > 0.5
        fluent = p[..., 0] >= 0.5
        late = torch.arange(self.asks.shape[1]) >= self.judged
        fill = late & ~ask & ~self.pairs
        asked = ask & late
        return (found & asked).sum(1) / asked.sum(1).double(), (fluent & fill).sum(1) / fill.sum(1).double()

    def first_share(self, trace: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """Share of the attention of late fills that is on token 0, `[S]` float64; arguments as of `scores`."""
        seen = trace * visible
        p = (seen[..., 0] / seen.sum(dim=-1)).double()
        fill = (torch.arange(self.asks.shape[1]) >= self.judged) & (self.asks < 0) & ~self.pairs
        return (p * fill).sum(1) / fill.sum(1)


def make_streams(kind: str, *, tokens: int, streams: int, seed: int) -> RecallStreams:
    """Streams of one kind; stream i depends on (seed, i) alone.

    Args:
        kind: `zipf`, `drift` or `one-shot`.
        tokens: T, >= 192.
        streams: S.
        seed: of the run.
    """
    asks = np.full((streams, tokens), -1, dtype=np.int64)
    pairs = np.zeros((streams, tokens), dtype=bool)
    quarter, half = tokens // 4, tokens // 2
    starts = {"zipf": quarter, "drift": half + quarter // 2, "one-shot": tokens - 2 * PAIRS}
    for i in range(streams):
        rng = np.random.default_rng([VERSION, seed, i])
        touch = kind != "one-shot"
        planted, hot = _plant(asks[i], pairs[i], 1, quarter, rng, touch=touch)
        if kind == "one-shot":
            asks[i, tokens - 2 * PAIRS :: 2] = rng.permutation(planted)
            continue
        _ask(asks[i], pairs[i], quarter, half if kind == "drift" else tokens, planted, hot, rng)
        if kind == "drift":
            second, hot = _plant(asks[i], pairs[i], half, starts[kind], rng, touch=True)
            _ask(asks[i], pairs[i], starts[kind], tokens, np.concatenate([planted, second]), hot, rng)
    return RecallStreams(torch.from_numpy(asks), starts[kind], torch.from_numpy(pairs))


def _plant(
    asks: np.ndarray, pairs: np.ndarray, start: int, stop: int, rng: np.random.Generator, *, touch: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Put 32 pairs between `start` and `stop`; ask about five of them at once. Returns all and the hot ones."""
    hot: list[int] = []
    taken: set[int] = set()
    for place in rng.permutation(np.arange(start, stop - TOUCH_WITHIN)).tolist() if touch else []:
        answer = place + int(rng.integers(1, TOUCH_WITHIN + 1))
        if len(hot) < HOT and not {place, answer} & taken:
            hot.append(place)
            taken |= {place, answer}
            asks[answer] = place
    rest = [p for p in rng.permutation(np.arange(start, stop)).tolist() if p not in taken][: PAIRS - len(hot)]
    planted = np.array(sorted([*hot, *rest]))
    pairs[planted] = True
    return planted, np.array(hot, dtype=np.int64)


def _ask(
    asks: np.ndarray,
    pairs: np.ndarray,
    start: int,
    stop: int,
    planted: np.ndarray,
    hot: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """A question every four tokens: nine times of ten about a hot pair."""
    cold = np.setdiff1d(planted, hot)
    for t in range(start + ASK_EVERY - 1, stop, ASK_EVERY):
        if not pairs[t]:
            asks[t] = rng.choice(hot if rng.random() < HOT_SHARE else cold)
