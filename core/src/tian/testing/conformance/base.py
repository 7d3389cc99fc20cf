"""The mechanics of the kit: checks are methods `test_<id>_<sentence>`; `build` makes a class pytest collects of them.

A check is a method `(self, option)`. With `@prop(...)` it is a property: hypothesis draws the further arguments.
Examples are derived from the code alone, so that a component passes or fails the same way everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings

import tian
from tian.errors import InvalidInput

if TYPE_CHECKING:
    from types import FunctionType

    from hypothesis.strategies import SearchStrategy

_ID = re.compile(r"test_([a-z]+\d+)_\w+")
_PROPS = "_tian_props"  # attribute of a check: what hypothesis draws, and how often
NOTHING: Any = object()  # an argument that was not given, where None is a value
Option = Mapping[str, Any]


class Violation(AssertionError):
    """A component that breaks its contract."""


def require(holds: object, message: str) -> None:
    """Raise Violation with the message unless `holds`."""
    if not bool(holds):
        raise Violation(message)


def fail(message: str) -> NoReturn:
    """Raise Violation."""
    raise Violation(message)


def is_tensor(value: Any, dtype: torch.dtype) -> bool:
    """Whether the value is a tensor of that type."""
    return isinstance(value, torch.Tensor) and value.dtype == dtype


def skip(reason: str) -> NoReturn:
    """End a check that does not apply to this component, saying why."""
    raise pytest.skip.Exception(reason)


def prop(*, examples: int = 15, **drawn: SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Mark a check as a property of the drawn arguments."""

    def mark(check: Callable[..., None]) -> Callable[..., None]:
        setattr(check, _PROPS, (examples, drawn))
        return check

    return mark


@dataclass(frozen=True)
class CheckInfo:
    """A check: its id (`kv07`), method name, and the contract sentence it enforces."""

    id: str
    method: str
    sentence: str


def checks_of(cls: type) -> list[CheckInfo]:
    """The checks of a conformance class, sorted by id."""
    found = []
    for name in dir(cls):
        match = _ID.fullmatch(name)
        if match:
            doc = " ".join((getattr(cls, name).__doc__ or "").split())
            found.append(CheckInfo(match[1], name, doc))
    return sorted(found, key=lambda c: c.id)


class Checks:
    """Base of the checks of every role.

    Attributes:
        role: what is tested.
        target: registered name, class or factory.
        options: option sets, each a run of every check.
        bad_options: option sets that must be refused.
        explain_failures: False leaves out hypothesis' search for the simplest failing example.
    """

    role: ClassVar[str]
    target: ClassVar[Any]
    options: ClassVar[Sequence[Option]] = ({},)
    bad_options: ClassVar[Sequence[Option]] = ()
    explain_failures: ClassVar[bool] = True

    @property
    def registered(self) -> bool:
        """Whether the target is a registered name."""
        return isinstance(self.target, str)

    def make(self, option: Option) -> Any:
        """A fresh component."""
        if isinstance(self.target, str):
            return tian.load(self.role, self.target, **option)
        return self.target(**option)


def build(checks: type[Checks], target: Any, *, options: Sequence[Option], **context: Any) -> type:
    """A class with every check of `checks`, parametrised over the option sets.

    Args:
        checks: the role's checks; those of packaging are added for a registered name.
        target: registered name, class or factory.
        options: option sets; empty means one set without options.
        context: further attributes of the class.

    Raises:
        InvalidInput: options is no list of mappings, or the target is neither a name nor callable.
    """
    from tian.testing.conformance.packaging import PackagingChecks

    sets = list(options) or [{}]
    if isinstance(options, Mapping) or not all(isinstance(o, Mapping) for o in sets):
        raise InvalidInput(f"options must be a list of option sets, got {options!r}", hint='options=[{"budget": 8}]')
    if not isinstance(target, str) and not callable(target):
        raise InvalidInput(f"{target!r} is neither a registered name nor a class", hint="give the name or the class")
    bases = (checks, PackagingChecks) if isinstance(target, str) else (checks,)
    body = {k: staticmethod(v) if callable(v) and not isinstance(v, type) else v for k, v in context.items()}
    body |= {"target": target if isinstance(target, (str, type)) else staticmethod(target), "options": sets}
    base = type(f"{checks.__name__}Of", bases, body)
    ids = [", ".join(f"{k}={v}" for k, v in o.items()) or "no options" for o in sets]
    methods = {c.method: _runnable(getattr(base, c.method), sets, ids) for c in checks_of(base)}
    return type(f"Test{checks.__name__}", (base,), methods)


def _runnable(check: FunctionType, sets: Sequence[Option], ids: Sequence[str]) -> Any:
    """The method pytest sees: takes `option`, hides what hypothesis draws."""
    takes_option = "option" in check.__code__.co_varnames[: check.__code__.co_argcount]

    def run(self: Checks, option: Option) -> None:
        _run(self, check, option)

    def run_once(self: Checks) -> None:
        check(self)

    method = run if takes_option else run_once
    method.__name__, method.__qualname__, method.__doc__ = check.__name__, check.__qualname__, check.__doc__
    return pytest.mark.parametrize("option", sets, ids=ids)(method) if takes_option else method


def _run(self: Checks, check: Callable[..., None], option: Option) -> None:
    examples, drawn = getattr(check, _PROPS, (0, {}))
    if not drawn:
        check(self, option)
        return
    phases = [Phase.explicit, Phase.generate] + ([Phase.shrink] if self.explain_failures else [])

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,  # a busy machine is no fault of the component
        phases=phases,
        report_multiple_bugs=False,
        suppress_health_check=[HealthCheck.too_slow],  # likewise: it measures time
    )
    @given(**drawn)
    def property_holds(**values: Any) -> None:
        check(self, option, **values)

    property_holds()


def run_conformance(cls: type, *, only: Sequence[str] | None = None, stop_at_first: bool = False) -> list[str]:
    """Run the checks of a conformance class in this process, without pytest.

    Args:
        cls: what `conformance.<role>(...)` returned.
        only: ids of the checks to run; None: all.
        stop_at_first: stop at the first check that fails.

    Returns:
        Ids of those that fail for at least one option set, sorted. A check that skips does not fail.
    """
    fast: Any = type(cls.__name__, (cls,), {"explain_failures": False})
    failed = []
    for info in checks_of(cls):
        if only is not None and info.id not in only:
            continue
        if not all(_passes(fast(), info.method, option) for option in fast.options):
            failed.append(info.id)
            if stop_at_first:
                break
    return failed


def _passes(instance: Checks, method: str, option: Option) -> bool:
    function = getattr(instance, method)
    arguments = (option,) if "option" in function.__code__.co_varnames else ()
    try:
        function(*arguments)
    except pytest.skip.Exception:
        return True
    except Exception:  # noqa: BLE001 - whatever a broken component raises is a failed check
        return False
    return True
