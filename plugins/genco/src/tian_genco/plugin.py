"""What the genco plugin offers. Imported at discovery, hence light."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from tian import hookimpl

NEEDS = ("highspy", "numba", "pyomo", "scipy", "matplotlib")
STUDIES: dict[str, str] = {}  # recipe -> module of its report


@hookimpl
def tian_register_solvers(register: Any) -> None:
    """Register the solvers."""


@hookimpl
def tian_register_recipes(register: Any) -> None:
    """Register the recipes."""


@hookimpl
def tian_register_configs(register: Any) -> None:
    """Register the folder of run configurations."""
    register("tian_genco.conf")


@hookimpl
def tian_report_sections(run: Any) -> list[Any]:
    """Sections of the report of a run of ours."""
    module = STUDIES.get(str(run.config.recipe))
    return list(import_module(module).sections(run)) if module else []
