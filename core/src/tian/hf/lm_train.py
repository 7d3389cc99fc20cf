"""Recipe `lm/train`: text -> byte-level BPE -> small Llama -> a Hugging Face folder anyone can load."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import OmegaConf
from transformers.utils.logging import disable_progress_bar

from tian.config.compose import options_of
from tian.errors import DataError, InvalidInput
from tian.hf.corpus import Text, read_text
from tian.hf.evaluate import held_out_loss
from tian.hf.small_lm import build_lm, training_batch
from tian.hf.tokenizer import train_tokenizer
from tian.training.fit import fit
from tian.training.loader import StepLoader
from tian.training.loggers import check_loggers
from tian.training.module import TianModule
from tian.types import Measurement

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerFast

    from tian.hf.options import TrainOptions
    from tian.runs.rundir import Run

CHUNK = 20_000  # characters handed to the tokenizer at a time


def _spread(text: str, budget_bytes: int) -> list[str]:
    """Chunks spread evenly over the text, about `budget_bytes` in all."""
    chunks = [text[i : i + CHUNK] for i in range(0, len(text), CHUNK)]
    keep = max(1, min(len(chunks), budget_bytes // CHUNK))
    return [chunks[i * len(chunks) // keep] for i in range(keep)]


def encode_pieces(tokenizer: PreTrainedTokenizerFast, text: str) -> torch.Tensor:
    """`[N]` int64 ids of the text without first tokens, encoded in pieces: memory stays bounded and both cores work."""
    pieces = [text[i : i + CHUNK] for i in range(0, len(text), CHUNK)]
    encoded = tokenizer(pieces, add_special_tokens=False)["input_ids"]
    return torch.tensor([t for ids in encoded for t in ids], dtype=torch.int64)


def file_sha256(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def train(cfg: Any, run: Run) -> list[Measurement]:
    """Train, save `model/` in the run directory and score it on the held-out text.

    The folder holds config.json, model.safetensors (float32), the tokenizer, and card.json: data hashes, the recipe
    and the perplexity, which the tests of the shipped model compare with.

    Raises:
        DataError: no text, or less of it than one training sample.
        InvalidInput: more than one device. MissingDependency: a logger's package is not installed.
        NanError: the loss diverged.
    """
    options: TrainOptions = options_of(cfg)
    check_loggers(options.trainer.loggers)
    if options.trainer.devices > 1:  # further processes would start this command again and find the directory taken
        raise InvalidInput(
            f"lm/train runs in one process, got trainer.devices={options.trainer.devices}",
            where="trainer.devices",
            hint="set trainer.devices=1, or call tian.training.fit.fit from a script of your own (docs/training.md)",
        )
    torch.set_num_threads(options.threads)
    text, held_out = read_text(options.text), read_text(options.held_out)
    run.info(f"text: {text.label}, {len(text.text) / 1e6:.1f} M characters")
    tokenizer = train_tokenizer(_spread(text.text, options.tokenizer_bytes), vocab_size=options.lm.vocab_size)
    stream = encode_pieces(tokenizer, text.text)
    if stream.numel() < 2 * options.lm.context:
        raise DataError(
            f"the training text has {stream.numel()} tokens, less than two samples of {options.lm.context}",
            where="text",
            hint="give more text or set a smaller lm.context",
        )
    seed = int(cfg.seed)
    bos = int(tokenizer.bos_token_id)
    model = build_lm(options.lm, vocab_size=len(tokenizer), bos_id=bos, seed=seed)
    loader = StepLoader(
        lambda step: training_batch(
            stream,
            step,
            batch=options.batch,
            context=options.lm.context,
            bos_id=bos,
            copy_share=options.copy_share,
            seed=seed,
        ),
        steps=options.trainer.max_steps,
    )
    fit(
        TianModule(model, optim=options.optim, steps=options.trainer.max_steps),
        loader,
        options.trainer,
        run=run,
        seed=seed,
    )
    model.eval().to("cpu")
    loss = held_out_loss(model, tokenizer, held_out.text, context=options.lm.context, tokens=options.eval_tokens)
    folder = run.path / "model"
    disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    run.write_json(
        "model/card.json", {**card(cfg, text, held_out, loss, stream.numel(), folder), "loss_curve": loss_curve(run)}
    )
    n = int(loss.numel())
    mean, half = float(loss.mean()), 1.96 * float(loss.std()) / n**0.5
    interval = (float(torch.tensor(mean - half).exp()), float(torch.tensor(mean + half).exp()))
    params = sum(p.numel() for p in model.parameters())
    return [
        Measurement("held-out perplexity", float(torch.tensor(mean).exp()), "1", n, interval, higher_is_better=False),
        Measurement("parameters", float(params), "1"),
        Measurement("training tokens", float(options.trainer.max_steps * options.batch * options.lm.context), "tok"),
    ]


def loss_curve(run: Run) -> list[list[float]]:
    """`[step, training loss in nats per token]` rows of the run, one a step even after a resume."""
    return [list(row) for row in sorted({r["step"]: r["loss"] for r in run.metrics_rows() if "loss" in r}.items())]


def card(cfg: Any, text: Text, held_out: Text, loss: torch.Tensor, tokens: int, folder: Path) -> dict[str, Any]:
    """What must be known of a trained folder: recipe, data, hash and perplexity."""
    recipe: Any = OmegaConf.to_container(cfg)
    for name in ("strategy", "loggers"):  # in one process neither has a part in the weights
        recipe["trainer"].pop(name, None)
    return {
        "recipe": recipe,
        "text": {"label": text.label, "sha256": text.sha256, "tokens": tokens},
        "held_out": {"label": held_out.label, "sha256": held_out.sha256},
        "held_out_perplexity": float(loss.mean().exp()),
        "held_out_tokens": int(loss.numel()),
        "weights_sha256": file_sha256(folder / "model.safetensors"),
    }
