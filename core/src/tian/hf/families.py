"""How each architecture reaches the slot cache: through the attention registry, or by its own modules' forward.

Three kinds of positions: rotary (queries and keys arrive unrotated, see `host`), ALiBi (a bias by distance inside the
cache), and learned (added at the embedding, hence fixed: positions inside the cache are impossible).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from tian.errors import InvalidInput, UnsupportedModel
from tian.hf.rotary import LENGTH_FREE_TYPES

if TYPE_CHECKING:
    from torch import Tensor, nn

LAYER = "_tian_slot_layer"  # attribute of an attention module while attached
SLOPES = "_tian_slopes"  # its ALiBi slopes, `[H]` float32
SINK = "tian_sink"  # its sink logits, `[H]` float32, where the model was trained with any


@dataclass(frozen=True)
class Family:
    """What the host must know of an architecture.

    Attributes:
        positions: rotary, alibi or learned.
        attention: the forward that replaces the modules' own; None: the library's attention registry leads to us.
    """

    positions: Literal["rotary", "alibi", "learned"] = "rotary"
    attention: Callable[..., Any] | None = None


def _mpt(module: Any, hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, None]:
    """MptAttention on a slot layer. `hidden_states [B, m, d]`."""
    B, m, _ = hidden_states.shape
    mixed = module.Wqkv(hidden_states)
    if module.clip_qkv:
        mixed = mixed.clamp(min=-module.clip_qkv, max=module.clip_qkv)
    q, k, v = (x.view(B, m, module.n_heads, module.head_dim).transpose(1, 2) for x in mixed.chunk(3, dim=2))
    layer = getattr(module, LAYER)
    layer.update(k, v)
    out = layer.attend(q, scale=module.softmax_scale, slopes=getattr(module, SLOPES))
    return module.out_proj(out.transpose(1, 2).reshape(B, m, -1)), None


def _falcon(module: Any, hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, None]:
    """FalconAttention on a slot layer; grouped keys are kept once a group, not once a head."""
    B, m, _ = hidden_states.shape
    H, D = module.num_heads, module.head_dim
    fused = module.query_key_value(hidden_states)
    if module.new_decoder_architecture:
        groups = module.num_kv_heads
        parts = fused.view(B, m, groups, H // groups + 2, D)
        q, k, v = parts[:, :, :, :-2].reshape(B, m, H, D), parts[:, :, :, -2], parts[:, :, :, -1]
    elif module.multi_query:
        parts = fused.view(B, m, H + 2, D)
        q, k, v = parts[:, :, :-2], parts[:, :, -2:-1], parts[:, :, -1:]
    else:
        parts = fused.view(B, m, H, 3, D)
        q, k, v = parts[..., 0, :], parts[..., 1, :], parts[..., 2, :]
    layer = getattr(module, LAYER)
    layer.update(k.transpose(1, 2), v.transpose(1, 2))
    out = layer.attend(q.transpose(1, 2), scale=module.inv_norm_factor, slopes=getattr(module, SLOPES))
    return module.dense(out.transpose(1, 2).reshape(B, m, H * D)), None


_ROTARY = (
    *("gpt_neox", "granite", "llama", "mistral", "olmo2"),
    *("phi3", "qwen2", "qwen3", "stablelm", "starcoder2"),
)
FAMILIES: dict[str, Family] = {
    **{name: Family() for name in _ROTARY},
    "falcon": Family(attention=_falcon),
    "mpt": Family("alibi", _mpt),
    "opt": Family("learned"),
}


def check_name(kind: str) -> Family:
    """The family of an architecture's name (`model_type`), before any weights are read.

    Raises:
        UnsupportedModel: none.
    """
    family = FAMILIES.get(kind)
    if family is None:
        raise UnsupportedModel(
            f"the architecture {kind!r} is not supported by the slot cache",
            where="model",
            hint=f"use one of: {', '.join(sorted(FAMILIES))}",
        )
    return family


def family_of(model: Any) -> Family:
    """The model's family.

    Raises:
        UnsupportedModel: unknown architecture, or rotary angles that depend on the length.
    """
    kind = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    family = check_name(kind)
    if kind == "falcon" and model.config.alibi:
        family = Family("alibi", _falcon)
    parameters = getattr(model.config, "rope_parameters", None) or {}
    rope = parameters.get("rope_type", "default")
    if family.positions == "rotary" and rope not in LENGTH_FREE_TYPES:
        raise UnsupportedModel(
            f"rotary type {rope!r} changes its angles with the length, so keys cannot move inside a cache",
            where="model config, rope_parameters",
            hint=f"use a model with one of: {', '.join(sorted(LENGTH_FREE_TYPES))}",
        )
    return family


def check_length(model: Any, tokens: int, *, extra: int = 0, what: str, where: str, hint: str) -> None:
    """Refuse, before anything is read, what a table of learned positions cannot hold.

    Args:
        model: causal LM of transformers.
        tokens: the longest row that the configuration asks for.
        extra: how many more will be read behind it.
        what: which row that is, for the message.
        where: key of the configuration.
        hint: what shortens it; `{room}` stands for the number of tokens there is room for.

    Raises:
        InvalidInput: the model has learned positions, and fewer.
    """
    table = getattr(model.config, "max_position_embeddings", None)
    if family_of(model).positions == "learned" and table is not None and tokens + extra > table:
        raise InvalidInput(
            f"{what} has {tokens + extra} tokens, and the model has {table} learned positions",
            where=where,
            hint=f"{hint.format(room=table - extra)}, or use a model with rotary or ALiBi positions",
        )


def attention_modules(model: Any) -> dict[int, nn.Module]:
    """Layer index -> attention module."""
    own = ("scaling", "softmax_scale", "inv_norm_factor")
    return {
        m.layer_idx: m
        for m in model.base_model.modules()
        if hasattr(m, "layer_idx") and any(hasattr(m, name) for name in own)
    }


def alibi_slopes(model: Any) -> Tensor:
    """`[H]` float32: how steeply each head's bias falls with distance, from the library's own tables."""
    heads = model.config.num_attention_heads
    if model.config.model_type == "mpt":
        from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor

        newest_but_one: Tensor = build_mpt_alibi_tensor(heads, 2)[:, 0, 0]
        return -newest_but_one.float()
    from transformers.models.falcon.modeling_falcon import build_alibi_tensor

    table: Tensor = build_alibi_tensor(torch.ones(1, 2, dtype=torch.int64), heads, torch.float32).view(heads, 2)
    scale: float = float(model.config.head_dim) ** -0.5  # the library scales its bias like the logits
    return (table[:, 1] - table[:, 0]) * scale
