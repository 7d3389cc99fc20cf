"""The small language model: a Llama of transformers with the initialisation of a measured recipe, and its batches."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tian.hf.sinks import add_sinks

if TYPE_CHECKING:
    from torch import Tensor

    from tian.hf.options import LMOptions

COPY_MIN, COPY_MAX = 8, 63  # length of a copied segment, tokens


def build_lm(options: LMOptions, *, vocab_size: int, bos_id: int | None, seed: int) -> LlamaForCausalLM:
    """A freshly initialised model.

    Embeddings are tied with std 0.02; matrices have std 1/sqrt(fan_in), the two projections that write to the
    residual stream are divided by sqrt(2 * layers) as well. Source: ours (measured recipe). Models that differ in
    `first` or `sink` only begin with the same weights; a sink begins with logit 0.
    """
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=options.d_model,
        intermediate_size=options.ffn,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        num_key_value_heads=options.kv_heads,
        max_position_embeddings=options.context,
        tie_word_embeddings=True,
        bos_token_id=bos_id,
        eos_token_id=None,
        pad_token_id=None,
        dtype="float32",
    )
    model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() < 2:
                continue
            std = 0.02 if "embed" in name else 1 / math.sqrt(p.shape[1])
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                std /= math.sqrt(2 * options.layers)
            p.normal_(0.0, std, generator=generator)
    if options.sink != "none":
        add_sinks(model, options.sink)
    return model


def copy_segments(ids: Tensor, *, share: float, generator: torch.Generator) -> Tensor:
    """Overwrite, in a share of the rows, a segment by an earlier one of the same row.

    Args:
        ids: `[B, T]` int64; column 0 (the first token) is never source or target.
        share: probability of a row being changed.
        generator: source of randomness.

    Returns:
        `[B, T]` int64, a new tensor.
    """
    out = ids.clone()
    length = ids.shape[1]
    longest = min(COPY_MAX, (length - 1) // 2)
    if longest < COPY_MIN or share == 0:
        return out
    for row in range(ids.shape[0]):
        u = torch.rand(4, generator=generator).tolist()
        if u[0] >= share:
            continue
        n = COPY_MIN + int(u[1] * (longest - COPY_MIN + 1))
        source = 1 + int(u[2] * (length - 2 * n))
        target = source + n + int(u[3] * (length - n - (source + n) + 1))
        out[row, target : target + n] = out[row, source : source + n]
    return out


def training_batch(
    stream: Tensor, step: int, *, batch: int, context: int, bos_id: int | None, copy_share: float, seed: int
) -> dict[str, Tensor]:
    """Batch `step`: windows at random places of the token stream, each behind the dedicated first token if there is one.

    Without it the token of the text that comes before the window takes its column, so that both kinds of model learn
    from the same targets in the same order.

    Args:
        stream: `[N]` int64 token ids without first tokens.
        step: number of the batch; with `seed` it fixes the batch completely.
        batch: rows.
        context: columns, the first token included.
        bos_id: id of the dedicated first token, or None.
        copy_share: see `copy_segments`.
        seed: of the run.

    Returns:
        `input_ids` and `labels`, both `[batch, context]` int64.
    """
    # The CPU generator looks at the low 32 bits only; the odd factor keeps the steps of different seeds apart.
    generator = torch.Generator().manual_seed((seed * 0x9E3779B1 + step) % 2**32)
    starts = torch.randint(0, stream.numel() - context + 2, (batch,), generator=generator)
    body = stream[starts[:, None] + torch.arange(context - 1)]
    # Before the window at the very start comes, as in a ring, the last token of the text.
    first = stream[starts[:, None] - 1] if bos_id is None else torch.full((batch, 1), bos_id)
    ids = torch.cat([first, body], dim=1)
    ids = copy_segments(ids, share=copy_share, generator=generator)
    return {"input_ids": ids, "labels": ids}
