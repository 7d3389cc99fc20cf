"""Recipe `kvcache/long-stream`: one stream of millions of tokens, and proof that the cache is still right at its end.

At every doubling of the length the last hidden state is compared with that of the same model in float64 which has read
only what it may depend on: the first S tokens and the last L (C + 1), one by one, from an empty cache. Source: ours; the
claim of stable modelling to 4 million tokens is section 4.1 of arXiv 2309.17453.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from tian.config.compose import options_of
from tian.errors import DataError, InvalidInput
from tian.files import write_atomic
from tian.hf.corpus import load_streams
from tian.hf.host import attach
from tian.hf.loading import load_model, load_tokenizer
from tian.runs.signals import SafePoint
from tian.types import Measurement
from tian_kvcache.arms import policy_arm

if TYPE_CHECKING:
    from torch import Tensor

    from tian.hf.cache import SlotCache
    from tian.runs.rundir import Run
    from tian.spec import KVPolicy
    from tian_kvcache.long_stream_options import LongStreamOptions

STATE, RESULT = "long-stream.safetensors", "long-stream.json"


@dataclass
class Check:
    """What was found when the stream had `tokens` tokens.

    Attributes:
        tokens: length so far.
        error: largest absolute difference of the last hidden state from float64, over its channels.
        perplexity: over the tokens since the check before.
        cache_bytes: allocated by the cache.
        seconds: the reading took so far, checks and saves excluded.
    """

    tokens: int
    error: float
    perplexity: float
    cache_bytes: int
    seconds: float


@dataclass
class Progress:
    """How far the stream is. `nll` and `scored` count since the last check; `loss` is the sum of all before it."""

    done: int = 0
    nll: float = 0.0
    scored: int = 0
    seconds: float = 0.0
    loss: float = 0.0
    checks: list[Check] = field(default_factory=list)


def token_at(ids: Tensor, first: int, start: int, stop: int) -> Tensor:
    """`[1, stop - start]` tokens of an endless stream: `ids [T]`, then again from its token `first` on."""
    where = torch.arange(start, stop)
    again = first + (where - ids.numel()) % (ids.numel() - first)
    return ids[torch.where(where < ids.numel(), where, again)][None]


def replay(model: Any, policy: KVPolicy, head: Tensor, tail: Tensor) -> Tensor:
    """Last hidden state `[d]` of a float64 copy that reads `head [1, S]` and `tail [1, n]` one by one."""
    ids = torch.cat([head, tail], dim=1).to(model.device)
    with attach(model, kv=policy) as cache:
        for t in range(ids.shape[1]):
            out = model.base_model(input_ids=ids[:, t : t + 1], past_key_values=cache, use_cache=True)
    state: Tensor = out.last_hidden_state[0, -1]
    return state


class Reader:
    """Reads on, in chunks or single steps, and scores every token but the first."""

    def __init__(self, model: Any, cache: SlotCache, ids: Tensor, first: int) -> None:
        self.model, self.cache, self.ids, self.first = model, cache, ids, first
        self.last: Tensor | None = None  # logits `[V]` after the last token read
        self.hidden: Tensor | None = None  # its hidden state `[d]`

    def read(self, at: Progress, count: int) -> None:
        """`count` tokens in one forward."""
        began = time.perf_counter()
        piece = token_at(self.ids, self.first, at.done, at.done + count).to(self.model.device)
        hidden = self.model.base_model(input_ids=piece, past_key_values=self.cache, use_cache=True).last_hidden_state
        logits = self.model.get_output_embeddings()(hidden)[0].float()
        predicted = logits[:-1] if self.last is None else torch.cat([self.last[None], logits[:-1]])
        targets = piece[0, count - predicted.shape[0] :]
        if targets.numel():
            at.nll += float(torch.nn.functional.cross_entropy(predicted, targets, reduction="sum"))
            at.scored += targets.numel()
        self.last, self.hidden = logits[-1], hidden[0, -1]
        at.done += count
        at.seconds += time.perf_counter() - began


def _save(run: Run, at: Progress, reader: Reader) -> None:
    tensors = {f"cache.{k}": v for k, v in reader.cache.state_dict().items()}
    assert reader.last is not None  # noqa: S101 - something was read
    write_atomic(run.path / STATE, save({**tensors, "last": reader.last.contiguous()}))
    _write(run, at)


def _write(run: Run, at: Progress) -> None:
    run.write_json(RESULT, {**(run.read_json(RESULT) or {}), "at": asdict(at)})


def _restore(run: Run, reader: Reader) -> Progress:
    """Where a former session stopped; a fresh start when there is none.

    Raises:
        DataError: the saved cache is damaged.
    """
    path = run.path / STATE
    if not path.exists():
        return Progress()
    try:
        tensors = load_file(str(path))
        reader.cache.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("cache.")})
        reader.last = tensors["last"]
        found = (run.read_json(RESULT) or {})["at"]
        at = Progress(**{**found, "checks": [Check(**c) for c in found["checks"]]})
    except (SafetensorError, KeyError, OSError, TypeError) as error:
        raise DataError(
            f"the saved stream {path} is damaged: {error}",
            where=str(path),
            hint="delete this file and resume; it starts over",
        ) from None
    if at.done != reader.cache.get_seq_length():
        raise DataError(
            f"the saved stream is at token {at.done}, its cache at {reader.cache.get_seq_length()}",
            where=str(path),
            hint="delete this file and resume; it starts over",
        )
    return at


@torch.inference_mode()
def long_stream(cfg: Any, run: Run) -> list[Measurement]:
    """See `LongStreamOptions`. Interrupted anywhere, it goes on from the saved cache.

    Raises:
        InvalidInput: the policy is not contiguous, so that what the cache depends on is not known beforehand.
        DataError: the model folder, the text or a saved stream cannot be used.
        UnsupportedModel: the architecture is not supported.
    """
    options: LongStreamOptions = options_of(cfg)
    if options.threads:
        torch.set_num_threads(options.threads)
    arm = policy_arm(options.kv, run)
    policy = arm.policy
    if policy is None or not policy.contiguous or arm.capacity is None:
        raise InvalidInput(
            f"{arm.label} does not keep the first and the newest tokens only",
            where="kv",
            hint="use kv=streaming or kv=window",
        )
    model, tokenizer = load_model(options.model.path, device=options.device), load_tokenizer(options.model.path)
    streams, text = load_streams(options.text, tokenizer, streams=1, tokens=options.tokens, seed=int(cfg.seed))
    ids = streams[0]
    first = 1 if ids.numel() < options.tokens else 0  # the first token stands at the beginning only
    double = copy.deepcopy(model).double()
    layers = int(model.config.num_hidden_layers)
    sinks, need = arm.sinks_of_policy, layers * (arm.capacity + 1)
    marks = [2**k for k in range(1, 64) if options.first_check <= 2**k <= options.tokens]
    if not marks or marks[-1] != options.tokens:
        marks.append(options.tokens)
    run.info(f"text: {text.label}, {ids.numel():,} tokens; the stream: {options.tokens:,}")
    with attach(model, kv=policy) as cache, SafePoint() as safe:
        reader = Reader(model, cache, ids, first)
        at = _restore(run, reader)
        about = {"label": arm.label, "text": text.label, "model": options.model.path, "text_tokens": ids.numel()}
        run.write_json(RESULT, {**about, "layers": layers, "capacity": arm.capacity, "at": asdict(at)})
        saved = time.monotonic()
        with run.progress(options.tokens, f"reading {options.tokens:,} tokens", done=at.done) as bar:
            for mark in (m for m in marks if m > at.done):
                while at.done < mark:
                    far = mark - options.single - at.done  # so many by chunks, the rest one by one
                    count = min(options.chunk, far) if far > 0 else 1
                    cache.set_stepwise(count > 1)
                    reader.read(at, count)
                    bar.advance(count)
                    if safe.requested or time.monotonic() - saved > options.save_every:
                        _save(run, at, reader)
                        saved = time.monotonic()
                        safe.check()
                assert reader.hidden is not None  # noqa: S101 - something was read
                start = max(sinks, at.done - need)
                head = token_at(ids, first, 0, min(sinks, at.done))
                exact = replay(double, policy, head, token_at(ids, first, start, at.done))
                error = float((reader.hidden.double() - exact).abs().max())
                at.checks.append(Check(at.done, error, math.exp(at.nll / at.scored), cache.nbytes(), at.seconds))
                at.loss, at.nll, at.scored = at.loss + at.nll, 0.0, 0
                _save(run, at, reader)
                run.info(f"{at.done:>10,} tokens: hidden error {error:.1e}, perplexity {at.checks[-1].perplexity:.1f}")
                run.set_status("running")
    return measurements(arm.label, at)


def measurements(label: str, at: Progress) -> list[Measurement]:
    """Of the finished stream."""
    by, last = {"policy": label}, at.checks[-1]
    worst = max(c.error for c in at.checks)
    growth = (last.cache_bytes - at.checks[0].cache_bytes) / max(1, last.tokens - at.checks[0].tokens)
    return [
        Measurement("hidden error", worst, "1", len(at.checks), higher_is_better=False, by=by),
        Measurement("tokens", float(last.tokens), "tok", by=by),
        Measurement("perplexity", math.exp(at.loss / (last.tokens - 1)), "1", higher_is_better=False, by=by),
        Measurement("perplexity, last check", last.perplexity, "1", higher_is_better=False, by=by),
        Measurement("cache growth", growth, "B/tok", higher_is_better=False, by=by),
        Measurement("time per token", 1000 * last.seconds / last.tokens, "ms", higher_is_better=False, by=by),
    ]
