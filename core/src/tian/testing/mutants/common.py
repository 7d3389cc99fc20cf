"""Mutants any fake can have: what construction must not do, and what a class must be."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tian.errors import InvalidInput
from tian.testing.mutants import Mutant, mutant


def after(fake: Any, effect: Callable[[Any], object]) -> Callable[..., None]:
    """A constructor that has an effect besides."""

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        fake.__init__(self, *args, **kwargs)
        effect(self)

    return init


def count(self: Any) -> int:
    """How often this was called on an object."""
    self.__dict__["_count"] = self.__dict__.get("_count", 0) + 1
    return int(self.__dict__["_count"])


def first(*values: Any) -> Any:
    """The first value; the others are evaluated for their effect."""
    return values[0]


def entropy() -> int:
    """A number nobody can foresee."""
    return int.from_bytes(os.urandom(4), "little")


def _open(_: Any) -> None:
    with Path(os.devnull).open("rb"):
        pass


def _connect(_: Any) -> None:
    socket.socket().close()


def _draw(_: Any) -> float:
    return random.random()


def _forgiving(fake: Any) -> Callable[..., None]:
    def init(self: Any, **options: Any) -> None:
        try:
            fake.__init__(self, **options)
        except InvalidInput:
            fake.__init__(self)

    return init


def _rude(fake: Any) -> Callable[..., None]:
    def init(self: Any, **options: Any) -> None:
        try:
            fake.__init__(self, **options)
        except InvalidInput as error:
            raise KeyError(str(error)) from error

    return init


def _stranger(fake: Any) -> type:
    """The same methods in a class that derives from nothing."""
    members = {k: v for c in reversed(fake.__mro__[:-1]) for k, v in vars(c).items() if not k.startswith("_abc")}
    drop = ("__dict__", "__weakref__", "__abstractmethods__", "__slots__")
    return type("Stranger", (), {k: v for k, v in members.items() if k not in drop})


def common_mutants(fake: Any, *, method: str) -> list[Mutant]:
    """Mutants of construction and of the class.

    Args:
        fake: the honest class.
        method: a required method, to be given other argument names.
    """
    seen: list[int] = []
    original = getattr(fake, method)
    return [
        mutant("construction opens a file", fake, __init__=after(fake, _open)),
        mutant("construction opens a socket", fake, __init__=after(fake, _connect)),
        mutant("construction looks for a GPU", fake, __init__=after(fake, lambda _: torch.cuda.is_available())),
        mutant("construction draws from torch", fake, __init__=after(fake, lambda _: torch.rand(1))),
        mutant("construction seeds torch", fake, __init__=after(fake, lambda _: torch.manual_seed(0))),
        mutant("construction draws from numpy", fake, __init__=after(fake, lambda _: np.random.rand())),
        mutant("construction draws from random", fake, __init__=after(fake, _draw)),
        mutant("a bad option is replaced by the default", fake, __init__=_forgiving(fake)),
        mutant("a bad option raises KeyError", fake, __init__=_rude(fake)),
        mutant("instances are listed in the class", fake, made=seen, __init__=after(fake, lambda s: s.made.append(1))),
        mutant("SPEC of another version", fake, SPEC=2),
        Mutant("not a subclass of the role", _stranger(fake)),
        mutant("arguments by position only", fake, **{method: _nameless(original)}),
        mutant("an argument more without default", fake, **{method: _longer(original)}),
    ]


def _longer(original: Any) -> Any:
    def method(self: Any, extra: Any, *args: Any, **kwargs: Any) -> Any:
        return original(self, *args, **kwargs)

    return method


def _nameless(original: Any) -> Any:
    def method(self: Any, *args: Any) -> Any:
        return original(self, *args)

    return method
