"""Recipe `lm/train`: text -> byte-level BPE -> small Llama -> a Hugging Face folder anyone can load."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import OmegaConf
from transformers.utils.logging import disable_progress_bar

from tian.config.compose import options_of
from tian.errors import DataError, InvalidInput
from tian.hf.corpus import Text, read_text
from tian.hf.evaluate import held_out_loss
from tian.hf.small_lm import build_lm, training_batch
from tian.hf.token_cache import cached
from tian.hf.tokenizer import train_tokenizer, without_first
from tian.training.fit import fit
from tian.training.loader import StepLoader
from tian.training.loggers import check_loggers
from tian.training.module import TianModule
from tian.types import Measurement

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from transformers import PreTrainedTokenizerFast

    from tian.hf.options import TrainOptions
    from tian.runs.rundir import Run

CHUNK = 20_000  # characters in a piece of text for the tokenizer
PIECES = 512  # pieces it gets at a time


def _spread(text: str, budget_bytes: int) -> list[str]:
    """Chunks spread evenly over the text, about `budget_bytes` in all."""
    chunks = [text[i : i + CHUNK] for i in range(0, len(text), CHUNK)]
    keep = max(1, min(len(chunks), budget_bytes // CHUNK))
    return [chunks[i * len(chunks) // keep] for i in range(keep)]


def encode_pieces(tokenizer: PreTrainedTokenizerFast, text: str) -> torch.Tensor:
    """`[N]` int64 ids of the text without first tokens, encoded in pieces: memory stays bounded and both cores work."""
    found = [torch.empty(0, dtype=torch.int64)]
    for start in range(0, len(text), CHUNK * PIECES):
        part = text[start : start + CHUNK * PIECES]
        pieces = [part[i : i + CHUNK] for i in range(0, len(part), CHUNK)]
        encoded = tokenizer(
            pieces, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
        )["input_ids"]
        found += [torch.tensor(ids, dtype=torch.int64) for ids in encoded]
    return torch.cat(found)


def file_sha256(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass(frozen=True)
class Prepared:
    """What the trainings of one run share.

    Attributes:
        text: to learn from.
        held_out: to be scored on.
        tokenizer: learned from `text`; puts the first token in front.
        stream: `[N]` int64 ids of `text`, without first tokens.
    """

    text: Text
    held_out: Text
    tokenizer: PreTrainedTokenizerFast
    stream: torch.Tensor


def prepare(options: TrainOptions, run: Run) -> Prepared:
    """Read the texts and learn the tokenizer; the same result whenever it is called again.

    Raises:
        DataError: no text, or less of it than two training samples.
        InvalidInput: more than one device. MissingDependency: a logger's package is not installed.
    """
    check_loggers(options.trainer.loggers)
    if options.trainer.devices > 1:  # further processes would start this command again and find the directory taken
        raise InvalidInput(
            f"{run.config.recipe} runs in one process, got trainer.devices={options.trainer.devices}",
            where="trainer.devices",
            hint="set trainer.devices=1, or call tian.training.fit.fit from a script of your own (docs/training.md)",
        )
    torch.set_num_threads(options.threads)
    text, held_out = read_text(options.text), read_text(options.held_out)
    run.info(f"text: {text.label}, {len(text.text) / 1e6:.1f} M characters")
    tokenizer = train_tokenizer(_spread(text.text, options.tokenizer_bytes), vocab_size=options.lm.vocab_size)
    stream = cached(
        tokenizer, text.text, f"{text.sha256} in pieces of {CHUNK}", lambda: encode_pieces(tokenizer, text.text)
    )
    if stream.numel() < 2 * options.lm.context:
        raise DataError(
            f"the training text has {stream.numel()} tokens, less than two samples of {options.lm.context}",
            where="text",
            hint="give more text or set a smaller lm.context",
        )
    return Prepared(text, held_out, tokenizer, stream)


def train_folder(
    options: TrainOptions,
    data: Prepared,
    *,
    run: Run,
    folder: Path,
    part: str = "",
    module: Callable[..., TianModule] = TianModule,
) -> tuple[Any, torch.Tensor]:
    """Train one model and save it; a training that was stopped goes on from its checkpoint.

    Args:
        options: of the training; `lm.first` and `lm.sink` say which kind of model.
        data: from `prepare`.
        run: receives rows and checkpoints; its config gives the seed.
        folder: of the result, inside the run directory: config.json, model.safetensors (float32), the tokenizer, and, last, card.json.
        part: names the training when a run has several.
        module: makes the LightningModule; one that has more metrics goes here.

    Returns:
        The model, on the CPU, and the negative log-likelihood of each held-out token, `[n]` float32, nats.

    Raises:
        NanError: the loss diverged.
    """
    seed, context = int(run.config.seed), options.lm.context
    tokenizer = data.tokenizer if options.lm.first == "token" else without_first(data.tokenizer)
    bos = None if tokenizer.bos_token_id is None else int(tokenizer.bos_token_id)
    model = build_lm(options.lm, vocab_size=len(tokenizer), bos_id=bos, seed=seed)
    loader = StepLoader(
        lambda step: training_batch(
            data.stream,
            step,
            batch=options.batch,
            context=context,
            bos_id=bos,
            copy_share=options.copy_share,
            seed=seed,
        ),
        steps=options.trainer.max_steps,
    )
    trained = module(model, optim=options.optim, steps=options.trainer.max_steps)
    fit(trained, loader, options.trainer, run=run, seed=seed, part=part)
    model.eval().to("cpu")
    loss = held_out_loss(model, tokenizer, data.held_out.text, context=context, tokens=options.eval_tokens)
    disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    made = card(options, data, loss, run=run, folder=folder)
    name = (folder / "card.json").relative_to(run.path).as_posix()
    run.write_json(name, {**made, "loss_curve": loss_curve(run, part)})
    return model, loss


def train(cfg: Any, run: Run) -> list[Measurement]:
    """Train, save `model/` in the run directory and score it on the held-out text.

    The folder holds config.json, model.safetensors (float32), the tokenizer, and card.json: data hashes, the recipe
    and the perplexity, which the tests of the shipped model compare with.

    Raises:
        DataError, InvalidInput, MissingDependency: see `prepare`. NanError: the loss diverged.
    """
    options: TrainOptions = options_of(cfg)
    model, loss = train_folder(options, prepare(options, run), run=run, folder=run.path / "model")
    n, mean, half = int(loss.numel()), float(loss.mean()), 1.96 * float(loss.std()) / loss.numel() ** 0.5
    interval = (math.exp(mean - half), math.exp(mean + half))
    return [
        Measurement("held-out perplexity", math.exp(mean), "1", n, interval, higher_is_better=False),
        Measurement("parameters", float(sum(p.numel() for p in model.parameters())), "1"),
        Measurement("training tokens", float(options.trainer.max_steps * options.batch * options.lm.context), "tok"),
    ]


def loss_curve(run: Run, part: str = "") -> list[list[float]]:
    """`[step, training loss in nats per token]` rows of a training, one a step even after a resume."""
    rows = {r["step"]: r["loss"] for r in run.metrics_rows() if "loss" in r and r.get("part", "") == part}
    return [list(row) for row in sorted(rows.items())]


def card(options: TrainOptions, data: Prepared, loss: torch.Tensor, *, run: Run, folder: Path) -> dict[str, Any]:
    """What must be known of a trained folder: recipe, data, hash and perplexity."""
    recipe: Any = OmegaConf.to_container(run.config)
    for name in ("strategy", "loggers"):  # in one process neither has a part in the weights
        recipe["trainer"].pop(name, None)
    recipe["trainer"]["compile"] = options.trainer.compile
    recipe["lm"] |= {"first": options.lm.first, "sink": options.lm.sink}
    for group, name, usual in (("lm", "first", "token"), ("lm", "sink", "none"), ("trainer", "compile", False)):
        if recipe[group][name] == usual:  # needs no word
            del recipe[group][name]
    return {
        "recipe": recipe,
        "text": {"label": data.text.label, "sha256": data.text.sha256, "tokens": data.stream.numel()},
        "held_out": {"label": data.held_out.label, "sha256": data.held_out.sha256},
        "held_out_perplexity": float(loss.mean().exp()),
        "held_out_tokens": int(loss.numel()),
        "weights_sha256": file_sha256(folder / "model.safetensors"),
    }
