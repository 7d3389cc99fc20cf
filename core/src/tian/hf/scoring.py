"""Log-probabilities of given continuations: by one forward pass, or under the cache an `attach` context yields.

The one place where continuations are scored: perplexity, multiple choice and the lm-eval adapter are built on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from tian.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from tian.hf.cache import SlotCache

Reading = Literal["whole", "stream"]


@dataclass(frozen=True)
class Row:
    """Tokens to read, and the tokens after them, which are scored.

    Attributes:
        prefix: at least one id.
        target: at least one id.
    """

    prefix: tuple[int, ...]
    target: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.prefix or not self.target:
            raise InvalidInput(
                f"a row needs a token before and a token to score, got {len(self.prefix)} and {len(self.target)}"
            )

    @property
    def ids(self) -> tuple[int, ...]:
        """All of them."""
        return self.prefix + self.target


@dataclass(frozen=True)
class Scored:
    """What a model makes of a row.

    Attributes:
        log_prob: `[n]` float32, nats, of each target token.
        greedy: each target token is the likeliest one, so that greedy decoding would have written the target.
    """

    log_prob: Tensor
    greedy: bool


@torch.no_grad()
def score(
    model: Any,
    rows: Sequence[Row],
    *,
    cache: SlotCache | None = None,
    reading: Reading = "whole",
    batch: int = 32,
    advance: Callable[[int], None] | None = None,
) -> list[Scored]:
    """Score the targets of rows. What a row gets does not depend on the rows beside it.

    With a cache, targets are read one token at a time, as decoding does; what the policy does with the prefix is
    `reading`. The last token of the prefix always belongs to the part read one by one, so that the first target token
    is predicted from the cache as well.

    Args:
        model: causal LM of transformers, in eval mode; attached if there is a cache.
        rows: any lengths.
        cache: what `attach` yielded; None: one forward pass over each row, everything visible.
        reading: `whole`: the prefix but for its last token is attended in full, then the policy evicts once (its
            budget may be a share of these tokens); `stream`: the policy evicts after each token from the first on.
        batch: rows a forward.
        advance: told the number of finished rows.

    Returns:
        One `Scored` a row, in order.

    Raises:
        InvalidInput: what the policy or `attach` refuses.
    """
    out: list[Scored | None] = [None] * len(rows)
    for chunk in _batches(model, rows, cache, reading, batch):
        part = [rows[i] for i in chunk]
        found = _plain(model, part) if cache is None else _cached(model, part, cache, reading)
        for i, one in zip(chunk, found, strict=True):
            out[i] = one
        if advance is not None:
            advance(len(chunk))
    return [x for x in out if x is not None]


def _batches(model: Any, rows: Sequence[Row], cache: SlotCache | None, reading: Reading, batch: int) -> list[list[int]]:
    """Indices of rows that go together: alike in what the policy keeps of them, and close in length."""
    groups: dict[Any, list[int]] = {}
    layers = model.config.num_hidden_layers
    for i, row in enumerate(rows):
        key: Any = None
        read = len(row.prefix) - 1
        if cache is not None and reading == "stream":
            key = read
        elif cache is not None:  # a share of the prompt is that of the longest row of a batch
            key = tuple(cache.policy.capacity(n, layers, read) for n in range(layers)) if read else "nothing"
        groups.setdefault(key, []).append(i)
    out = []
    for group in groups.values():
        order = sorted(group, key=lambda i: (len(rows[i].prefix), rows[i].prefix, len(rows[i].target)))
        out += [order[at : at + batch] for at in range(0, len(order), batch)]
    return out


def _padded(ids: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """`[B, T]` int64, zeros on the right: nothing looks ahead, so they change nothing."""
    width = max(map(len, ids))
    return torch.tensor([[*x, *([0] * (width - len(x)))] for x in ids], device=device)


def _pick(logits: Tensor, next_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of the next token, and whether it is the likeliest; `logits [..., V]`, `next_ids [...]`."""
    log_prob = logits.float().log_softmax(dim=-1)
    return log_prob.gather(-1, next_ids[..., None])[..., 0], logits.argmax(dim=-1) == next_ids


def _cut(rows: Sequence[Row], log_prob: Tensor, best: Tensor, starts: Sequence[int]) -> list[Scored]:
    """The targets' share of `[B, T]`; column t holds what predicts token t + 1 of a row whose target begins at `starts`."""
    out = []
    for i, (row, start) in enumerate(zip(rows, starts, strict=True)):
        own = slice(start - 1, start - 1 + len(row.target))
        out.append(Scored(log_prob[i, own].cpu().clone(), bool(best[i, own].all())))
    return out


def _plain(model: Any, rows: Sequence[Row]) -> list[Scored]:
    ids = _padded([r.ids for r in rows], model.device)
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    return _cut(rows, *_pick(logits, ids[:, 1:]), [len(r.prefix) for r in rows])


def _cached(model: Any, rows: Sequence[Row], cache: SlotCache, reading: Reading) -> list[Scored]:
    cache.reset()
    heads = list(dict.fromkeys(r.prefix[:-1] for r in rows))  # choices of one question share what comes before them
    if heads != [()]:
        _read_heads(model, heads, cache, reading)
        place = {head: i for i, head in enumerate(heads)}
        cache.reorder_cache(torch.tensor([place[r.prefix[:-1]] for r in rows], device=model.device))
    rest = _padded([(r.prefix[-1], *r.target) for r in rows], model.device)
    found = []
    for t in range(rest.shape[1] - 1):
        logits = model(input_ids=rest[:, t : t + 1], past_key_values=cache, use_cache=True).logits[:, -1]
        found.append(_pick(logits, rest[:, t + 1]))
    log_prob, best = (torch.stack(x, dim=1) for x in zip(*found, strict=True))
    cache.reset()
    return _cut(rows, log_prob, best, [1] * len(rows))


def _read_heads(model: Any, heads: Sequence[tuple[int, ...]], cache: SlotCache, reading: Reading) -> None:
    """Feed what comes before the last token of the prefixes; none is empty."""
    width = max(map(len, heads))
    if reading == "stream":  # all of one length, see `_batches`
        ids = torch.tensor(heads, device=model.device)
        for t in range(width):
            model(input_ids=ids[:, t : t + 1], past_key_values=cache, use_cache=True, logits_to_keep=1)
        return
    ids = torch.tensor([[*([0] * (width - len(h))), *h] for h in heads], device=model.device)
    mask = torch.tensor([[*([0] * (width - len(h))), *([1] * len(h))] for h in heads], device=model.device)
    model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1)
