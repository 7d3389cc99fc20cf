"""One decode step of an attached model, recorded once and replayed: no Python runs between its kernels.

On a CUDA device the recording is a CUDA graph. Elsewhere it is the traced program, which can be compiled; there it also
proves what a graph needs: that a step reads nothing back and that one program serves every step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tian.errors import InvalidInput
from tian.hf.families import family_of
from tian.hf.slots import TENSORS

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from tian.hf.cache import SlotCache


class RecordedStep:
    """Call it with the next token of each row, `[B, 1]` int64; it returns logits `[B, V]` and moves the cache on.

    The cache may be read, saved and fed chunks in between. Logits are overwritten by the next call on a CUDA device.

    Args:
        model: attached; its positions must not be learned ones (they are looked up outside the step).
        cache: what `attach` yielded, holding a prompt of at least one token and all sinks of the policy.
        compile: have the traced program compiled (CPU: about a minute, then roughly twice as fast on a small model).

    Raises:
        InvalidInput: the cache is empty, unbounded, or the model's positions are learned.

    Example:
        with attach(model, kv=policy) as cache:
            token = model(input_ids=ids, past_key_values=cache).logits[:, -1:].argmax(-1)
            step = RecordedStep(model, cache)
            for _ in range(1000):
                token = step(token).argmax(-1, keepdim=True)
    """

    def __init__(self, model: Any, cache: SlotCache, *, compile: bool = False) -> None:
        self._check(model, cache)
        self._model, self._cache = model, cache
        first = cache.layers[0]
        self._ids = torch.zeros(first.keys.shape[0], 1, dtype=torch.int64, device=first.keys.device)
        self._names = [(i, n) for i, la in enumerate(cache.layers) for n in TENSORS if getattr(la, n) is not None]
        for layer in cache.layers:
            layer.rotary.table(layer.keys.shape[2])  # may not grow later
            layer.static = True
        try:
            cuda = first.keys.device.type == "cuda"
            self._run: Callable[[], Tensor] = self._graph() if cuda else self._trace(compile)
        finally:
            for layer in cache.layers:
                layer.static = False

    @staticmethod
    def _check(model: Any, cache: SlotCache) -> None:
        if not cache.layers[0].is_initialized or not cache.layers[0].count:
            raise InvalidInput("a step is recorded on a cache that holds a prompt; this one is empty")
        if any(layer.capacity is None for layer in cache.layers):
            raise InvalidInput(
                "an unbounded cache changes its shape with every token and cannot be recorded",
                where="kv",
                hint="choose a policy with a budget, e.g. kv=streaming",
            )
        if any(layer.count < layer.sinks for layer in cache.layers):
            raise InvalidInput("the prompt is shorter than the policy's sinks", hint="feed a longer prompt first")
        if family_of(model).positions == "learned":
            raise InvalidInput("learned positions are looked up outside the step, so it cannot be recorded")

    def __call__(self, ids: Tensor) -> Tensor:
        """Logits `[B, V]` after the tokens `ids [B, 1]`."""
        if ids.shape != self._ids.shape:
            raise InvalidInput(f"the step was recorded for ids {list(self._ids.shape)}, got {list(ids.shape)}")
        self._ids.copy_(ids)
        out = self._run()
        for layer in self._cache.layers:
            layer.advance()
        return out

    def _state(self) -> list[Tensor]:
        return [getattr(self._cache.layers[i], name) for i, name in self._names]

    def _put(self, state: list[Tensor]) -> None:
        for (i, name), x in zip(self._names, state, strict=True):
            setattr(self._cache.layers[i], name, x)

    def _forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self._model(input_ids=ids, past_key_values=self._cache, use_cache=True).logits[:, -1]
        return logits

    def _trace(self, compile: bool) -> Callable[[], Tensor]:  # noqa: FBT001 - passed on
        from torch.fx.experimental.proxy_tensor import make_fx

        def pure(state: list[Tensor], ids: Tensor) -> Tensor:
            self._put(state)
            return self._forward(ids)

        own = self._state()
        try:
            program: Any = make_fx(torch.func.functionalize(pure, remove="mutations"))(
                [x.clone() for x in own], self._ids
            )
        finally:
            self._put(own)
        if compile:
            program = torch.compile(program, fullgraph=True, dynamic=False)

        @torch.no_grad()
        def run() -> Tensor:
            logits: Tensor = program(self._state(), self._ids)
            return logits

        return run

    def _graph(self) -> Callable[[], Tensor]:
        recorded = self._state()
        before = [x.clone() for x in recorded]
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries allocate their workspaces in the first run
            for _ in range(2):
                self._forward(self._ids)
        torch.cuda.current_stream().wait_stream(side)
        for x, old in zip(recorded, before, strict=True):
            x.copy_(old)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits = self._forward(self._ids)

        def run() -> Tensor:
            if any(x is not y for x, y in zip(recorded, self._state(), strict=True)):
                raise InvalidInput(
                    "the cache was given other tensors since the step was recorded (beams, or a saved state)",
                    hint="record the step again",
                )
            graph.replay()
            return logits

        return run
