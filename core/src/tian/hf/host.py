"""`attach`: run any supported model of transformers on a SlotCache.

The trick for rotary models: the model gets position id 0 for every token. There the rotary embedding is the identity,
so queries and keys arrive unrotated in the attention function, which rotates them to positions inside the cache.
Architectures outside the library's attention registry get another forward for the length of the context.
Source: ours; the result equals the paper's caching of keys before rotation (arXiv 2309.17453, section 3.2).
"""

from __future__ import annotations

import logging
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from tian.errors import InvalidInput, PluginError, UnsupportedModel
from tian.hf.cache import SlotCache
from tian.hf.families import FAMILIES, LAYER, SINK, SLOPES, Family, alibi_slopes, attention_modules, family_of
from tian.hf.kernels import fused_kernel
from tian.hf.rotary import NoRotary, Rotary
from tian.hf.sinks import check_sinks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from tian.hf.slots import SlotLayer
    from tian.spec import KVPolicy

NAME = "tian_slots"
SUPPORTED = tuple(sorted(FAMILIES))
SCORES = frozenset({"colsum", "last_row", "window_sum"})
_log = logging.getLogger("tian")


def _attention(
    module: nn.Module, query: Tensor, _key: Tensor, _value: Tensor, _mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    layer: SlotLayer = getattr(module, LAYER)
    sink = getattr(module, SINK, None)
    out = layer.attend(query, scale=kwargs["scaling"], window=kwargs.get("sliding_window"), sink=sink)
    return out.transpose(1, 2), None


def _no_mask(*_args: Any, **_kwargs: Any) -> None:
    """Visibility follows from ranks, inside the attention function."""


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, _no_mask)


def _check_policy(policy: KVPolicy, model: Any, family: Family) -> None:
    unknown = set(policy.needs) - SCORES
    if unknown or len(policy.needs) > 1:
        raise PluginError(
            f"kv policy {type(policy).__name__} needs the scores {sorted(policy.needs)}; the host has {sorted(SCORES)}, "
            "one at a time",
            where="kv",
            hint="choose another policy",
        )
    n_layers = model.config.num_hidden_layers
    longest = getattr(model.config, "max_position_embeddings", getattr(model.config, "max_seq_len", None))
    try:
        capacities = [policy.capacity(i, n_layers, None) for i in range(n_layers)]
    except InvalidInput:  # a share of the prompt, which is not known yet
        return
    largest = max((c for c in capacities if c is not None), default=0)
    if family.positions == "learned":
        if policy.positions == "in_cache" and any(c is not None for c in capacities):
            raise UnsupportedModel(
                f"kv policy {type(policy).__name__} keeps positions inside the cache, and {type(model).__name__} has "
                f"learned positions (table of {longest})",
                where="kv",
                hint=f"set kv.positions=original (runs to {longest} tokens), or use a model with rotary or ALiBi positions",
            )
    elif longest is not None and policy.positions == "in_cache" and largest >= longest:
        if family.positions == "rotary" and largest > longest:
            raise InvalidInput(
                f"the cache holds {largest} tokens, and the model was trained on {longest}: positions inside the cache "
                "would pass what it knows",
                where="kv",
                hint=f"keep at most {longest - 1} tokens; one more is for the query",
            )
        _log.warning("the cache holds %d tokens beside the query: beyond the training length %d", largest, longest)


