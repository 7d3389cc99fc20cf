"""`tian config RUN [key=value ...] [--origin]`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tian.cli.console import columns, out, out_json

if TYPE_CHECKING:
    import argparse


def leaves(tree: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted key and value of every leaf; lists and empty mappings count as leaves."""
    found = []
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            found.extend(leaves(value, f"{prefix}{key}."))
        else:
            found.append((f"{prefix}{key}", value))
    return found


def main(args: argparse.Namespace) -> int:
    """Print the composed config, or a table of value and origin."""
    from omegaconf import OmegaConf

    from tian.config.compose import compose

    config, origins = compose(args.name, args.overrides)
    plain = OmegaConf.to_container(config)
    if args.origin:
        rows = [(key, value, origins.where(key)) for key, value in leaves(plain)]
        if args.json:
            out_json({key: {"value": value, "origin": origin} for key, value, origin in rows})
        else:
            shown = [[key, "null" if value is None else str(value), origin] for key, value, origin in rows]
            out(columns(shown))
    elif args.json:
        out_json(plain)
    else:
        out(OmegaConf.to_yaml(config).rstrip())
    return 0
