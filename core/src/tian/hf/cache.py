"""SlotCache: the one cache host. It owns keys, values, ranks and scores; a KVPolicy only says what to drop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from transformers.cache_utils import Cache

from tian.errors import InvalidInput
from tian.hf.slots import TENSORS, SlotLayer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from tian.hf.kernels import Fused
    from tian.hf.rotary import Rotary
    from tian.spec import KVPolicy


class SlotCache(Cache):
    """All layers; pass it as `past_key_values` inside the `attach` context that made it."""

    layers: list[SlotLayer]

    def __init__(self, policy: KVPolicy, n_layers: int, rotary: Rotary, *, fused: Fused | None = None) -> None:
        super().__init__(layers=[SlotLayer(policy, i, n_layers, rotary, fused=fused) for i in range(n_layers)])
        self.policy = policy

    @property
    def pads(self) -> Tensor | None:
        """`[B]` int64 padding tokens in front of each row; None: there are none."""
        first = self.layers[0].pads
        return None if first is None else first[:, 0, 0]

    def set_padding(self, pads: Tensor | None) -> None:
        """Say, before the first token, how many of each row are padding. `pads [B]` int64 or None."""
        for layer in self.layers:
            layer.pads = None if pads is None else pads.view(-1, 1, 1)

    def set_stepwise(self, on: bool) -> None:  # noqa: FBT001 - a switch
        """Whether tokens of one chunk see what they would have seen one by one (contiguous policies), or all before.

        The default is the papers' prefill: a chunk is attended in full before anything is dropped.
        """
        for layer in self.layers:
            layer.stepwise = on

    def kept(self, layer: int = 0) -> Tensor:
        """Absolute indices of the tokens layer `layer` keeps, oldest first: `[B or 1, H_kv or 1, n]` int64."""
        return self.layers[layer].kept()

    def nbytes(self) -> int:
        """Allocated bytes of all layers."""
        return sum(layer.nbytes() for layer in self.layers)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything needed to continue bit-identically, as flat named tensors (safetensors can hold them)."""
        out: dict[str, Tensor] = {}
        for i, layer in enumerate(self.layers):
            if not layer.is_initialized:
                continue
            capacity = -1 if layer.capacity is None else layer.capacity
            counts = [layer.count, layer.seen, capacity, layer.prompt_len, layer.evicted, int(layer.turned)]
            out[f"{i}.counts"] = torch.tensor(counts)
            for name in TENSORS:
                x = getattr(layer, name)
                if x is not None:
                    out[f"{i}.{name}"] = x.detach().clone().contiguous()
        return out

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            InvalidInput: the state is of another number of layers, policy kind or capacity, or keeps its keys in
                another form (another version or another kernel).
        """
        self.reset()
        layers = {int(key.split(".")[0]) for key in state}
        if layers and layers != set(range(len(self.layers))):
            raise InvalidInput(f"the saved cache has layers {sorted(layers)}, the model has {len(self.layers)}")
        for i, layer in enumerate(self.layers):
            if f"{i}.counts" not in state:
                continue
            count, seen, capacity, prompt_len, evicted, turned, *_ = [*state[f"{i}.counts"].tolist(), -1, -1]
            expected = layer.policy.capacity(i, len(self.layers), prompt_len or None)
            scored = f"{i}.score" in state
            if (expected if expected is not None else -1) != capacity or scored != bool(layer.policy.needs):
                raise InvalidInput(
                    f"the saved cache has capacity {capacity} (scores: {scored}); policy "
                    f"{type(layer.policy).__name__} has capacity {expected} (scores: {bool(layer.policy.needs)})",
                    hint="restore with the policy and options the cache was saved with",
                )
            layer.count, layer.seen, layer.capacity, layer.prompt_len = count, seen, expected, prompt_len
            layer.evicted = evicted
            for name in TENSORS:
                x = state.get(f"{i}.{name}")
                setattr(layer, name, None if x is None else x.clone())
            layer.choose_storage()
            if turned != layer.turned:
                raise InvalidInput(
                    "the saved cache keeps its keys in another form: it is of another version or another kernel",
                    hint="restore with the same kernel= and version, or start again",
                )
            layer.is_initialized = True
