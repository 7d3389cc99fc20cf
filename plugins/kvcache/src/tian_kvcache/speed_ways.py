"""The ways to decode that `kvcache/speed` sets side by side: slots under a policy, plain caches, running again.

They share one set of weights. Caches are filled with noise or random tokens: time does not depend on either.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from tian.errors import InvalidInput, NoDevice, RunError
from tian.hf.families import family_of
from tian.hf.host import attach, prefill
from tian.hf.loading import load_model
from tian.hf.record import RecordedStep
from tian_kvcache.speed_bound import head_size, kv_heads
from tian_kvcache.speed_timing import Timed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import ExitStack

    from transformers import Cache, PreTrainedModel

    from tian.spec import KVPolicy
    from tian_kvcache.speed_bound import Cost
    from tian_kvcache.speed_options import Shape, SpeedOptions

CHUNK = 256  # tokens a piece when a slot cache is filled
CAPTURED = 3  # steps taken to capture one


def build_model(options: SpeedOptions) -> Any:
    """The model of `model.path`, or one of `shape` with random weights, in eval mode.

    Raises:
        DataError, UnsupportedModel: from loading.
        NoDevice: the device is not present.
    """
    if options.model.path is not None:
        return load_model(options.model.path, device=options.device)
    from transformers import AutoModelForCausalLM

    try:
        device = torch.device(options.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise NoDevice(
            f"the device {options.device!r} is not available: {str(error).splitlines()[0]}",
            where="device",
            hint="set device=cpu",
        ) from None
    with device:
        model = AutoModelForCausalLM.from_config(config_of(options.shape), dtype=getattr(torch, options.shape.dtype))
    return model.eval()


def config_of(shape: Shape) -> Any:
    """The config of a shape."""
    from transformers import LlamaConfig, OPTConfig

    common: dict[str, Any] = {
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.d_model,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "max_position_embeddings": shape.context,
    }
    if shape.kind == "opt":
        return OPTConfig(**common, ffn_dim=shape.ffn, word_embed_proj_dim=shape.d_model)
    return LlamaConfig(
        **common, num_key_value_heads=shape.kv_heads, intermediate_size=shape.ffn, tie_word_embeddings=False
    )


def twin(model: PreTrainedModel) -> Any:
    """Another model on the same tensors: `attach` changes one, the other stays as it is."""
    shared = {id(x): x for x in [*model.parameters(), *model.buffers()]}
    return copy.deepcopy(model, shared)


def random_ids(model: Any, batch: int, tokens: int) -> torch.Tensor:
    """`[batch, tokens]` int64."""
    return torch.randint(1, model.config.vocab_size, (batch, tokens), device=model.device)


def node_at(kv: Mapping[str, Any], capacity: int, *, model: Any) -> dict[str, Any]:
    """The node of a policy, resized to `capacity` tokens in all; positions of the stream where a model has learned ones.

    Raises:
        InvalidInput: its sinks alone are more.
    """
    node = dict(kv)
    if "budget" in node:
        node["budget"] = capacity
    elif "recent" in node:
        node["recent"] = capacity - int(node.get("sinks", 0))
        if node["recent"] < 1:
            raise InvalidInput(f"{node['sinks']} sinks leave nothing of {capacity} tokens", where="kv.sinks")
    if "positions" in node and family_of(model).positions == "learned":
        node["positions"] = "original"
    return node


def slot_way(
    label: str,
    model: Any,
    policy: KVPolicy,
    cost: Cost,
    *,
    batch: int,
    tokens: int,
    steps: int,
    stack: ExitStack,
    record: bool = False,
) -> Timed:
    """A decoding step under `policy` in its steady state.

    Args:
        label: of the way.
        model: a twin of it is attached until `stack` closes.
        policy: bounded ones are filled to capacity and evict in every step.
        cost: of the model.
        batch: rows.
        tokens: read before the first step, at random.
        steps: steps a turn.
        stack: see `model`.
        record: run the step as one recording.

    Raises:
        InvalidInput: the step cannot be recorded, see `RecordedStep`.
    """
    host = twin(model)
    # Attached before inference mode begins: what `attach` puts back when the stack closes is what it found.
    cache = stack.enter_context(attach(host, kv=policy))
    with torch.inference_mode():
        prefill(host, random_ids(model, batch, tokens), cache, chunk=CHUNK)
    kept = cache.kept(0).shape[-1]
    bytes_ = cache.nbytes()
    way = decoding(label, host, cache, cost, batch=batch, length=kept, steps=steps, cache_bytes=bytes_)
    if record:
        with torch.inference_mode():
            step = RecordedStep(host, cache)
        ids = random_ids(model, batch, 1)
        way.step = lambda: step(ids)
    return way


@torch.inference_mode()
def captured(way: Timed) -> Timed:
    """The way with its step as a CUDA graph, which does the same work on the same tensors at every replay.

    Raises:
        RunError: the step cannot be captured.
    """
    try:
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries allocate their workspaces in the first runs
            for _ in range(CAPTURED - 1):
                way.step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            way.step()
    except RuntimeError as error:
        raise RunError(
            f"the step of {way.label!r} cannot be captured as a CUDA graph: {str(error).splitlines()[0]}",
            where="recorded",
            hint="set recorded=false, then Python runs the steps",
        ) from error
    return replace(way, step=graph.replay)


def decoding(
    label: str, host: Any, cache: Cache, cost: Cost, *, batch: int, length: int, steps: int, cache_bytes: int
) -> Timed:
    """A decoding step of `batch` rows with `length` tokens each in `cache`."""
    ids = torch.ones(batch, 1, dtype=torch.int64, device=cost.device)
    return Timed(
        label,
        lambda: host(input_ids=ids, past_key_values=cache, use_cache=True),
        batch,
        steps,
        cost.step_bytes(batch, length),
        cost.step_flops(batch, length),
        cache_bytes,
    )


@torch.inference_mode()
def full_way(
    label: str, kind: str, model: Any, cost: Cost, *, batch: int, length: int, room: int, steps: int, host: Any = None
) -> Timed:
    """A decoding step on a full cache of transformers at `length` tokens.

    Args:
        label: of the way.
        kind: `dynamic`, what `generate` uses, concatenates at every step; `static` writes in place and attends to all
            its slots.
        model: gives shapes, dtype and device.
        cost: of the model.
        batch: rows.
        length: tokens a row.
        room: how many of these come in the steps to be timed.
        steps: steps a turn.
        host: runs the steps; None: `model`.
    """
    from transformers import DynamicCache, StaticCache

    config = model.config
    cache = DynamicCache(config=config) if kind == "dynamic" else StaticCache(config=config, max_cache_len=length)
    shape = (batch, kv_heads(config), length - room, head_size(config))
    for layer in range(config.num_hidden_layers):
        keys, values = (torch.randn(shape, dtype=model.dtype, device=model.device) for _ in range(2))
        cache.update(keys, values, layer)
    bytes_ = batch * length * cost.kappa
    return decoding(label, host or model, cache, cost, batch=batch, length=length, steps=steps, cache_bytes=bytes_)


def recompute_way(model: Any, cost: Cost, *, size: int) -> Timed:
    """One token by running the last `size` tokens again: the same attention, logits of the last position only."""
    ids = random_ids(model, 1, size)
    return Timed(
        f"recompute {size}",
        lambda: model(input_ids=ids, use_cache=False, logits_to_keep=1),
        1,
        1,
        cost.weights,
        cost.prompt_flops(size),
        0,
    )
