"""Recipe `kvcache/sink-pretraining`: train with different sinks, then read streams with few first tokens kept.

Source: arXiv 2309.17453, section 4.2 and table 3, whose shape the result has; the row with a trained scalar is ours.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tian.config.compose import options_of
from tian.errors import DataError
from tian.hf.corpus import cut_streams, encode, read_text
from tian.hf.lm_train import prepare, train_folder
from tian.hf.loading import load_model, load_tokenizer
from tian.runs.files import read_json
from tian.training.module import TianModule
from tian.types import Measurement
from tian_kvcache.arms import policy_arm
from tian_kvcache.checks import probe_first_token
from tian_kvcache.intervals import mean_interval
from tian_kvcache.reader import read
from tian_kvcache.sink_table_options import KEPT
from tian_kvcache.sink_watch import begin_with, watching
from tian_kvcache.stream import late_start

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from tian.runs.rundir import Run
    from tian_kvcache.sink_table_options import SinkTableOptions

PLAIN = "vanilla"  # the training the others are measured against


def column(kept: int, cache: int) -> str:
    """`1+31`: first tokens kept, and recent ones."""
    return f"{kept}+{cache - kept}"


def sink_pretraining(cfg: Any, run: Run) -> list[Measurement]:
    """See `SinkTableOptions`. Each model stays in `models/NAME`; trained models and read streams are not done again.

    Raises:
        DataError: a text cannot be used, or the models of `models=`. NanError: a loss diverged.
        InvalidInput, MissingDependency: see `lm/train`.
    """
    options: SinkTableOptions = options_of(cfg)
    torch.set_num_threads(options.threads)
    folders = {name: run.path / "models" / name for name in options.names}
    if options.models is not None:
        folders |= trained(Path(options.models), options.names)
    data = None if all(map(made, folders.values())) else prepare(options, run)
    for name, folder in folders.items():
        if data is not None and not made(folder):
            run.info(f"training {name}")
            train_folder(
                options.of(name),
                data,
                run=run,
                folder=folder,
                part=name,
                module=watching(name, data, options) if options.watch_every else TianModule,
            )
    held_out = read_text(options.held_out) if data is None else data.held_out
    ids = cut_streams(
        encode(shared_tokenizer(folders), held_out.text),
        first=[],
        streams=options.streams,
        tokens=options.tokens,
        seed=int(cfg.seed),
    )
    (run.path / "streams").mkdir(exist_ok=True)
    found = {}
    with run.progress(len(options.names) * len(KEPT) * (ids.shape[1] - 1), "reading") as bar:
        for name in options.names:
            bar.advance(0, f"reading: {name}")
            found[name] = measure(name, folders[name], ids, options, run, advance=bar.advance)
            run.set_status("running")
    return _report(found, options, run, held_out=held_out.label)


def made(folder: Path) -> bool:
    """Whether the training of a folder has ended: its card is written last."""
    return (folder / "card.json").is_file()


def trained(folder: Path, names: list[str]) -> dict[str, Path]:
    """Which of the trainings `names` the user's folder holds.

    Raises:
        DataError: none.
    """
    found = {name: folder / name for name in names if made(folder / name)}
    if not found:
        raise DataError(
            f"{folder} holds none of the models {', '.join(names)} (looked for NAME/card.json)",
            where="models",
            hint="give the folder models/ of an earlier run, or leave models= out",
        )
    return found


def shared_tokenizer(folders: dict[str, Path]) -> Any:
    """The tokenizer of the trainings.

    Raises:
        DataError: they have not all the same tokens.
    """
    (name, first), *others = ((n, load_tokenizer(str(folder))) for n, folder in folders.items())
    for other, tokenizer in others:
        if tokenizer.get_vocab() != first.get_vocab():
            raise DataError(
                f"the models {name} and {other} have different tokens and cannot read the same streams",
                where=str(folders[other]),
                hint="train them on the same text, with the same lm.vocab_size",
            )
    return first


def measure(
    name: str, folder: Path, ids: Tensor, options: SinkTableOptions, run: Run, *, advance: Callable[[int], None]
) -> dict[str, Any]:
    """Read the streams once a column.

    Args:
        name: of the training.
        folder: of its model.
        ids: `[S, T]` int64 streams of text.
        options: of the run.
        run: holds what was read.
        advance: told the number of finished steps.

    Returns:
        `nll`: column -> `[S, T-1]` float32, nats; `first`: a `FirstToken`; `card`: of the model.
    """
    model = load_model(str(folder))
    ids = begin_with(ids, load_tokenizer(str(folder)).bos_token_id)
    nll = {}
    for kept in KEPT:
        recent = options.cache - kept
        reading = read(
            model,
            ids,
            policy_arm({"use": "kvcache/streaming", "sinks": kept, "recent": recent}, run),
            path=run.path / "streams" / f"{name}-{kept}-{recent}.safetensors",
            save_every=30.0,
            advance=advance,
        )
        nll[column(kept, options.cache)] = reading.nll
    first = probe_first_token(model, ids, recent=options.cache - 1)
    return {"nll": nll, "first": first, "card": read_json(folder / "card.json")}


def _report(
    found: dict[str, dict[str, Any]], options: SinkTableOptions, run: Run, *, held_out: str
) -> list[Measurement]:
    """The measurements, studied training first, and `sinks.json` for the report.

    Ratios are paired by stream: `perplexity over four kept` against the column of four of the same training,
    `perplexity over the best of vanilla` against that column of the vanilla training whose perplexity is lowest.
    """
    columns = [column(kept, options.cache) for kept in KEPT]
    length = next(iter(found.values()))["nll"][columns[0]].shape[1] + 1
    start = late_start([], train_length=max(options.lm.context, options.cache + 1), length=length)
    late = {n: {c: x[:, start - 1 :].mean(dim=1) for c, x in f["nll"].items()} for n, f in found.items()}
    best = min(columns, key=lambda c: float(late[PLAIN][c].mean())) if PLAIN in late else None
    out, rows = [], {}
    for name, means in late.items():
        cells = {}
        for c in columns:
            by = {"training": name, "cache": c}
            cells[c] = _measured("perplexity", means[c], by)
            out.append(cells[c])
            out.append(_measured("perplexity over four kept", means[c] - means[columns[-1]], by))
            if best:
                out.append(_measured("perplexity over the best of vanilla", means[c] - late[PLAIN][best], by))
        first, card = found[name]["first"], found[name]["card"]
        by = {"training": name}
        out.append(
            Measurement(
                "held-out perplexity",
                card["held_out_perplexity"],
                n=card["held_out_tokens"],
                higher_is_better=False,
                by=by,
            )
        )
        mass = {"lowest": first.mass[0], "above": first.mass[first.strongest]}
        out += [
            Measurement("attention on the first token", value, by={**by, "layer": place})
            for place, value in mass.items()
        ]
        rows[name] = {
            "cells": {c: [m.value, *(m.ci95 or (m.value, m.value))] for c, m in cells.items()},
            "held_out": card["held_out_perplexity"],
            "mass": mass,
        }
    run.write_json(
        "sinks.json",
        {
            "studied": options.training,
            "columns": columns,
            "rows": rows,
            "best of vanilla": best,
            "text": found[options.training]["card"]["text"]["label"],
            "held_out": held_out,
            "streams": next(iter(late.values()))[columns[0]].numel(),
            "tokens": length,
            "start": start,
            "context": options.lm.context,
            "steps": options.trainer.max_steps,
            "training_tokens": options.trainer.max_steps * options.batch * options.lm.context,
        },
    )
    return out


def _measured(name: str, nats: Tensor, by: dict[str, str]) -> Measurement:
    """Exp of the mean over streams, and its interval. `nats [S]`."""
    mean, ci = mean_interval(nats)
    both = (math.exp(ci[0]), math.exp(ci[1])) if ci else None
    return Measurement(name, math.exp(mean), "1", nats.numel(), both, higher_is_better=False, by=by)
