"""The sink inside the softmax: a logit per head that takes attention and gives nothing back.

Three different things are called sink. This file is about the last two, which are part of a model:

- kept tokens: the first tokens of a stream, real ones, that a cache policy never drops (its option `sinks`);
- SoftMax1: the same logit, 0, in every head, p_i = e^z_i / (1 + sum_j e^z_j);
- a scalar: one trained logit s for each head, p_i = e^z_i / (e^s + sum_j e^z_j).

Both equal one more key, seen by every query, whose value is zero; no cache entry is needed for it. A dedicated first
token, `lm.first=token`, is none of these: it is a token like others that stands before every text.
Source: arXiv 2309.17453, section 3.3 and table 3 (zero sink); the scalar is that of later open models.

A model with such a sink is an ordinary folder of transformers with two additions: `attention_sink` in config.json, and
for the scalar one tensor `[H]` a layer. Only `tian.hf.load_model` reads them; without them the logits are others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from tian.errors import DataError, UnsupportedModel
from tian.hf.families import SINK, attention_modules, family_of

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

NAME = "tian_sink"  # of the attention function, and of its mask function
FIELD = "attention_sink"  # of config.json
KINDS = ("softmax1", "scalar")


def attention_with_sink(
    query: Tensor, key: Tensor, value: Tensor, *, sink: Tensor, mask: Tensor, scale: float
) -> Tensor:
    """Softmax attention in which every query also sees a key of logit `sink` and value zero.

    Equal to plain attention times sigmoid(lse - sink), lse being the logarithm of the sum of the exponentials of a
    row's logits; written as one more key because the library's kernels keep lse to themselves.

    Args:
        query: `[B, H, m, D]`.
        key: `[B, H_kv, n, D]`.
        value: `[B, H_kv, n, D]`.
        sink: `[H]`, in units of the scaled logits.
        mask: float, broadcastable to `[B, H, m, n]`, added to the logits: 0 where a key is visible, a huge negative
            number where not.
        scale: factor of the logits.

    Returns:
        `[B, H, m, D]`. A query that sees no key gets zeros.
    """
    H, m, n = query.shape[1], query.shape[2], key.shape[2]
    first = sink.view(1, H, 1, 1).expand(mask.shape[0], H, m, 1)
    bias = torch.cat([first, mask.expand(mask.shape[0], H, m, n).to(first.dtype)], dim=-1)
    return scaled_dot_product_attention(
        query,
        pad(key, (0, 0, 1, 0)),
        pad(value, (0, 0, 1, 0)),
        attn_mask=bias.to(query.dtype),
        scale=scale,
        enable_gqa=True,
    )


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, scaling: float, **_rest: Any
) -> tuple[Tensor, None]:
    if mask is None:
        mask = query.new_zeros(1, 1, 1, 1)
    out = attention_with_sink(query, key, value, sink=getattr(module, SINK), mask=mask, scale=scaling)
    return out.transpose(1, 2), None


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, eager_mask)


def add_sinks(model: Any, kind: str) -> None:
    """Give every attention module a sink with logit 0, in place: fixed (`softmax1`) or trainable (`scalar`).

    Args:
        model: a causal LM of transformers whose attention goes through the library's registry.
        kind: one of `KINDS`.

    Raises:
        UnsupportedModel: the architecture computes attention by itself, or the kind is unknown.
    """
    if kind not in KINDS:
        raise UnsupportedModel(
            f"the model has attention_sink={kind!r}, which is unknown here",
            where="config.json, attention_sink",
            hint=f"known are: {', '.join(KINDS)}",
        )
    if family_of(model).attention is not None:
        raise UnsupportedModel(
            f"attention_sink={kind!r} cannot be honoured: {type(model).__name__} computes attention by itself",
            where="config.json, attention_sink",
            hint="use a Llama-type model; what is called `sinks` of a cache policy works with every model",
        )
    for module in attention_modules(model).values():
        logit = torch.zeros(model.config.num_attention_heads, device=model.device)
        if kind == "scalar":
            module.register_parameter(SINK, torch.nn.Parameter(logit))
        else:
            module.register_buffer(SINK, logit, persistent=False)
    setattr(model.config, FIELD, kind)
    model.set_attn_implementation(NAME)


def check_sinks(model: Any) -> None:
    """Refuse a model whose config names a sink that its modules lack.

    Raises:
        UnsupportedModel: it was loaded by something that leaves the sink out; its logits are not those it was trained for.
    """
    kind = getattr(model.config, FIELD, None)
    if kind and not all(hasattr(m, SINK) for m in attention_modules(model).values()):
        raise UnsupportedModel(
            f"the model was trained with attention_sink={kind!r}, and it was loaded without",
            where="config.json, attention_sink",
            hint="load it with tian.hf.load_model(folder)",
        )


def restore_sinks(model: Any, folder: Path) -> None:
    """Put the sinks that `folder` names back into a model that transformers has just loaded from it.

    Raises:
        UnsupportedModel: see `add_sinks`.
        DataError: the trained logits are not in the folder, or of another shape.
    """
    kind = getattr(model.config, FIELD, None)
    if not kind:
        return
    add_sinks(model, str(kind))
    if kind != "scalar":
        return
    wanted = {name: p for name, p in model.named_parameters() if name.endswith(f".{SINK}")}
    found = _tensors(folder, set(wanted))
    for name, parameter in wanted.items():
        if name not in found or found[name].shape != parameter.shape:
            shape = list(found[name].shape) if name in found else "no"
            raise DataError(
                f"attention_sink=scalar needs the tensor {name} of shape {list(parameter.shape)}, found {shape}",
                where=str(folder),
                hint="use the weights that were saved with this config.json",
            )
        parameter.data = found[name].to(parameter.device)


def _tensors(folder: Path, names: set[str]) -> dict[str, Tensor]:
    """Those of the tensors `names` that the folder's safetensors hold."""
    from safetensors import safe_open

    out: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(str(path), framework="pt") as file:
            out |= {name: file.get_tensor(name) for name in names & set(file.keys())}
    return out
