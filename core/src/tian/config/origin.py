"""Where a value of a composed configuration came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from pathlib import Path


class Origins(Mapping[str, str]):
    """Dotted key -> `file:line`, `override 'a=b'` or `default of module:Class`; a parent's origin covers its leaves."""

    def __init__(self) -> None:
        self._of: dict[str, str] = {}

    def set(self, key: str, origin: str) -> None:
        """Record the origin of `key`; what was known of keys below it is forgotten."""
        self.forget(key)
        self._of[key] = origin

    def forget(self, key: str) -> None:
        """Drop `key` and everything below it."""
        for k in [k for k in self._of if k == key or k.startswith(f"{key}.")]:
            del self._of[k]

    def __getitem__(self, key: str) -> str:
        probe = key
        while probe:
            if probe in self._of:
                return self._of[probe]
            probe = probe.rpartition(".")[0]
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._of)

    def __len__(self) -> int:
        return len(self._of)

    def where(self, key: str) -> str:
        """The origin; for a mapping that was never set as a whole, that of its first key; else an empty string."""
        below = (origin for k, origin in self._of.items() if k.startswith(f"{key}."))
        return self._of.get(key) or next(below, "") or self.get(key, "")


def label(path: Path) -> str:
    """A file as shown: from the package folder on, e.g. `tian_kvcache/conf/stream.yaml`."""
    parts = path.parts
    at = len(parts) - 1 - parts[::-1].index("conf") if "conf" in parts else len(parts) - 1
    start = max(0, at - 1)
    if start and parts[start - 1] == "tian":
        start -= 1
    return "/".join(parts[start:])


def key_lines(text: str) -> dict[str, int]:
    """Dotted key -> line number (1-based) of every mapping key of a YAML text; lists count as leaves."""
    out: dict[str, int] = {}

    def walk(node: Any, prefix: str) -> None:
        if not isinstance(node, yaml.MappingNode):
            return
        for key, value in node.value:
            name = f"{prefix}{key.value}"
            out[name] = key.start_mark.line + 1
            walk(value, f"{name}.")

    walk(yaml.compose(text, Loader=yaml.SafeLoader), "")
    return out
