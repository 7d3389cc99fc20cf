"""Eviction as the papers' codes do it, a baseline for timing: append, attend, choose, gather.

Every step concatenates the new key and value, rotates all keys to their places (keys are kept before rotation), attends
over one more than the budget, and copies what stays: slices for streaming, top-k and a gather for h2o, whose scores need
the attention weights, hence eager attention. Written from the algorithms (arXiv 2309.17453 section 3.2, arXiv 2306.14048
algorithm 1); nothing is taken from either repository. Grouped heads are repeated before attention, as there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, Cache
from transformers.cache_utils import CacheLayerMixin
from transformers.masking_utils import AttentionMaskInterface

if TYPE_CHECKING:
    from torch import Tensor

NAME = "official_eviction"


class Layer(CacheLayerMixin):
    """Keys, values and scores of one layer, in order of age."""

    def __init__(self, owner: Official) -> None:
        super().__init__()
        self.owner = owner
        self.keys = self.values = self.score = None
        self.seen = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing is allocated ahead."""
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append."""
        self.keys = key_states if self.keys is None else torch.cat([self.keys, key_states], dim=2)
        self.values = value_states if self.values is None else torch.cat([self.values, value_states], dim=2)
        self.seen += key_states.shape[2]
        return self.keys, self.values

    def attend(self, query: Tensor, scale: float) -> Tensor:
        """Rotate, attend, evict."""
        m, n = query.shape[2], self.keys.shape[2]
        at = torch.arange(n, device=query.device)[None]
        cos, sin = self.owner.rotary(query, at)
        key = _rotate(self.keys, cos, sin)
        q = _rotate(query, cos[:, n - m :], sin[:, n - m :])
        groups = q.shape[1] // key.shape[1]
        key = key.repeat_interleave(groups, dim=1) if groups > 1 else key
        value = self.values.repeat_interleave(groups, dim=1) if groups > 1 else self.values
        mask = None if m == 1 else at[0] <= at[0, n - m :, None]
        if not self.owner.heavy:
            out = scaled_dot_product_attention(q, key, value, attn_mask=mask, scale=scale)
        else:
            logits = q @ key.transpose(2, 3) * scale
            if mask is not None:
                logits = logits.masked_fill(~mask, -torch.inf)
            p = logits.softmax(dim=-1, dtype=torch.float32)
            out = p.to(q.dtype) @ value
            new = p.sum(dim=2).view(p.shape[0], -1, groups, n).sum(dim=2)
            if self.score is not None:
                new[..., : self.score.shape[-1]] += self.score
            self.score = new
        self._evict(n)
        return out

    def _evict(self, n: int) -> None:
        o = self.owner
        if n <= o.kept:
            return
        if not o.heavy:
            first, last = slice(0, o.kept - o.recent), slice(n - o.recent, n)
            self.keys = torch.cat([self.keys[:, :, first], self.keys[:, :, last]], dim=2)
            self.values = torch.cat([self.values[:, :, first], self.values[:, :, last]], dim=2)
            return
        top = self.score[..., : n - o.recent].topk(o.kept - o.recent, dim=-1).indices.sort(dim=-1).values
        tail = torch.arange(n - o.recent, n, device=top.device).expand(*top.shape[:2], -1)
        keep = torch.cat([top, tail], dim=-1)
        self.score = self.score.gather(-1, keep)
        index = keep[..., None].expand(-1, -1, -1, self.keys.shape[-1])
        self.keys, self.values = self.keys.gather(2, index), self.values.gather(2, index)

    def get_seq_length(self) -> int:
        """Tokens seen."""
        return self.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """The mask is made in `attend`."""
        return query_length, 0

    def get_max_length(self) -> int:
        """No maximum."""
        return -1


class Official(Cache):
    """A cache of `kept` tokens; `heavy`: h2o with `recent` newest, else the first `kept - recent` and the newest."""

    def __init__(self, model: Any, *, kept: int, recent: int, heavy: bool) -> None:
        self.kept, self.recent, self.heavy = kept, recent, heavy
        self.rotary = model.model.rotary_emb
        super().__init__(layers=[Layer(self) for _ in range(model.config.num_hidden_layers)])
        for module in model.modules():
            if hasattr(module, "layer_idx") and hasattr(module, "scaling"):
                module.official = self.layers[module.layer_idx]
        model.set_attn_implementation(NAME)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], dim=-1) * sin


def _attention(module: Any, query: Tensor, *_args: Any, scaling: float, **_kwargs: Any) -> tuple[Tensor, None]:
    return module.official.attend(query, scaling).transpose(1, 2), None


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, lambda *_args, **_kwargs: None)


def step_of(model: Any, cache: Official, ids: Tensor) -> Any:
    """Runs the model at position zero for every token, where rotation does nothing: `attend` rotates instead."""
    zero = torch.zeros_like(ids)
    return model(input_ids=ids, position_ids=zero, past_key_values=cache, use_cache=True, logits_to_keep=1)
