"""Everything that touches transformers: the cache host, the small LM and its training run, corpora.

Importing this package imports nothing heavy; `tian.hf.attach` and the others load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tian.hf.cache import SlotCache
    from tian.hf.host import attach, prefill
    from tian.hf.loading import load_model, load_tokenizer
    from tian.hf.record import RecordedStep

_HOMES = {
    "attach": "tian.hf.host",
    "prefill": "tian.hf.host",
    "RecordedStep": "tian.hf.record",
    "SlotCache": "tian.hf.cache",
    "load_model": "tian.hf.loading",
    "load_tokenizer": "tian.hf.loading",
}

__all__ = ["RecordedStep", "SlotCache", "attach", "load_model", "load_tokenizer", "prefill"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
