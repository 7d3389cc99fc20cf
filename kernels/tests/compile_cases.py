"""Compile what launches would compile, for GPUs that need not be here, and count what matters in the result.

Run as `python compile_cases.py 90 bfloat16 float32`: prints `{program: {number: value}}` as JSON. Not with
`TRITON_INTERPRET`. The launches are those of the package; a stand-in for the driver names the target, so triton infers
types and divisibility exactly as it does at a launch.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from kernel_cases import Case, World, tables
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from tian_kernels import colsum, decode, rotate


class Target:
    """As much of a driver as compiling asks for."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self):
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, _device):
        return 0


def spills(ptx: str) -> int | None:
    """Bytes of registers spilled, by the assemblers triton carries; None where none of them says."""
    arch = re.search(r"\.target (sm_\w+)", ptx)[1]
    for assembler in sorted((Path(triton.__file__).parent / "backends" / "nvidia" / "bin").glob("ptxas*")):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "kernel.ptx")
            source.write_text(ptx)
            command = [assembler, "-v", f"--gpu-name={arch}", source, "-o", Path(folder, "out")]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = re.findall(r"(\d+) bytes spill", done.stderr)
        if found:
            return sum(map(int, found))
    return None


def launches(dtype: torch.dtype):
    """Shapes of an 8B model with grouped heads, C = 2048."""
    world = World(Case(H=32, H_kv=8, D=128, R=128, capacity=2048, first=4, last=1024, dtype=dtype))
    q, k, v = world.inputs()
    yield from decode.plan(q, k, v, world.slots, torch.empty_like(q), **world.options)
    prompt, keys = torch.empty(1, 32, 512, 128, dtype=dtype), torch.empty(1, 8, 512, 128, dtype=dtype)
    sums = torch.empty(1, 8, 512)
    yield from colsum.plan(prompt, keys, torch.empty(1, 32, 512), sums, scale=1.0, start=None)
    position = torch.zeros(1, 1, 512, dtype=torch.int32)
    yield from rotate.plan(keys, position, tables(128, 512), torch.empty_like(keys))


if __name__ == "__main__":
    driver.set_active(Target(int(sys.argv[1])))
    out = {}
    for name in sys.argv[2:]:
        for launch in launches(getattr(torch, name)):
            program = launch.kernel.warmup(*launch.args, grid=launch.grid, **launch.options())
            ptx = program.asm["ptx"]
            out[f"{launch.kernel.__name__} {name}"] = {
                "v4": len(re.findall(r"ld\.global[\w.:]*\.v4", ptx)),
                "v2": len(re.findall(r"ld\.global[\w.:]*\.v2", ptx)),
                # 16 bytes a thread, straight to shared memory: what pipelined loads become
                "async16": len(re.findall(r"cp\.async\.cg\.shared\.global", ptx)),
                "tensor_core": len(re.findall(r"\b(?:wg)?mma\.", ptx)),
                "spills": spills(ptx),
                "shared_kib": round(program.metadata.shared / 1024, 1),
                "cubin": len(program.asm["cubin"]),
            }
    sys.stdout.write(json.dumps(out))
