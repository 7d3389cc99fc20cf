"""One side of a comparison, in a process of its own: answers `decode N` and `prefill` with CPU seconds, one JSON a line.

Run by `compare_kvpress.py` with the Python of either environment; so it imports nothing of tian unless it is that side.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

SINKS = 4


def build(shape: dict[str, Any], attention: str) -> Any:
    """A Llama with random weights, float32."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=shape["vocab_size"],
        hidden_size=shape["d_model"],
        intermediate_size=shape["ffn"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["kv_heads"],
        max_position_embeddings=shape["context"],
        tie_word_embeddings=False,
    )
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=attention).eval()


class Kvpress:
    """DecodingPress while decoding, the bare press for a prompt; positions of the stream, as kvpress has them."""

    def __init__(self, job: dict[str, Any]) -> None:
        from kvpress import DecodingPress, ObservedAttentionPress, StreamingLLMPress

        scored = job["policy"] == "h2o"
        self.model = build(job["shape"], "eager" if scored else "sdpa")
        self.job = job

        def press() -> Any:
            return ObservedAttentionPress() if scored else StreamingLLMPress(n_sink=SINKS)

        self.prompt_press = press()
        self.prompt_press.compression_ratio = 1 - job["kept"] / job["prompt"]
        self.decode_press = DecodingPress(
            press(), compression_interval=job["interval"], target_size=job["kept"], hidden_states_buffer_size=0
        )
        self.stack = contextlib.ExitStack()
        self.cache: Any = None

    def kept(self) -> int:
        """Tokens in the cache."""
        return int(self.cache.layers[0].keys.shape[2])

    def prefill(self, ids: torch.Tensor) -> None:
        """A prompt in one forward, compressed."""
        from transformers import DynamicCache

        self.cache = DynamicCache()
        with self.prompt_press(self.model):
            self.model(input_ids=ids, past_key_values=self.cache, use_cache=True, logits_to_keep=1)

    def start(self, ids: torch.Tensor) -> Callable[[], None]:
        """Fill a cache to the budget; returns the step."""
        from transformers import DynamicCache

        cache, seen = DynamicCache(), ids.shape[1]
        self.cache = cache
        self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        self.stack.enter_context(self.decode_press(self.model))
        token = ids[:, :1]

        def step() -> None:
            nonlocal seen
            self.model(
                input_ids=token,
                past_key_values=cache,
                use_cache=True,
                position_ids=torch.full((1, 1), seen),
            )
            seen += 1

        return step


class Tian:
    """The same policy on the slot cache."""

    def __init__(self, job: dict[str, Any]) -> None:
        import tian
        from tian.hf import attach

        self.model = build(job["shape"], "sdpa")
        kept, positions = job["kept"], job["positions"]
        if job["policy"] == "h2o":
            policy = tian.load("kv_policy", "h2o", heavy=kept // 2, recent=kept - kept // 2, positions=positions)
        else:
            policy = tian.load("kv_policy", "streaming", sinks=SINKS, recent=kept - SINKS, positions=positions)
        self.stack = contextlib.ExitStack()
        self.cache = self.stack.enter_context(attach(self.model, kv=policy))

    def kept(self) -> int:
        """Tokens in the cache."""
        return int(self.cache.kept(0).shape[-1])

    def prefill(self, ids: torch.Tensor) -> None:
        """A prompt in one forward, cut to the budget."""
        self.cache.reset()
        self.model(input_ids=ids, past_key_values=self.cache, use_cache=True, logits_to_keep=1)

    def start(self, ids: torch.Tensor) -> Callable[[], None]:
        """Fill a cache to the budget; returns the step."""
        self.prefill(ids)
        token = ids[:, :1]
        return lambda: self.model(input_ids=token, past_key_values=self.cache, use_cache=True)


@torch.inference_mode()
def main() -> None:
    """Read a job, then requests, from stdin."""
    torch.set_num_threads(1)
    job = json.loads(sys.stdin.readline())
    side = (Kvpress if job["side"] == "kvpress" else Tian)(job)
    generator = torch.Generator().manual_seed(1)
    vocab, rows = job["shape"]["vocab_size"], job["batch"]
    prompt = torch.randint(1, vocab, (rows, job["prompt"]), generator=generator)
    step: Callable[[], None] | None = None
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        what, _, count = line.strip().partition(" ")
        if what == "decode" and step is None:
            step = side.start(prompt[:, : job["kept"]])
            step()
        start = time.process_time()
        if what == "prefill":
            side.prefill(prompt)
        else:
            for _ in range(int(count)):
                step()  # type: ignore[misc]
        print(json.dumps({"seconds": time.process_time() - start, "kept": side.kept()}), flush=True)


if __name__ == "__main__":
    main()
