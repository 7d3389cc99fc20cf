"""The plugin that core itself is: the small language model and its training run, on the same API as everyone's."""

from __future__ import annotations

from typing import Any

from tian.plugins.hookspecs import hookimpl

NEEDS = ("transformers", "tokenizers", "safetensors", "matplotlib")


@hookimpl
def tian_register_recipes(register: Any) -> None:
    """Register `lm/train`."""
    register(
        "train",
        "tian.hf.lm_train:train",
        summary="train a small Llama-style LM and its tokenizer on installed Python packages",
        options="tian.hf.options:TrainOptions",
        needs=NEEDS,
        extra="hf",
    )


@hookimpl
def tian_register_configs(register: Any) -> None:
    """Register the folder that holds `lm/train`."""
    register("tian.hf.conf")


@hookimpl
def tian_report_sections(run: Any) -> list[Any]:
    """Sections of an `lm/train` report."""
    if run.config.recipe != "lm/train":
        return []
    from tian.hf.lm_report import sections

    return sections(run)
