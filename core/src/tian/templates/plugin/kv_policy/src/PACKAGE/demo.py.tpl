"""The run `@@name@@/demo`: read a stream of random tokens under the policy, and once more without any."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tian.config.compose import options_of
from tian.hf import attach
from tian.types import Measurement

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from tian.runs.rundir import Run
    from @@package@@.demo_options import DemoOptions

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


@torch.inference_mode()
def demo(config: DictConfig, run: Run) -> list[Measurement]:
    """Count what the cache holds in the end, and compare the last logits with those of a cache without limit."""
    options: DemoOptions = options_of(config)
    policy = run.load("kv_policy", options.subject)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = LlamaForCausalLM(LlamaConfig(vocab_size=40, **SHAPE)).eval()
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(6)  # as initialised, attention hardly matters
        ids = torch.randint(0, 40, (1, options.tokens))
    exact = model(input_ids=ids, use_cache=False).logits[:, -1]
    with attach(model, kv=policy) as cache:
        for t in range(options.withheld, options.tokens):  # token by token, as in generation
            last = model(input_ids=ids[:, t : t + 1], past_key_values=cache, use_cache=True).logits[:, -1]
        kept = cache.kept()[0, 0].tolist()
    run.write_json("kept.json", kept)
    error = float((last - exact).abs().max() / exact.abs().max())
    return [
        Measurement("kept tokens", float(len(kept)), "tok", higher_is_better=False),
        Measurement("logit error", error, higher_is_better=False),
    ]
