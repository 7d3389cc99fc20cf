"""Cases of the kernel tests, run in this process (reference), under the interpreter, or on a GPU: same code, same data.

Run as a script with names of groups it prints `{case: {number: value}}` as JSON; `TRITON_INTERPRET=1` must then be set.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass, replace

import torch

from tian_kernels import Rotary, Slots, Victim, colsum, decode, rotate


@dataclass(frozen=True)
class Case:
    """One cache and the stream that is fed to it."""

    B: int = 1
    H: int = 2
    H_kv: int = 1
    D: int = 16
    R: int = 16  # rotating channels; 0: no rotation
    capacity: int = 20
    first: int = 0
    last: int = 0
    decay: float = 1.0
    shared: tuple[int, int] | None = None  # rows of bookkeeping; None: per head, with scores
    sink: bool = False
    slope: bool = False
    flat: bool = False  # all logits zero: every choice by score is a tie
    poison: int = -1  # step whose query is not a number
    dtype: torch.dtype = torch.float32
    start: int = 0  # tokens in the cache before the first step
    steps: int = 3
    block: int = 16
    splits: int | None = 1  # None: as the device has it
    wide_table: bool = False  # tables [P, R] instead of [P, R/2]
    device: str = "cpu"
    drawn: str = "cpu"  # where random numbers come from: the same numbers everywhere, or quickly


def tables(channels: int, positions: int, *, wide: bool = False, device: str = "cpu") -> Rotary:
    """Angles in float64, tables in float32."""
    speed = 10000.0 ** (-torch.arange(0, channels, 2, dtype=torch.float64) / channels)
    angle = torch.arange(positions, dtype=torch.float64)[:, None] * speed
    angle = torch.cat([angle, angle], dim=-1) if wide else angle
    return Rotary(angle.cos().float().to(device), angle.sin().float().to(device), channels)


class World:
    """Slots, tables and inputs of a case; `world.step(f)` feeds the next token to f."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.random = torch.Generator(case.drawn).manual_seed(case.D + case.H)
        rows = (case.B, case.H_kv)
        like = torch.empty(case.D, dtype=case.dtype, device=case.device)
        self.slots = Slots.empty(rows, like, capacity=case.capacity, shared=case.shared)
        if case.start:
            s, n = self.slots, case.start
            s.keys[:, :, :n], s.values[:, :, :n] = self.draw(*rows, n, case.D), self.draw(*rows, n, case.D)
            s.rank[..., :n] = torch.arange(n)
            s.free[:], s.count[:] = n, n
            if s.score is not None:
                # Apart by more than a step adds to most: a rounding names no other victim.
                drawn = torch.rand(*rows, n, generator=self.random, device=case.drawn)
                s.score[..., :n] = drawn.argsort(dim=-1) / 64
        self.options = {
            "victim": Victim(case.first, case.last, case.decay),
            "scale": case.D**-0.5,
            "rotary": tables(case.R, case.capacity + 1, wide=case.wide_table, device=case.device) if case.R else None,
            "sink": torch.randn(case.H, generator=self.random, device=case.drawn).to(case.device)
            if case.sink
            else None,
            "slope": 2.0 ** -torch.arange(1.0, case.H + 1).to(case.device) if case.slope else None,
        }
        self.time = 0

    def draw(self, *shape):
        drawn = torch.randn(*shape, generator=self.random, device=self.case.drawn)
        return drawn.to(self.case.dtype).to(self.case.device)

    def inputs(self):
        c = self.case
        q, k, v = self.draw(c.B, c.H, c.D), self.draw(c.B, c.H_kv, c.D), self.draw(c.B, c.H_kv, c.D)
        if c.flat:
            q = torch.zeros_like(q)
        if self.time == c.poison:
            q = q * math.nan
        self.time += 1
        return q, k, v


def by_kernel(q, k, v, slots, *, block, splits, **options):
    """The triton kernels, whatever the device: this is what runs under the interpreter."""
    out = torch.empty_like(q)
    decode.run(decode.plan(q, k, v, slots, out, block=block, splits=splits, **options), q.device)
    return out


def _gap(a, b):
    return float((a.float() - b.float()).abs().max())


