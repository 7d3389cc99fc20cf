"""What the plugin offers. Imported by every tian command, hence light: targets are strings, imported when used."""

from __future__ import annotations

from typing import Any

from tian import hookimpl


@hookimpl
def @@hook@@(register: Any) -> None:
    """Register the component."""
    register(
        "@@name@@",
        "@@package@@.@@module@@:@@Class@@",
        summary="@@summary@@",
@@register_more@@    )


@hookimpl
def tian_register_recipes(register: Any) -> None:
    """Register what `tian run @@name@@/demo` executes."""
    register(
        "demo",
        "@@package@@.demo:demo",
        summary="@@demo_summary@@",
        options="@@package@@.demo_options:DemoOptions",
    )


@hookimpl
def tian_register_configs(register: Any) -> None:
    """Register the folder of run configurations."""
    register("@@package@@.conf")


@hookimpl
def tian_register_claims(register: Any) -> None:
    """Register the claims."""
    register("@@package@@.claims:CLAIMS")
