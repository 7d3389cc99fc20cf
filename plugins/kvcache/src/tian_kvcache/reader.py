"""Read streams token by token under one arm; stop anywhere, continue bit-identically."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from tian.errors import DataError
from tian.files import write_atomic
from tian.hf.host import attach
from tian.runs.signals import SafePoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from tian.hf.cache import SlotCache
    from tian_kvcache.arms import Arm

PAGE = 4096  # bytes of a memory page
SAMPLES = 64  # how often cache bytes and resident memory are noted over a stream


@dataclass
class Reading:
    """What one arm measured.

    Attributes:
        nll: `[S, T-1]` float32; entry t is the negative log-likelihood (nats) of token t+1 given what the arm kept.
        done: steps finished.
        seconds: `[T-1]` float32, time of each step in the model, saves excluded.
        cache_bytes: `(step, bytes)` samples.
        rss: `(step, bytes)` samples of the process's resident memory.
    """

    nll: Tensor
    done: int = 0
    seconds: Tensor = field(default_factory=lambda: torch.zeros(0))
    cache_bytes: list[tuple[int, int]] = field(default_factory=list)
    rss: list[tuple[int, int]] = field(default_factory=list)


def resident_bytes() -> int:
    """Resident memory of this process, bytes (0 where /proc is absent)."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - a proc file, read often
            return int(file.read().split()[1]) * PAGE
    except OSError:
        return 0


def save_reading(path: Path, reading: Reading, cache: SlotCache | None) -> None:
    """Write everything that is needed to continue, atomically."""
    tensors = {f"cache.{k}": v for k, v in cache.state_dict().items()} if cache is not None else {}
    tensors["nll"] = reading.nll
    tensors["done"] = torch.tensor([reading.done])
    tensors["seconds"] = reading.seconds
    tensors["cache_bytes"] = torch.tensor(reading.cache_bytes, dtype=torch.int64).reshape(-1, 2)
    tensors["rss"] = torch.tensor(reading.rss, dtype=torch.int64).reshape(-1, 2)
    write_atomic(path, save(tensors))


def load_reading(path: Path) -> tuple[Reading, dict[str, Tensor]]:
    """What `save_reading` wrote: the reading and the cache's state (empty for a finished stream).

    Raises:
        DataError: the file is truncated or damaged.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        reading = Reading(
            tensors["nll"],
            int(tensors["done"]),
            tensors["seconds"],
            [(a, b) for a, b in tensors["cache_bytes"].tolist()],
            [(a, b) for a, b in tensors["rss"].tolist()],
        )
    except (SafetensorError, KeyError, OSError) as error:
        raise DataError(
            f"the saved stream {path} is damaged: {error}",
            where=str(path),
            hint="delete this file and resume; it starts over",
        ) from None
    return reading, {k.removeprefix("cache."): v for k, v in tensors.items() if k.startswith("cache.")}


def _recompute_step(model: Any, ids: Tensor, t: int, arm: Arm) -> Tensor:
    """Logits `[S, V]` after token t, from running the first `sinks` and the last `recent` tokens again."""
    seen = ids[:, : t + 1]
    if seen.shape[1] > arm.sinks + arm.recent:
        seen = torch.cat([seen[:, : arm.sinks], seen[:, t + 1 - arm.recent :]], dim=1)
    logits: Tensor = model(input_ids=seen, use_cache=False, logits_to_keep=1).logits[:, -1]
    return logits


@torch.inference_mode()
def read(
    model: Any,
    ids: Tensor,
    arm: Arm,
    *,
    path: Path,
    save_every: float,
    advance: Callable[[int], None],
    limit: int | None = None,
    kernel: str = "auto",
) -> Reading:
    """Score every token of the streams under `arm`.

    Args:
        model: causal LM in eval mode.
        ids: `[S, T]` int64 on the model's device.
        arm: how to read.
        path: state file; when it exists the reading continues from it.
        save_every: seconds between saves; the state is also saved on SIGINT and SIGTERM, between two steps.
        advance: told the number of finished steps, for progress.
        limit: stop after this many steps, or None.
        kernel: see `tian.hf.attach`.

    Returns:
        The reading, also stored at `path` without the cache.
    """
    steps = min(limit or ids.shape[1], ids.shape[1] - 1)
    targets = ids.shape[1] - 1
    reading = Reading(torch.full((ids.shape[0], targets), torch.nan), seconds=torch.zeros(targets))
    state: dict[str, Tensor] = {}
    if path.exists():
        reading, state = load_reading(path)
        advance(reading.done)
    if reading.done >= steps:
        return reading
    every = max(1, steps // SAMPLES)

    def loop(step_logits: Callable[[int], Tensor], cache: SlotCache | None) -> None:
        saved = time.monotonic()
        with SafePoint() as safe:
            while reading.done < steps:
                t = reading.done
                start = time.perf_counter()
                logits = step_logits(t)
                nll = torch.nn.functional.cross_entropy(logits.float(), ids[:, t + 1], reduction="none")
                reading.nll[:, t] = nll.cpu()
                reading.seconds[t] = time.perf_counter() - start
                if cache is not None and arm.zero_first and t == 0:
                    for layer in cache.layers:
                        layer.values[:, :, 0].zero_()
                reading.done = t + 1
                if t % every == 0 or reading.done == steps:
                    reading.cache_bytes.append((t, cache.nbytes() if cache is not None else 0))
                    reading.rss.append((t, resident_bytes()))
                advance(1)
                if safe.requested or time.monotonic() - saved > save_every:
                    save_reading(path, reading, cache)
                    saved = time.monotonic()
                    safe.check()
        save_reading(path, reading, None)

    if arm.policy is None:
        loop(lambda t: _recompute_step(model, ids, t, arm), None)
    else:
        with attach(model, kv=arm.policy, kernel=kernel) as cache:
            cache.load_state_dict(state)
            loop(
                lambda t: model(input_ids=ids[:, t : t + 1], past_key_values=cache, use_cache=True).logits[:, -1], cache
            )
    return reading