def kernel_against_reference(case: Case) -> dict[str, float]:
    """Largest differences over the steps, and the largest output; `book` counts unequal ranks, free slots, counts and
    stored bits."""
    worlds = World(case), World(case)
    worst = {"out": 0.0, "size": 0.0, "score": 0.0, "book": 0.0}
    for _ in range(case.steps):
        outs = []
        for world, kernel in zip(worlds, (False, True), strict=True):
            inputs = world.inputs()
            if kernel:
                outs.append(by_kernel(*inputs, world.slots, block=case.block, splits=case.splits, **world.options))
            else:
                outs.append(decode.decode_attention_reference(*inputs, world.slots, **world.options))
        a, b = worlds[0].slots, worlds[1].slots
        worst["out"] = max(worst["out"], _gap(*outs))
        worst["size"] = max(worst["size"], float(outs[0].abs().max()))
        if a.score is not None:
            worst["score"] = max(worst["score"], _gap(a.score, b.score))
        for name in ("rank", "free", "count", "keys", "values"):
            worst["book"] += float((getattr(a, name) != getattr(b, name)).sum())
    return worst


class ListRow:
    """One row of one key/value head in plain Python: a list of kept tokens, oldest first, float64."""

    def __init__(self, world: World, b: int, h: int) -> None:
        self.world, self.b, self.h = world, b, h
        self.tokens: list[dict] = []

    def _turn(self, x, position):
        rotary = self.world.options["rotary"]
        if rotary is None:
            return x
        half = rotary.channels // 2
        angle = position * 10000.0 ** (-torch.arange(0, rotary.channels, 2, dtype=torch.float64) / rotary.channels)
        pair = torch.complex(x[:half], x[half : 2 * half]) * torch.polar(torch.ones(half, dtype=torch.float64), angle)
        return torch.cat([pair.real, pair.imag, x[2 * half :]])

    def step(self, time, q, k, v):
        case, options = self.world.case, self.world.options
        self.tokens.append({"time": time, "k": k[self.b, self.h].double(), "v": v[self.b, self.h].double(), "s": 0.0})
        n, G = len(self.tokens), case.H // case.H_kv
        for token in self.tokens:
            token["s"] *= options["victim"].decay
        outs = []
        for head in range(self.h * G, self.h * G + G):
            query = self._turn(q[self.b, head].double(), n - 1)
            logits = [
                float(query @ self._turn(token["k"], place)) * options["scale"]
                - (float(options["slope"][head]) * (n - 1 - place) if case.slope else 0.0)
                for place, token in enumerate(self.tokens)
            ]
            weights = [math.exp(x) for x in logits]
            total = sum(weights) + (math.exp(float(options["sink"][head])) if case.sink else 0.0)
            outs.append(sum(w / total * token["v"] for w, token in zip(weights, self.tokens, strict=True)))
            for w, token in zip(weights, self.tokens, strict=True):
                token["s"] += w / total
        if n > case.capacity:
            choice = range(case.first, case.last + 1)
            # Equal scores to seven digits are ties: float64 here, float32 there.
            gone = min(choice, key=lambda place: (round(self.tokens[place]["s"], 7), place))
            del self.tokens[gone if case.shared is None or case.first != case.last else case.first]
        return torch.stack(outs)


