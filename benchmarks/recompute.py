"""`streaming` against recomputation at equal cache size: one stream, one thread, steps of both interleaved.

Both run the same fused attention; recomputation asks for the logits of the last position only. The paper's 22.2x
(arXiv 2309.17453, figure 10) is Llama-2-13B at cache 4096 on a GPU; no ratio is promised at this size.
"""

from __future__ import annotations

import statistics
import time

import torch
from _result import save

import tian
from tian.hf import attach, load_model
from tian_kvcache.arms import Arm
from tian_kvcache.reader import _recompute_step

STEPS = 300


@torch.inference_mode()
def main() -> None:
    torch.set_num_threads(1)
    cached, plain = load_model(None), load_model(None)
    rows = []
    for size in (64, 128, 256):
        ids = torch.randint(1, 1000, (1, size + STEPS + 8), generator=torch.Generator().manual_seed(size))
        arm = Arm("recompute", None, sinks=1, recent=size - 1)
        times: dict[str, list[float]] = {"streaming": [], "recompute": []}
        with attach(cached, kv=tian.load("kv_policy", "streaming", sinks=1, recent=size - 1)) as cache:
            for t in range(ids.shape[1] - 1):
                start = time.perf_counter()
                cached(input_ids=ids[:, t : t + 1], past_key_values=cache, use_cache=True)
                middle = time.perf_counter()
                if t < size:
                    continue
                _recompute_step(plain, ids, t, arm)
                times["streaming"].append(middle - start)
                times["recompute"].append(time.perf_counter() - middle)
        medians = {name: 1000 * statistics.median(x) for name, x in times.items()}
        ratio = medians["recompute"] / medians["streaming"]
        rows.append({"cache": size, **{f"{k}_ms": round(v, 3) for k, v in medians.items()}, "ratio": round(ratio, 2)})
        print(
            f"cache {size}: streaming {medians['streaming']:.2f} ms, recompute {medians['recompute']:.2f} ms, {ratio:.2f}x"
        )
    save("recompute", rows)


if __name__ == "__main__":
    main()
