"""See what code does to its surroundings: files, network, processes, devices, global random states, arguments."""

from __future__ import annotations

import contextlib
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from tian.testing.conformance.base import Violation, require

_OUTSIDE = ("open", "socket.", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.mkdir")
_CUDA = ("is_available", "device_count", "current_device", "init", "_lazy_init")
_events: list[str] | None = None
_thread = 0  # whose events are collected: others of the process open files too
_hooked = False


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if _events is not None and event.startswith(_OUTSIDE) and threading.get_ident() == _thread:
        _events.append(f"{event} {args[0]!r}" if args else event)


@contextlib.contextmanager
def outside() -> Iterator[list[str]]:
    """Collect the files opened, sockets made and processes started in the context."""
    global _events, _hooked, _thread  # noqa: PLW0603 - an audit hook cannot be removed, hence one a process
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked = True
    seen: list[str] = []
    _events, _thread = seen, threading.get_ident()
    try:
        yield seen
    finally:
        _events = None


@contextlib.contextmanager
def devices() -> Iterator[list[str]]:
    """Collect the questions asked of CUDA in the context; each is answered as usual."""
    seen: list[str] = []

    def spy(name: str, original: Any) -> Any:
        def asked(*args: Any, **kwargs: Any) -> Any:
            seen.append(f"torch.cuda.{name}")
            return original(*args, **kwargs)

        return asked

    before = {name: getattr(torch.cuda, name) for name in _CUDA}
    try:
        for name, original in before.items():
            setattr(torch.cuda, name, spy(name, original))
        yield seen
    finally:
        for name, original in before.items():
            setattr(torch.cuda, name, original)


_READS = ("item", "tolist", "numpy", "__bool__", "__int__", "__float__", "__index__", "__array__", "nonzero", "cpu")


class _Reads(TorchFunctionMode):
    """Notes the calls that need the values of a tensor on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        index = args[1] if name == "__getitem__" and len(args) > 1 else None
        by_mask = isinstance(index, torch.Tensor) and index.dtype == torch.bool
        if name in _READS or by_mask:
            self.seen.append("indexing by a mask" if by_mask else name)
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def host_reads() -> Iterator[list[str]]:
    """Collect the calls in the context that read a tensor back: item(), tolist(), `if` on a tensor, a mask as index."""
    with _Reads() as mode:
        yield mode.seen


@contextlib.contextmanager
def clock() -> Iterator[Callable[[float], None]]:
    """A clock that stands still but for the seconds the yielded function adds; for code that asks the module `time`."""
    now = [1000.0]
    before = {name: getattr(time, name) for name in ("monotonic", "perf_counter", "time")}

    def add(seconds: float) -> None:
        now[0] += seconds

    try:
        for name in before:
            setattr(time, name, lambda: now[0])
        yield add
    finally:
        for name, original in before.items():
            setattr(time, name, original)


def _states() -> dict[str, Any]:
    kind, keys, *rest = np.random.get_state()
    numpy_state = (kind, np.asarray(keys).tobytes(), *rest)
    torch_state = torch.get_rng_state().numpy().tobytes()
    return {"random": random.getstate(), "numpy.random": numpy_state, "torch": torch_state}


@contextlib.contextmanager
def global_randomness_untouched(what: str) -> Iterator[None]:
    """Raise Violation when the context consumes from, or seeds, a global generator of random, numpy or torch."""
    kept = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.random()  # leave the state a seed would set, so that seeding shows
    np.random.random()
    torch.rand(1)
    before = _states()
    try:
        yield
        after = _states()
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
        torch.set_rng_state(kept[2])
    changed = [name for name, state in before.items() if after[name] != state]
    require(not changed, f"{what} changed the global random state of {', '.join(changed)}; use a seed or generator")


def frozen(value: Any) -> Any:
    """A deep copy to compare with later: tensors and arrays cloned, containers rebuilt, other objects by their vars."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, Mapping):
        return {k: frozen(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [frozen(v) for v in value]
    if isinstance(value, torch.Generator):
        return value.get_state()
    if hasattr(value, "__dict__") and not callable(value):
        return {k: frozen(v) for k, v in vars(value).items()}
    return value


def same(a: Any, b: Any) -> bool:
    """Equality of values, NaN equal to itself, tensors by dtype, shape and content."""
    a, b = frozen(a), frozen(b)
    return _same(a, b)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        if not (isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)):
            return False
        if a.dtype != b.dtype or a.shape != b.shape:
            return False
        return (
            torch.equal(a.nan_to_num(nan=12345.0), b.nan_to_num(nan=12345.0))
            if a.is_floating_point()
            else torch.equal(a, b)
        )
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.array_equal(a, b, equal_nan=np.asarray(a).dtype.kind == "f")
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b) or (a != a and b != b)  # noqa: PLR0124 - NaN


@contextlib.contextmanager
def unchanged(what: str, **arguments: Any) -> Iterator[None]:
    """Raise Violation when the context modifies one of the arguments."""
    before = {name: frozen(value) for name, value in arguments.items()}
    yield
    for name, value in arguments.items():
        if not same(value, before[name]):
            raise Violation(f"{what} modified its argument {name}; arguments belong to the caller")