def against_lists(case: Case, *, kernel: bool) -> dict[str, float]:
    """A whole stream from an empty cache; `kept` counts steps whose kept tokens or scores' owners differ."""
    world = World(replace(case, start=0))
    rows = [ListRow(world, b, h) for b in range(case.B) for h in range(case.H_kv)]
    slots = world.slots
    tok = torch.full(slots.rank.shape, -1, dtype=torch.int64)
    worst = {"out": 0.0, "score": 0.0, "kept": 0.0}
    for time in range(case.steps):
        q, k, v = world.inputs()
        tok.scatter_(2, slots.free.cpu().long()[..., None], time)
        if kernel:
            out = by_kernel(q, k, v, slots, block=case.block, splits=case.splits, **world.options)
        else:
            out = decode.decode_attention_reference(q, k, v, slots, **world.options)
        expected = torch.cat([row.step(time, q.cpu(), k.cpu(), v.cpu()) for row in rows]).view(case.B, case.H, case.D)
        worst["out"] = max(worst["out"], _gap(out.cpu().double(), expected))
        for row in rows:
            b, h = (0 if slots.rank.shape[0] == 1 else row.b), (0 if slots.rank.shape[1] == 1 else row.h)
            rank = slots.rank[b, h].cpu()
            slot_of = {int(r): slot for slot, r in enumerate(rank.tolist()) if r >= 0}
            kept = [int(tok[b, h, slot_of[r]]) for r in range(len(slot_of))]
            worst["kept"] += kept != [token["time"] for token in row.tokens] or int(slots.count[b, h]) != len(kept)
            if slots.score is not None:
                mine = torch.tensor([float(slots.score[b, h, slot_of[r]]) for r in range(len(slot_of))])
                worst["score"] = max(worst["score"], _gap(mine, torch.tensor([t["s"] for t in row.tokens])))
    return worst


STREAMS = {
    "window": Case(H=4, shared=(1, 1), capacity=12),
    "streaming": Case(B=2, H=1, shared=(2, 1), first=3, last=3, capacity=12),
    "heavy": Case(H=4, H_kv=2, first=0, last=15, capacity=31),
    "sinks-and-heavy": Case(H=4, first=2, last=11, capacity=20, sink=True, splits=2),
    "decay": Case(last=10, capacity=15, decay=0.9, R=8),
    "last-row": Case(last=10, capacity=15, decay=0.0, slope=True, R=0),
    "ties": Case(last=10, capacity=15, decay=0.0, flat=True),
}
STREAMS = {name: replace(case, steps=70) for name, case in STREAMS.items()}
INTERPRETED_STREAMS = ("window", "sinks-and-heavy", "last-row")  # 25 ms a program: the others in this process only

# start = capacity - 1: of three steps the first fills the row, the others evict.
SHAPES = {
    "mha": Case(B=2, H=2, H_kv=2, capacity=37, start=36, last=20, splits=3),
    "gqa4": Case(H=8, H_kv=2, capacity=37, start=36, last=20, splits=2),
    "gqa8 d64": Case(H=8, H_kv=1, D=64, R=64, capacity=33, start=32, last=9),
    "gqa3 d80 partial": Case(H=6, H_kv=2, D=80, R=20, capacity=33, start=32, last=9, wide_table=True),
    "d128 fp16": Case(H=4, H_kv=1, D=128, R=128, capacity=47, start=46, last=9, dtype=torch.float16, splits=3),
    "d64 partial fp16 sink": Case(H=4, D=64, R=16, capacity=33, start=32, last=9, dtype=torch.float16, sink=True),
    "alibi": Case(H=4, H_kv=2, R=0, capacity=33, start=32, last=9, slope=True),
    "alibi and partial": Case(H=4, H_kv=2, R=8, capacity=33, start=32, last=9, slope=True, sink=True, decay=0.5),
    "one slot beside the new": Case(capacity=1, start=0),
    "mostly empty": Case(H=4, capacity=70, start=1, last=9, splits=5),
    "shared rows": Case(B=2, H=4, H_kv=2, capacity=33, start=32, first=2, last=2, shared=(1, 1)),
    "shared heads": Case(B=2, H=4, H_kv=2, capacity=33, start=32, first=2, last=2, shared=(2, 1)),
    "shared batch": Case(B=2, H=4, H_kv=2, capacity=33, start=32, first=2, last=2, shared=(1, 2)),
    "all in one block": Case(H=4, capacity=13, start=12, last=5, block=64, splits=1),
    "several blocks of pass 2": Case(capacity=600, start=599, last=590, block=64, splits=4),
    "ties between blocks of pass 2": Case(capacity=600, start=599, last=590, block=64, splits=4, flat=True, decay=0.0),
    "d64 bf16": Case(H=4, D=64, R=64, capacity=33, start=32, last=9, dtype=torch.bfloat16, splits=2),
    "not a number": Case(H=4, H_kv=2, capacity=13, start=12, last=5, poison=1, steps=2),
    "ties": Case(H=4, H_kv=2, capacity=33, start=32, last=9, flat=True, decay=0.0),
}

