"""Command-line overrides: `a.b=1`, `+a.b=1` (new key), `~a.b` (delete), `group=choice`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from tian.errors import ConfigError

_KEY = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)*")


@dataclass(frozen=True)
class Override:
    """A parsed override: `kind` is set, add or delete."""

    kind: str
    key: str
    value: Any
    text: str

    @property
    def origin(self) -> str:
        """As shown by `tian config --origin`."""
        return f"override {self.text!r}"


def parse(text: str) -> Override:
    """Parse one override.

    Values are YAML as OmegaConf reads it: `2e-3` is a float, `off` is false, `010` is 8, `[1, 2]` is a list, `null`
    is none; quote to force a string.

    Raises:
        ConfigError: not of a known form.
    """
    if text.startswith("~"):
        key = text[1:]
        if not _KEY.fullmatch(key):
            raise ConfigError(f"{text!r} is not an override", where="command line", hint="write ~key.to.delete")
        return Override("delete", key, None, text)
    body = text.removeprefix("+")
    key, equals, raw = body.partition("=")
    if not equals or not _KEY.fullmatch(key):
        raise ConfigError(
            f"{text!r} is not an override", where="command line", hint="write key=value, e.g. kv.recent=252"
        )
    try:
        value = OmegaConf.to_container(OmegaConf.from_dotlist([f"v={raw}"]))["v"]  # type: ignore[index,call-overload]
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        raise ConfigError(
            f"the value of {text!r} cannot be read: {str(error).splitlines()[0]}",
            where="command line",
            hint="quote the value",
        ) from None
    return Override("add" if text.startswith("+") else "set", key, value, text)
