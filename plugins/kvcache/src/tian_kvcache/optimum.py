"""The best any eviction could have done: retained attention of a frozen trace, maximised exactly, one head at a time.

Each of k slots is a unit that travels through time; it may leave the time line at the row a token enters, hold that token
up to some row, and come back. Nodes p_0..p_T are times, q_j tokens; arcs p_t -> p_{t+1} carry idle slots, p_s -> q_j lets
token j in at its first row s, q_j -> p_{e+1} holds it up to row e and earns the attention of rows s..e. A minimum-cost flow
of k units from p_0 to p_T is integral, so it is the optimum: a token that left does not return, k are held at a time.

Source: ours. For retained attention this is what Belady's rule is for cache hits.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tian.errors import InvalidInput, MissingDependency, RunError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAFE_BITS = 62  # of a signed 64-bit integer


@dataclass(frozen=True)
class Optimum:
    """The optimum of one head and its certificate.

    Attributes:
        value: attention retained on earlier tokens, rows `start` and later; recomputed in float64 from `end`.
        upper: no plan retains more than this (value, plus what rounding to integers may hide).
        end: `[T]` int64, last row at which each token is visible; its own row if no later one.
        visible: `[T, T]` bool.
    """

    value: float
    upper: float
    end: NDArray[np.int64]
    visible: NDArray[np.bool_]


def _solver() -> Any:
    try:
        return importlib.import_module("ortools.graph.python.min_cost_flow").SimpleMinCostFlow()
    except ImportError:
        raise MissingDependency(
            "the offline optimum needs the package 'ortools', which is not installed",
            where="tian_kvcache.optimum",
            hint="pip install 'tian-plugin-kvcache[regret]'",
        ) from None


def visibility(end: NDArray[np.int64], *, start: int = 0) -> NDArray[np.bool_]:
    """`[T, T]` bool: j visible at row t when j <= t <= end[j]; rows below `start` see everything before them."""
    t = np.arange(len(end))
    return (t[None, :] <= t[:, None]) & ((t[:, None] <= end[None, :]) | (t[:, None] < start))


def optimum(trace: NDArray[np.floating[Any]], k: int, *, recent: int = 0, start: int = 0) -> Optimum:
    """Maximise retained attention with k tokens kept beside the query itself.

    Args:
        trace: `[T, T]` causal attention weights, >= 0; the diagonal and what is above it are not counted.
        k: tokens kept after eviction, >= 1.
        recent: this many newest tokens are always among them, 0..k; policies keep at least the newest (1).
        start: rows below it see everything and do not count (a prompt that is attended in full).

    Raises:
        InvalidInput: sizes out of range, or weights that are negative or not finite.
        MissingDependency: ortools is not installed.
        RunError: the certificate does not hold, a fault of ours or of the solver.
    """
    A = np.tril(np.asarray(trace, dtype=np.float64), -1)
    T = A.shape[0]
    if A.shape != (T, T) or T < 1 or k < 1 or not 0 <= recent <= k or not 0 <= start <= T:
        raise InvalidInput(
            f"need a square trace, k >= 1, 0 <= recent <= k and 0 <= start <= T, got {A.shape}, k={k}, recent={recent}, "
            f"start={start}"
        )
    if not np.isfinite(A).all() or (A < 0).any():
        raise InvalidInput("a trace must be finite and >= 0: attention weights, not logits")
    A[:start] = 0.0
    j = np.arange(T)
    first = np.maximum(j + recent + 1, start)  # first row at which holding j is a choice
    held = np.minimum(np.maximum(j + recent, np.where(j < start, start - 1, j)), T - 1)
    gained, hidden = 0.0, 0.0
    end = held
    if k > recent and A.sum() > 0:
        end, gained, hidden = _flow(A, k - recent, first, held)
    visible = visibility(end, start=start)
    seen = np.tril(visible, -1)
    seen[:start] = False
    value = float((A * seen).sum())
    if seen.sum(axis=1).max(initial=0) > k:
        raise RunError(f"the optimum holds {seen.sum(axis=1).max()} tokens, more than {k}: a fault, please report it")
    base = float((A * np.tril(visibility(held, start=start), -1)).sum())
    if abs(value - base - gained) > hidden + 1e-9 * max(1.0, value):
        raise RunError(f"the optimum retains {value}, the flow says {base + gained}: a fault, please report it")
    return Optimum(value, base + gained + hidden, end, visible)


def _flow(
    A: NDArray[np.float64], k: int, first: NDArray[np.int64], held: NDArray[np.int64]
) -> tuple[NDArray[np.int64], float, float]:
    """Last rows of the optimal plan, what it gains beyond `held`, and how much rounding may hide."""
    T = A.shape[0]
    total = np.cumsum(A, axis=0)
    tokens = np.flatnonzero(first < T)
    before = np.where(first > 0, total[np.clip(first - 1, 0, T - 1), np.arange(T)], 0.0)
    rows = np.arange(T)
    at, e = np.nonzero(rows[None, :] >= first[tokens][:, None])
    who = tokens[at]
    # The solver multiplies costs by the number of nodes and adds up to that many of them.
    bits = SAFE_BITS - 2 * int(np.ceil(np.log2(2 * T + 2))) - 2
    scale = 2.0**bits / float(A.sum(axis=0).max())
    gain = np.round((total[e, who] - before[who]) * scale).astype(np.int64)
    tails = np.concatenate([rows, first[tokens], T + 1 + who])
    heads = np.concatenate([rows + 1, T + 1 + tokens, e + 1])
    caps = np.concatenate([np.full(T, k), np.ones(len(tokens) + len(who), dtype=np.int64)]).astype(np.int64)
    costs = np.concatenate([np.zeros(T + len(tokens), dtype=np.int64), -gain])
    solver = _solver()
    arcs = solver.add_arcs_with_capacity_and_unit_cost(tails, heads, caps, costs)
    solver.set_nodes_supplies(np.array([0, T]), np.array([k, -k]))
    status = solver.solve()
    if status != solver.OPTIMAL:
        raise RunError(f"the flow solver answered {status} for T={T}, k={k}: a fault, please report it")
    used = np.asarray(solver.flows(arcs[T + len(tokens) :])) > 0
    end = held.copy()
    end[who[used]] = e[used]
    # Each token is held once at most, and each interval's gain is off by half a unit at most.
    return end, -solver.optimal_cost() / scale, 0.5 * len(tokens) / scale
