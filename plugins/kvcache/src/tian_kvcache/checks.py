"""Is it an attention sink, or does the model merely depend on its first token? Three checks and the ratio decide.

Source: ours, after arXiv 2309.17453 section 3.1 (sinks collect attention without carrying meaning).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from tian.hf.host import attach
from tian.spec import KVPolicy

if TYPE_CHECKING:
    from torch import Tensor

RATIO_AT_LEAST = 1.3  # perplexity without the first token over perplexity with it
MASS_AT_LEAST = 0.3  # of a late query's attention, mean over heads, in a layer above the lowest
VALUE_NORM_AT_MOST = 0.5  # of the first token's value, relative to the others
ZEROED_LOSS_AT_MOST = 1.02  # perplexity with the first value zeroed, relative to intact
PLACES = 8  # late positions probed in each stream

SINK = "attention sink"
DEPENDENCE = "dependence on the first token, not yet an emergent attention sink"
NEITHER = "no dependence on the first token"


class _Probe(KVPolicy):
    """Keeps everything and has the host note the newest query's attention."""

    needs: ClassVar[frozenset[str]] = frozenset({"last_row"})

    def capacity(self, layer: int, n_layers: int, prompt_len: int | None) -> int | None:
        return None

    def select(self, score: Tensor | None, token: Tensor, capacity: int) -> Tensor:
        return torch.arange(token.shape[-1], device=token.device).expand_as(token)


@dataclass(frozen=True)
class FirstToken:
    """What late queries make of the first token, per layer (mean over heads, streams and places).

    Attributes:
        mass: share of the newest query's attention on it, 0..1.
        value_norm: norm of its value over the mean norm of the others.
    """

    mass: list[float]
    value_norm: list[float]

    @property
    def strongest(self) -> int:
        """The layer above the lowest in which it gets most attention (the lowest where there is no other)."""
        return max(range(min(1, len(self.mass) - 1), len(self.mass)), key=lambda i: self.mass[i])


@torch.inference_mode()
def probe_first_token(model: Any, ids: Tensor, *, recent: int, ordinary: bool = False) -> FirstToken:
    """Run windows of the first token and `recent` late ones and look at slot 0.

    Args:
        model: causal LM in eval mode.
        ids: `[S, T]` int64 streams.
        recent: tokens beside the first.
        ordinary: put the token before the late ones into slot 0 instead: what comes out is the place's doing alone.
    """
    length = ids.shape[1]
    first_end = min(length, max(length // 2, recent + 2))
    ends = torch.linspace(first_end, length, PLACES).long().tolist()
    starts = [max(1, e - recent) for e in ends]
    heads = [ids[:, s - 1 : s] if ordinary else ids[:, :1] for s in starts]
    windows = torch.cat([torch.cat([h, ids[:, s:e]], dim=1) for h, s, e in zip(heads, starts, ends, strict=True)])
    mass, norm = [], []
    with attach(model, kv=_Probe()) as cache:
        model(input_ids=windows, past_key_values=cache, use_cache=True)
        for layer in cache.layers:
            assert layer.score is not None  # noqa: S101 - the probe needs scores
            mass.append(float(layer.score[:, 0, 0].mean()))
            norms = layer.values[:, :, : layer.count].float().norm(dim=-1)
            norm.append(float(norms[..., 0].mean() / norms[..., 1:].mean()))
    return FirstToken(mass, norm)


@dataclass(frozen=True)
class Verdict:
    """The decision and the rows behind it: (check, target, measured, holds)."""

    words: str
    rows: list[tuple[str, str, str, bool]]


def judge(first: FirstToken, *, ratio: float, zeroed: float) -> Verdict:
    """Decide between sink, dependence and neither.

    Args:
        first: from `probe_first_token`.
        ratio: perplexity of the window over that of one kept token, same cache size.
        zeroed: perplexity with the first value zeroed over intact.
    """
    best = first.strongest
    holds = [
        ratio >= RATIO_AT_LEAST,
        first.mass[best] >= MASS_AT_LEAST,
        first.value_norm[best] <= VALUE_NORM_AT_MOST,
        zeroed <= ZEROED_LOSS_AT_MOST,
    ]
    rows = [
        ("perplexity without / with the first token", f">= {RATIO_AT_LEAST}", f"{ratio:.2f}", holds[0]),
        (
            f"attention on it above the lowest layer (layer {best})",
            f">= {MASS_AT_LEAST}",
            f"{first.mass[best]:.3f}",
            holds[1],
        ),
        (
            f"norm of its value / others (layer {best})",
            f"<= {VALUE_NORM_AT_MOST}",
            f"{first.value_norm[best]:.2f}",
            holds[2],
        ),
        ("perplexity with its value zeroed / intact", f"<= {ZEROED_LOSS_AT_MOST}", f"{zeroed:.2f}", holds[3]),
    ]
    words = SINK if all(holds) else DEPENDENCE if holds[0] else NEITHER
    return Verdict(words, rows)
