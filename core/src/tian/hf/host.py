"""`attach`: run any supported model of transformers on a SlotCache, unpatched.

The trick: the model gets position id 0 for every token. There the rotary embedding is the identity, so queries and
keys arrive unrotated in the registered attention function, which rotates them to positions inside the cache.
Source: ours; the result equals the paper's caching of keys before rotation (arXiv 2309.17453, section 3.2).
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from tian.errors import InvalidInput, PluginError, UnsupportedModel
from tian.hf.cache import SlotCache, SlotLayer
from tian.hf.rotary import LENGTH_FREE_TYPES, RotaryTable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from tian.spec import KVPolicy

NAME = "tian_slots"
SUPPORTED = ("gpt_neox", "llama", "mistral", "qwen2")
SCORES = frozenset({"colsum", "last_row"})
_LAYER = "_tian_slot_layer"  # attribute of an attention module while attached
_log = logging.getLogger("tian")


def _attention(
    module: nn.Module, query: Tensor, _key: Tensor, _value: Tensor, _mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    layer: SlotLayer = getattr(module, _LAYER)
    out = layer.attend(query, scale=kwargs["scaling"], window=kwargs.get("sliding_window"))
    return out.transpose(1, 2), None


def _no_mask(*_args: Any, **_kwargs: Any) -> None:
    """Visibility follows from ranks, inside the attention function."""


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, _no_mask)


def check_supported(model: Any) -> None:
    """Refuse what cannot be served exactly.

    Raises:
        UnsupportedModel: the architecture is not in `SUPPORTED`, or its rotary angles depend on the length.
    """
    kind = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    if kind not in SUPPORTED:
        raise UnsupportedModel(
            f"the architecture {kind!r} is not supported by the slot cache",
            where="model",
            hint=f"use one of: {', '.join(SUPPORTED)}",
        )
    parameters = getattr(model.config, "rope_parameters", None) or {}
    rope = parameters.get("rope_type", "default")
    if rope not in LENGTH_FREE_TYPES:
        raise UnsupportedModel(
            f"rotary type {rope!r} changes its angles with the length, so keys cannot move inside a cache",
            where="model config, rope_parameters",
            hint=f"use a model with one of: {', '.join(sorted(LENGTH_FREE_TYPES))}",
        )


def _check_policy(policy: KVPolicy, model: Any) -> None:
    unknown = set(policy.needs) - SCORES
    if unknown or len(policy.needs) > 1:
        raise PluginError(
            f"kv policy {type(policy).__name__} needs the scores {sorted(policy.needs)}; the host has {sorted(SCORES)}, "
            "one at a time",
            where="kv",
            hint="choose another policy",
        )
    n_layers = model.config.num_hidden_layers
    longest = getattr(model.config, "max_position_embeddings", None)
    capacities = [policy.capacity(i, n_layers, None) for i in range(n_layers)]
    largest = max((c for c in capacities if c is not None), default=0)
    if longest is not None and largest + 1 > longest:
        _log.warning(
            "the cache holds %d tokens and the query sits one further: beyond the training length %d", largest, longest
        )


@contextmanager
def attach(model: Any, *, kv: KVPolicy) -> Iterator[SlotCache]:
    """Make `model` keep its keys and values under `kv` for the length of the context.

    Args:
        model: a causal LM of transformers, in eval mode; one of `SUPPORTED`.
        kv: the policy, e.g. `tian.load("kv_policy", "streaming", sinks=4, recent=252)`.

    Yields:
        An empty `SlotCache`. Pass it as `past_key_values`, to the model or to `generate()`.

    Raises:
        UnsupportedModel: see `check_supported`.
        InvalidInput: the model is in training mode or already attached; later, in the forward: the cache was not
            passed, the batch is padded, or attention weights were asked for.
        PluginError: the policy needs a score the host does not have.

    Example:
        with attach(model, kv=policy) as cache:
            model.generate(ids, past_key_values=cache, max_new_tokens=100_000)
    """
    check_supported(model)
    _check_policy(kv, model)
    base = model.base_model
    modules = {m.layer_idx: m for m in base.modules() if hasattr(m, "layer_idx") and hasattr(m, "scaling")}
    if any(hasattr(m, _LAYER) for m in modules.values()):
        raise InvalidInput("the model is already attached to a cache", hint="leave the first attach() context first")
    reference = next(base.parameters())
    rotary = RotaryTable(base.rotary_emb, dtype=reference.dtype, device=reference.device)
    cache = SlotCache(kv, model.config.num_hidden_layers, rotary)

    def zero_positions(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        _check_call(model, cache, kwargs)
        ids = kwargs.get("inputs_embeds")
        ids = ids if ids is not None else kwargs.get("input_ids", args[0] if args else None)
        if ids is None:
            raise InvalidInput("the model was called without input_ids or inputs_embeds")
        kwargs["position_ids"] = torch.zeros(ids.shape[:2], dtype=torch.int64, device=ids.device)
        return args, kwargs

    before = model.config._attn_implementation
    hook = base.register_forward_pre_hook(zero_positions, with_kwargs=True)
    try:
        for index, module in modules.items():
            setattr(module, _LAYER, cache.layers[index])
        model.set_attn_implementation(NAME)
        yield cache
    finally:
        hook.remove()
        for module in modules.values():
            if hasattr(module, _LAYER):
                delattr(module, _LAYER)
        model.set_attn_implementation(before)


def _check_call(model: Any, cache: SlotCache, kwargs: dict[str, Any]) -> None:
    if model.training:
        raise InvalidInput("the model is in training mode; a cache is for inference", hint="call model.eval()")
    if kwargs.get("past_key_values") is not cache:
        raise InvalidInput(
            "inside attach() the model must be given the cache that attach() returned",
            hint="pass past_key_values=cache and leave use_cache on",
        )
    if kwargs.get("output_attentions"):
        raise InvalidInput("attention weights are not returned by the slot cache", hint="leave output_attentions off")
    mask = kwargs.get("attention_mask")
    if mask is not None and cache.get_seq_length() == 0 and not bool(mask.all()):
        raise InvalidInput(
            "the batch is padded: some attention_mask entries are 0",
            hint="use prompts of equal length, or one prompt at a time",
        )