# Layers of real models: heads of Llama 3 8B and OPT 6.7B, whose positions are not rotary. As launched by the package.
LLAMA, OPT = {"H": 32, "H_kv": 8, "D": 128}, {"H": 32, "H_kv": 32, "D": 128}
MODEL_SHAPES = {
    f"{model} B={B} C={C} {rule}": Case(
        **heads,
        R=128 if model == "llama" else 0,
        B=B,
        capacity=C,
        start=C - 1,
        first=4,
        last=C // 2 if rule == "scores" else 4,
        shared=None if rule == "scores" else (1, 1),
        block=32,
        splits=None,
        device="cuda",
        drawn="cuda",
    )
    for model, heads in (("llama", LLAMA), ("opt", OPT))
    for B, C, rule in (
        (1, 2048, "scores"),
        (1, 4096, "scores"),
        (4, 1000, "scores"),
        (8, 4096, "scores"),
        (8, 4096, "age"),
    )
}
QUICK_COLSUMS, QUICK_ROTATIONS = ("chunk", "one token"), ("partial fp16", "partial in place")
QUICK_SHAPES = ("gqa4", "d64 partial fp16 sink", "alibi and partial", "shared heads")


def poisoned(case: Case, *, kernel: bool) -> dict[str, float]:
    """After a query that is not a number: the rank that went in the last step, and whether books are still sound."""
    world = World(case)
    for _ in range(case.steps):
        inputs = world.inputs()
        if kernel:
            by_kernel(*inputs, world.slots, block=case.block, splits=case.splits, **world.options)
        else:
            decode.decode_attention_reference(*inputs, world.slots, **world.options)
    before = World(replace(case, poison=-1, last=0))  # the oldest goes
    for _ in range(case.steps):
        decode.decode_attention_reference(*before.inputs(), before.slots, **before.options)
    ranks = world.slots.rank.cpu().sort(dim=-1).values
    sound = (ranks == torch.arange(-1, case.capacity)).all()
    return {"sound": float(sound), "oldest": float((world.slots.rank == before.slots.rank).all())}


