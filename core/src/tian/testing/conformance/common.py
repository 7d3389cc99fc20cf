"""Checks every role shares: construction, options, signatures."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

from tian.errors import ConfigError, InvalidInput
from tian.plugins.registry import role_class
from tian.testing.conformance.base import Checks, Option, fail, require, skip
from tian.testing.conformance.watch import devices, frozen, global_randomness_untouched, outside, same


class CommonChecks(Checks):
    """What holds for every component."""

    shared_attributes: ClassVar[tuple[str, ...]] = ()

    def test_all01_construction_touches_no_file_process_or_network(self, option: Option) -> None:
        """Construction opens no file, starts no process and uses no network."""
        self.make(option)  # the first one may import modules
        with outside() as seen:
            self.make(option)
        require(not seen, f"construction did: {'; '.join(seen[:3])}")

    def test_all02_construction_asks_for_no_device(self, option: Option) -> None:
        """Construction does not look for, or allocate on, a device."""
        with devices() as seen:
            self.make(option)
        require(not seen, f"construction called {', '.join(seen)}; ask when the first tensor arrives")

    def test_all03_construction_consumes_no_global_randomness(self, option: Option) -> None:
        """Construction leaves the global random states of random, numpy and torch alone."""
        with global_randomness_untouched("construction"):
            self.make(option)

    def test_all04_a_bad_option_is_refused(self) -> None:
        """A bad option raises InvalidInput or ConfigError, before any work."""
        bad = [*self.bad_options, *([{"no_such_option_": 1}] if self.registered else [])]
        if not bad:
            skip("no bad_options were given to the kit")
        for option in bad:
            try:
                self.make(option)
            except (InvalidInput, ConfigError):
                continue
            fail(f"the options {dict(option)} were accepted")

    def test_all05_it_is_a_complete_subclass_of_its_role(self, option: Option) -> None:
        """The class derives from its role, implements every required method, and keeps the role's SPEC."""
        component, base = self.make(option), role_class(self.role)
        require(isinstance(component, base), f"{type(component).__name__} does not derive from {base.__name__}")
        require(not inspect.isabstract(type(component)), f"{type(component).__name__} lacks abstract methods")
        spec = getattr(component, "SPEC", None)
        require(spec == base.SPEC, f"SPEC is {spec!r}, this tian has {base.SPEC}")  # type: ignore[attr-defined]

    def test_all06_methods_take_the_arguments_of_the_role(self, option: Option) -> None:
        """Every method takes the role's arguments by the role's names; further ones have defaults."""
        component, base = self.make(option), role_class(self.role)
        for name, method in vars(base).items():
            if inspect.isfunction(method) and not name.startswith("_"):
                accepts(component, name, method)

    def test_all07_construction_leaves_no_trace_in_the_class(self, option: Option) -> None:
        """Constructing one component leaves the attributes of the class, which others share, as they were."""
        first = self.make(option)
        before = _class_state(type(first))
        self.make(option)
        require(same(_class_state(type(first)), before), "constructing a component changed an attribute of its class")


def _class_state(cls: type) -> Any:
    """The data attributes of the class and its bases, methods left out."""
    found: dict[str, Any] = {}
    for base in cls.__mro__[:-1]:
        for name, value in vars(base).items():
            if name.startswith("__") or name.startswith("_abc") or callable(value):
                continue
            if not isinstance(value, staticmethod | classmethod | property):
                found[f"{base.__qualname__}.{name}"] = frozen(value)
    return found


def accepts(component: Any, name: str, method: Any) -> None:
    """Raise Violation unless `component.name` can be called with the arguments of `method`, by their names."""
    own = getattr(component, name, None)
    require(callable(own), f"there is no method {name}")
    wanted = [p for p in inspect.signature(method).parameters.values() if p.name not in ("self", "cls")]
    try:
        have = inspect.signature(own)  # type: ignore[arg-type]
        by_position = [p.name for p in wanted if p.kind is not p.KEYWORD_ONLY and p.default is p.empty]
        by_name = {p.name: None for p in wanted if p.name not in by_position}
        have.bind(*by_position, **by_name)
        have.bind(**{p.name: None for p in wanted if p.default is p.empty})
    except TypeError as error:
        fail(f"{name}{inspect.signature(own)} does not take {name}{inspect.signature(method)}: {error}")  # type: ignore[arg-type]
