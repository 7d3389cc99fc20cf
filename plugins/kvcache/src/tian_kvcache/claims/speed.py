"""Claims about time, of both papers, measured in turns within one process beside what is physically possible.

Time depends on the machine: the bars are set for one CPU thread and models of some 30 M parameters with random weights.
There is no accelerator here whose memory is slower to reach from outside than from inside, so the large factors of the
H2O paper (29 times over systems that keep weights in CPU memory) are out of reach; the bars say what can be had instead.
"""

from __future__ import annotations

from tian.claims import Check, Claim, Ge

STREAMING, H2O = "2309.17453", "2306.14048"
ONE_THREAD = "one CPU thread; random weights, as time does not depend on them"
LLAMA = f"a Llama of 29 M parameters, float32, {ONE_THREAD}; the paper: Llama-2-13B on an A6000"
OPT = f"an OPT of 31 M parameters, float32, {ONE_THREAD}; the paper: OPT-6.7B and OPT-30B on a T4 and an A100"
RANDOM = "the paper's shape with random weights, as time does not depend on them"
GPU = ("device=cuda", "recorded=true")  # run by Python, starting the kernels takes longer than they do
H2O_SEEDS = "kvcache/h2o-step-faster-at-equal-batch"  # all three claims about h2o judge the same runs


def _recompute(*overrides: str, seconds: float, stands_in: str = "") -> Check:
    """4,096 tokens in the cache or run again; the control has 256, as the gain comes from the length."""
    return Check(
        config="kvcache/speed",
        overrides=("studies=[recompute]", "rounds=3", "sizes=[4096]", *overrides),
        control=("sizes=[256]",),
        metric="speed over recomputation",
        holds=Ge(22.2),
        seeds=3,
        budget_s=seconds,
        stands_in=stands_in or LLAMA,
    )


def _h2o(metric: str, bar: float, *, gpu: float, paper: float, seeds_of: str = "") -> dict[str, Check]:
    """A check on an OPT that keeps a fifth of its tokens, against keeping everything in the same slots.

    Bars: `bar` of 31 M parameters on a CPU; on a GPU `gpu`, and `paper` for what the paper reports at its batch of 24.
    """

    def check(*overrides: str, least: float, stands_in: str) -> Check:
        return Check(
            config="kvcache/speed",
            overrides=(*overrides, "studies=[batch,memory]", "disk=true", "rounds=6", "steps=2"),
            control=("kv=full",),
            metric=metric,
            holds=Ge(least),
            seeds=3,
            seeds_of=seeds_of,
            budget_s=900.0,
            stands_in=stands_in,
        )

    big = ("shape=opt-6.7b", "device=cuda")
    return {
        "cpu": check("shape=opt-31m", least=bar, stands_in=OPT),
        "gpu": check(*big, least=gpu, stands_in=RANDOM),
        "paper": check(*big, "batch=24", least=paper, stands_in=RANDOM),
    }


CLAIMS = [
    Claim(
        id="kvcache/streaming-faster-than-recomputation",
        paper=STREAMING,
        where="figure 10",
        promises=("SL8",),
        says="at a cache of 4,096 tokens, a streaming step is at least 22.2 times as fast as running the window again",
        checks={
            "tiny": _recompute("shape.layers=2", seconds=108.0, stands_in=f"two layers of {LLAMA}"),
            "cpu": _recompute(seconds=600.0),
            "gpu": _recompute("shape=llama-2-7b", *GPU, seconds=600.0, stands_in=RANDOM),
            "paper": _recompute("shape=llama-2-13b", *GPU, seconds=1200.0, stands_in=RANDOM),
        },
    ),
    Claim(
        id=H2O_SEEDS,
        paper=H2O,
        where="section 5.3, latency at equal batch",
        promises=("HH7",),
        says="with a fifth of the tokens kept, a decoding step is faster than on the fastest full cache, at equal batch",
        checks=_h2o("speed over full cache, equal batch", 1.5, gpu=1.5, paper=1.86),
    ),
    Claim(
        id="kvcache/h2o-throughput-at-equal-memory",
        paper=H2O,
        where="table of throughput, against FlexGen",
        promises=("HH6",),
        says="in the same memory, a fifth of the tokens kept gives at least 2.5 times the tokens a second of a full cache",
        checks=_h2o("throughput over full cache, equal memory", 2.5, gpu=2.5, paper=3.0, seeds_of=H2O_SEEDS),
    ),
    Claim(
        id="kvcache/h2o-throughput-over-offloaded-weights",
        paper=H2O,
        where="table of throughput, against Accelerate",
        promises=("HH6",),
        says="in the same memory, it gives at least 4 times the tokens a second of a full cache that keeps its weights outside",
        checks=_h2o("throughput over offloaded weights, equal memory", 4.0, gpu=4.0, paper=29.0, seeds_of=H2O_SEEDS),
    ),
]