def colsum_case(
    *, B=1, H=4, H_kv=2, D=16, T=50, m=None, padded=False, dtype=torch.float32, block=16, kernel: bool, device="cpu"
) -> dict[str, float]:
    """Against the full matrix in float64; `mass` is the error of the total, `repeat` that of a second run."""
    m = T if m is None else m
    random = torch.Generator().manual_seed(T + D)
    q = torch.randn(B, H, m, D, generator=random).to(dtype).to(device)
    k = torch.randn(B, H_kv, T, D, generator=random).to(dtype).to(device)
    start = torch.arange(3, 3 + 4 * B, 4, dtype=torch.int32, device=device)[:B] if padded else None
    scale = D**-0.5
    first = torch.zeros(B, dtype=torch.int32, device=device) if start is None else start
    key = torch.arange(T, device=device)
    seen = (key <= key[T - m :, None]) & (key >= first[:, None, None])
    real = key[T - m :] >= first[:, None]
    full = q.double() @ k.double().repeat_interleave(H // H_kv, dim=1).transpose(-1, -2) * scale
    full = full.masked_fill(~seen[:, None], -torch.inf)
    p = full.softmax(dim=-1).masked_fill(~real[:, None, :, None], 0.0)
    expected = p.view(B, H_kv, H // H_kv, m, T).sum(dim=(2, 3))
    lse = full.logsumexp(dim=-1).float()

    def once():
        if not kernel:
            return colsum.prefill_colsum_reference(q, k, lse, scale=scale, start=start)
        out = torch.empty(B, H_kv, T, device=device)
        colsum.run(colsum.plan(q, k, lse, out, scale=scale, start=start, block=block), q.device)
        return out

    got, again = once(), once()
    mass = float((got.double().sum(dim=(1, 2)) / (H * real.sum(dim=1)) - 1).abs().max())
    return {"sum": _gap(got, expected), "mass": mass, "repeat": _gap(got, again)}


COLSUMS = {
    "plain": {},
    "padded gqa8 d64": {"B": 2, "H": 8, "H_kv": 1, "D": 64, "T": 40, "padded": True},
    "chunk": {"H": 2, "H_kv": 2, "T": 45, "m": 20, "D": 80},
    "fp16": {"H": 2, "T": 33, "D": 128, "dtype": torch.float16, "padded": True},
    "one token": {"T": 1},
}
MODEL_COLSUMS = {
    "llama": {**LLAMA, "T": 1024, "block": None},
    "llama padded": {**LLAMA, "B": 2, "T": 700, "padded": True, "block": None},
    "llama chunk": {**LLAMA, "T": 4096, "m": 256, "block": None},
    "opt": {**OPT, "T": 1024, "block": None},
}


def rotate_case(
    *, B=2, H=2, n=21, D=16, R=16, rows=(1, 1), dtype=torch.float32, in_place=False, block=8, kernel, device="cpu"
):
    """Against complex multiplication in float64."""
    random = torch.Generator().manual_seed(n)
    x = torch.randn(B, H, n, D, generator=random).to(dtype).to(device)
    position = torch.randint(0, 1000, (*rows, n), generator=random, dtype=torch.int32).to(device)
    rotary = tables(R, 1000, wide=n % 2 == 0, device=device)
    speed = 10000.0 ** (-torch.arange(0, R, 2, dtype=torch.float64) / R)
    angle = position.cpu().double()[..., None] * speed
    half = R // 2
    wide = x.cpu().double()
    pair = torch.complex(wide[..., :half], wide[..., half:R]) * torch.polar(torch.ones_like(angle), angle)
    expected = torch.cat([pair.real, pair.imag, wide[..., R:]], dim=-1)
    before = x.clone()
    out = x if in_place else torch.empty_like(x)
    if kernel:
        rotate.run(rotate.plan(x, position, rotary, out, block=block), x.device)
    elif in_place:
        rotate.rotate_by_table_(x, position, rotary, kernel="torch")
    else:
        out = rotate.rotate_by_table(x, position, rotary, kernel="torch")
    return {"out": _gap(out.cpu(), expected), "input": 0.0 if in_place else _gap(x, before)}


ROTATIONS = {
    "plain": {},
    "in place": {"in_place": True, "rows": (2, 2)},
    "partial fp16": {"D": 80, "R": 20, "n": 16, "rows": (2, 1), "dtype": torch.float16},
    "partial in place": {"D": 64, "R": 16, "in_place": True, "rows": (1, 2)},
}
MODEL_ROTATIONS = {
    "llama": {"B": 1, "H": 8, "D": 128, "R": 128, "n": 4096, "block": 32},
    "llama batch": {"B": 8, "H": 8, "D": 128, "R": 128, "n": 512, "rows": (8, 8), "block": 32},
    "llama in place": {"B": 2, "H": 8, "D": 128, "R": 128, "n": 1000, "in_place": True, "block": 32},
}

GROUPS = {
    "quick": lambda: {
        **{f"shape {n}": kernel_against_reference(SHAPES[n]) for n in QUICK_SHAPES},
        **{f"colsum {n}": colsum_case(**COLSUMS[n], kernel=True) for n in QUICK_COLSUMS},
        **{f"rotate {n}": rotate_case(**ROTATIONS[n], kernel=True) for n in QUICK_ROTATIONS},
    },
    "shapes": lambda: {
        **{
            f"shape {n}": kernel_against_reference(c)
            for n, c in SHAPES.items()
            if n not in QUICK_SHAPES and n != "not a number"
        },
        "poison": poisoned(SHAPES["not a number"], kernel=True),
        **{f"colsum {n}": colsum_case(**c, kernel=True) for n, c in COLSUMS.items() if n not in QUICK_COLSUMS},
        **{f"rotate {n}": rotate_case(**ROTATIONS[n], kernel=True) for n in ROTATIONS if n not in QUICK_ROTATIONS},
    },
    "streams": lambda: {f"stream {n}": against_lists(STREAMS[n], kernel=True) for n in INTERPRETED_STREAMS},
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write(json.dumps({case: numbers for group in sys.argv[1:] for case, numbers in GROUPS[group]().items()}))
