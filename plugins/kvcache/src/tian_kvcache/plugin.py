"""What the kvcache plugin offers. Imported at discovery, hence light."""

from __future__ import annotations

from typing import Any

from tian import hookimpl

NEEDS = ("transformers", "safetensors", "tokenizers", "matplotlib")


@hookimpl
def tian_register_kv_policies(register: Any) -> None:
    """Register the policies."""
    where = "tian_kvcache.policies"
    register("full", f"{where}:Full", summary="keep every token; the cache grows with the stream")
    register(
        "window",
        f"{where}:Window",
        summary="keep the most recent tokens only",
        options="tian_kvcache.options:WindowOptions",
    )
    register(
        "streaming",
        f"{where}:Streaming",
        summary="keep the first few tokens and the most recent ones (StreamingLLM)",
        options="tian_kvcache.options:StreamingOptions",
    )


@hookimpl
def tian_register_recipes(register: Any) -> None:
    """Register `kvcache/stream`."""
    register(
        "stream",
        "tian_kvcache.stream:stream",
        summary="read a long text token by token under several cache policies and compare perplexity, memory, speed",
        options="tian_kvcache.options:StreamOptions",
        needs=NEEDS,
        extra="hf",
    )


@hookimpl
def tian_register_configs(register: Any) -> None:
    """Register the folder of run configurations."""
    register("tian_kvcache.conf")


@hookimpl
def tian_register_claims(register: Any) -> None:
    """Register the claims of the papers."""
    register("tian_kvcache.claims:CLAIMS")


@hookimpl
def tian_report_sections(run: Any) -> list[Any]:
    """Sections of a `kvcache/stream` report."""
    if run.config.recipe != "kvcache/stream":
        return []
    from tian_kvcache.report import sections

    return sections(run)


@hookimpl
def tian_compare_sections(runs: list[Any]) -> list[Any]:
    """Perplexity curves of several `kvcache/stream` runs in one plot."""
    if any(run.config.recipe != "kvcache/stream" for run in runs):
        return []
    from tian_kvcache.report import compare_sections

    return compare_sections(runs)