@contextmanager
def attach(model: Any, *, kv: KVPolicy, kernel: str = "auto") -> Iterator[SlotCache]:
    """Make `model` keep its keys and values under `kv` for the length of the context. Gradients are off in it.

    Prompts may be padded on the left; beams and `crop` are supported. The decode step runs in the fused kernel of
    tian-kernels where that is possible (see `tian.hf.kernels`), else in torch.

    Args:
        model: a causal LM of transformers, in eval mode; one of `SUPPORTED`.
        kv: the policy, e.g. `tian.load("kv_policy", "streaming", sinks=4, recent=252)`.
        kernel: `auto` (triton whenever the model is on a CUDA device), `triton` or `torch`.

    Yields:
        An empty `SlotCache`. Pass it as `past_key_values`, to the model or to `generate()`.

    Raises:
        UnsupportedModel: see `family_of` and `check_sinks`; or the policy moves positions, which the model's are not made for.
        InvalidInput: the model is in training mode or already attached, or the cache is larger than what its rotary
            positions were trained for; later, in the forward: the cache was not
            passed, the batch is padded on the right, attention weights were asked for, or learned positions ran out.
        MissingDependency: kernel=triton without tian-kernels.
        PluginError: the policy needs a score the host does not have.

    Example:
        with attach(model, kv=policy) as cache:
            model.generate(ids, past_key_values=cache, max_new_tokens=100_000)
    """
    family = family_of(model)
    check_sinks(model)
    _check_policy(kv, model, family)
    base = getattr(model.base_model, "decoder", model.base_model)  # OPT's head calls the decoder, not the base model
    modules = attention_modules(model)
    if any(hasattr(m, LAYER) for m in modules.values()):
        raise InvalidInput("the model is already attached to a cache", hint="leave the first attach() context first")
    reference = next(base.parameters())
    rotary: Rotary = NoRotary()
    if family.positions == "rotary":
        rotary = Rotary(base.rotary_emb, dtype=reference.dtype, device=reference.device)
    fused = fused_kernel(kernel, reference.device)
    cache = SlotCache(kv, model.config.num_hidden_layers, rotary, fused=fused)
    slopes = alibi_slopes(model).to(reference.device) if family.positions == "alibi" else None

    def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        _check_call(model, cache, kwargs)
        ids = kwargs.get("inputs_embeds")
        ids = ids if ids is not None else kwargs.get("input_ids", args[0] if args else None)
        if ids is None:
            raise InvalidInput("the model was called without input_ids or inputs_embeds")
        if cache.get_seq_length() == 0:
            cache.set_padding(_left_padding(kwargs.get("attention_mask")))
        if family.positions == "rotary":
            kwargs["position_ids"] = torch.zeros(ids.shape[:2], dtype=torch.int64, device=ids.device)
        elif family.positions == "learned":
            kwargs["position_ids"] = _learned_positions(model, cache, ids)
        # Visibility follows from ranks and padding; but models with a bias size it by this mask.
        kwargs["attention_mask"] = None if slopes is None else torch.ones(ids.shape[:2], device=ids.device)
        return args, kwargs

    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())  # else every step would hang on to all steps before it
        stack.callback(base.register_forward_pre_hook(before, with_kwargs=True).remove)
        for index, module in modules.items():
            setattr(module, LAYER, cache.layers[index])
            setattr(module, SLOPES, slopes)
            stack.callback(partial(_detach, module))
            if family.attention is not None:
                module.forward = partial(family.attention, module)
        if family.attention is None:
            stack.callback(model.set_attn_implementation, model.config._attn_implementation)
            model.set_attn_implementation(NAME)
        yield cache


def _detach(module: Any) -> None:
    for name in (LAYER, SLOPES, "forward"):
        module.__dict__.pop(name, None)


def _left_padding(mask: Tensor | None) -> Tensor | None:
    """`[B]` int64 padding tokens in front of each row, None when there are none.

    Raises:
        InvalidInput: a row is padded on the right, has a hole, or is all padding.
    """
    if mask is None or mask.dim() != 2 or bool(mask.all()):
        return None
    mask = mask.bool()
    pads = mask.shape[1] - mask.sum(dim=1)
    if not bool((mask == (torch.arange(mask.shape[1], device=mask.device) >= pads[:, None])).all()):
        raise InvalidInput(
            "a row of the batch is padded on the right or has a hole in its attention_mask",
            where="attention_mask",
            hint="pad on the left: tokenizer.padding_side='left'",
        )
    if bool((pads == mask.shape[1]).any()):
        raise InvalidInput("a row of the batch is all padding", where="attention_mask", hint="leave empty prompts out")
    return pads


def _learned_positions(model: Any, cache: SlotCache, ids: Tensor) -> Tensor:
    """Position ids `[B, m]` of the next m tokens, each row counted from its own first token.

    Raises:
        InvalidInput: beyond the table.
    """
    start, m = cache.get_seq_length(), ids.shape[1]
    longest = model.config.max_position_embeddings
    if start + m > longest:
        raise InvalidInput(
            f"the model has {longest} learned positions, and token {start + m} is asked for",
            where="model",
            hint=f"read at most {longest} tokens, or use a model with rotary or ALiBi positions",
        )
    where = torch.arange(start, start + m, device=ids.device).expand(ids.shape[0], m)
    return where if cache.pads is None else (where - cache.pads[:, None]).clamp_min(0)


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


def prefill(model: Any, ids: Tensor, cache: SlotCache, *, chunk: int, stepwise: bool = False) -> Tensor:
    """Feed a long prompt piece by piece: the memory of attention is bounded by capacity + chunk.

    Each piece attends to what is kept and to itself in full, then the policy evicts; so the kept tokens and the outputs
    are those of a stream read in such pieces.

    Args:
        model: attached.
        ids: `[B, T]` int64, without padding.
        cache: what `attach` yielded.
        chunk: tokens a piece, >= 1.
        stepwise: each token sees what it would have seen had all come one by one; for contiguous policies, whose
            result then does not depend on `chunk`.

    Returns:
        Logits of the last token, `[B, V]`.

    Raises:
        InvalidInput: chunk below 1 or an empty prompt; stepwise for a policy that is not contiguous.
    """
    if chunk < 1 or ids.shape[1] < 1:
        raise InvalidInput(f"need chunk >= 1 and at least one token, got {chunk} and {ids.shape[1]}")
    cache.set_stepwise(stepwise)
    try:
        for start in range(0, ids.shape[1], chunk):
            piece = ids[:, start : start + chunk]
            out = model(input_ids=piece, past_key_values=cache, use_cache=True, logits_to_keep=1)
    finally:
        cache.set_stepwise(False)
    logits: Tensor = out.logits[:, -1]
    return logits
