"""What the kvcache plugin offers. Imported at discovery, hence light."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from tian import hookimpl

NEEDS = ("transformers", "safetensors", "tokenizers", "matplotlib")
SCORED = (  # name, module:class, summary
    ("h2o", "heavy:H2O", "keep the tokens that received most attention and the most recent ones (H2O)"),
    ("h2o-decay", "heavy:H2ODecay", "h2o whose scores fade with time, for streams whose topic drifts (ours)"),
    ("sink-h2o", "heavy:SinkH2O", "h2o with the first few tokens always kept (ours)"),
    ("tova", "heavy:Tova", "drop the token the newest query looks at least (TOVA)"),
    ("snapkv", "snapkv:SnapKV", "the last queries of the prompt elect the prompt tokens that stay (SnapKV)"),
    ("random", "random_policy:Random", "drop a random token; the first few and the newest stay (baseline)"),
    ("plan", "plan:Plan", "replay a keep list, e.g. the offline optimum of kvcache/regret"),
    ("h2o-global", "heavy:H2OGlobal", "oracle: ranks by attention still to come; for traces only, serves no model"),
)
STUDIES = {  # recipe -> module of its report
    "kvcache/stream": "tian_kvcache.report",
    "kvcache/recall": "tian_kvcache.recall_report",
    "kvcache/long-stream": "tian_kvcache.long_stream_report",
    "kvcache/regret": "tian_kvcache.regret_report",
    "kvcache/heavy-hitters": "tian_kvcache.heavy_report",
    "kvcache/speed": "tian_kvcache.speed_report",
    "kvcache/sink-pretraining": "tian_kvcache.sink_table_report",
    "kvcache/accuracy": "tian_kvcache.accuracy_report",
    "kvcache/answers": "tian_kvcache.answers_report",
    "kvcache/streameval": "tian_kvcache.streameval_report",
}


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
    for name, target, summary in SCORED:
        cls = target.partition(":")[2]
        options = f"tian_kvcache.policy_options:{'H2O' if cls == 'H2OGlobal' else cls}Options"
        register(name, f"tian_kvcache.{target}", summary=summary, options=options)


@hookimpl
def tian_register_recipes(register: Any) -> None:
    """Register the recipes."""
    register(
        "stream",
        "tian_kvcache.stream:stream",
        summary="read a long text token by token under several cache policies and compare perplexity, memory, speed",
        options="tian_kvcache.options:StreamOptions",
        needs=NEEDS,
        extra="hf",
    )
    register(
        "long-stream",
        "tian_kvcache.long_stream:long_stream",
        summary="one stream of millions of tokens, checked against float64 at every doubling of its length",
        options="tian_kvcache.long_stream_options:LongStreamOptions",
        needs=NEEDS,
        extra="hf",
    )
    options = "tian_kvcache.study_options"
    register(
        "recall",
        "tian_kvcache.recall:recall",
        summary="constructed stream of planted pairs and questions: what each policy recalls, and whether it stays fluent",
        options=f"{options}:RecallOptions",
        needs=("matplotlib",),
        extra="hf",
    )
    register(
        "regret",
        "tian_kvcache.regret:regret",
        summary="attention each policy loses against the exact offline optimum, by layer and head",
        options=f"{options}:RegretOptions",
        needs=("ortools", *NEEDS),
        extra="regret",
    )
    register(
        "heavy-hitters",
        "tian_kvcache.heavy_hitters:heavy_hitters",
        summary="how much attention few tokens carry, whether the text explains which, and what masking them costs",
        options=f"{options}:HeavyHittersOptions",
        needs=NEEDS,
        extra="hf",
    )
    register(
        "sink-pretraining",
        "tian_kvcache.sink_table:sink_pretraining",
        summary="train with a sink of each kind and without, then read streams with few first tokens kept",
        options="tian_kvcache.sink_table_options:SinkTableOptions",
        needs=NEEDS,
        extra="hf",
    )
    register(
        "speed",
        "tian_kvcache.speed:speed",
        summary="time and throughput of policies against recomputation and full caches, beside the physical bound",
        options="tian_kvcache.speed_options:SpeedOptions",
        needs=NEEDS,
        extra="hf",
    )
    register(
        "accuracy",
        "tian_kvcache.accuracy:accuracy",
        summary="multiple-choice accuracy of policies that keep a share of the prompt, against full attention",
        options="tian_kvcache.accuracy_options:AccuracyOptions",
        needs=NEEDS,
        extra="hf",
    )
    register(
        "answers",
        "tian_kvcache.answers:answers",
        summary="greedy answers to questions about long contexts under cache policies: F1 and exact match",
        options="tian_kvcache.answers_options:AnswersOptions",
        needs=NEEDS,
        extra="hf",
    )
    register(
        "streameval",
        "tian_kvcache.streameval:streameval",
        summary="exact answers to questions about facts some lines back in a stream, by policy and distance",
        options="tian_kvcache.streameval_options:StreamEvalOptions",
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
    """Sections of the report of a run of ours."""
    module = STUDIES.get(str(run.config.recipe))
    return list(import_module(module).sections(run)) if module else []


@hookimpl
def tian_compare_sections(runs: list[Any]) -> list[Any]:
    """Perplexity curves of several `kvcache/stream` runs in one plot."""
    if any(run.config.recipe != "kvcache/stream" for run in runs):
        return []
    from tian_kvcache.report import compare_sections

    return compare_sections(runs)
