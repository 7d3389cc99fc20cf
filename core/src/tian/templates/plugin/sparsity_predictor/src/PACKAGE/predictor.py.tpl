"""The sparsity predictor: ridge regression of low rank from the input to the magnitude of each unit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from tian.errors import InvalidInput, NotFitted
from tian.spec import Cost, FitReport, Site, SparsityPredictor, Trace

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

    from @@package@@.options import @@Class@@Options

PARTS = ("down", "up", "bias")


class @@Class@@(SparsityPredictor):
    """Predicts magnitudes as `x @ down @ up + bias` and takes the units with the largest."""

    site_kinds: ClassVar[frozenset[str]] = frozenset({"neuron", "head"})
    source = "mlp_in"

    def __init__(self, options: @@Class@@Options) -> None:
        self.options = options
        self._parts: dict[str, dict[str, Tensor]] = {}  # site -> down [d, r], up [r, M], bias [M]

    def fit(self, traces: Iterable[Trace], *, seed: int) -> FitReport:
        """Learn each site from four fifths of its tokens; the recall of the largest quarter is that on the rest.

        Raises:
            InvalidInput: a trace with fewer than 5 tokens, or with values that are not finite.
        """
        recall = {}
        for trace in traces:
            x, y = trace.x.float(), trace.magnitude.float()
            if len(x) < 5 or not bool(torch.isfinite(x).all() & torch.isfinite(y).all()):
                raise InvalidInput(f"{trace.site} needs 5 or more tokens and finite values, it has {len(x)} tokens")
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
            held, kept = order[: len(x) // 5], order[len(x) // 5 :]
            self._parts[_key(trace.site)] = self._solve(x[kept], y[kept])
            k = max(1, y.shape[1] // 4)
            found = self.select(trace.site, x[held], k).long()
            picked = torch.zeros_like(y[held], dtype=torch.bool).scatter(1, found, value=True)
            recall[_key(trace.site)] = float(picked.gather(1, y[held].topk(k, dim=1).indices).float().mean())
        return FitReport(recall)

    def _solve(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        mean_x, mean_y = x.mean(dim=0), y.mean(dim=0)
        a, b = (x - mean_x).double(), (y - mean_y).double()
        eye = torch.eye(x.shape[1], dtype=torch.float64)
        weight = torch.linalg.solve(a.T @ a + self.options.ridge * len(x) * eye, a.T @ b)
        u, s, vh = torch.linalg.svd(weight, full_matrices=False)
        r = min(self.options.rank, len(s))
        down, up = (u[:, :r] * s[:r]).float(), vh[:r].float()
        return {"down": down, "up": up, "bias": mean_y - mean_x @ down @ up}

    def select(self, site: Site, x: Tensor, k: int) -> Tensor:
        """`x [N, d]` -> `[N, k]` int32, ascending, -1 at the end when there are fewer than k units.

        Raises:
            NotFitted: the site was not fitted. InvalidInput: k < 1.
        """
        parts = self._parts.get(_key(site))
        if parts is None:
            raise NotFitted(f"{site} was not fitted", hint="call fit() with traces of it first")
        if k < 1:
            raise InvalidInput(f"k must be >= 1, got {k}", hint="ask for at least one unit")
        down, up, bias = (parts[name].to(x.device) for name in PARTS)
        guess = x.float() @ down @ up + bias
        have = min(k, guess.shape[1])
        units = guess.topk(have, dim=1).indices.sort(dim=1).values.int()
        return torch.nn.functional.pad(units, (0, k - have), value=-1)

    def cost(self, site: Site, n: int) -> Cost:
        """The weights, the tokens in and the guesses out, 4 bytes a number; two flops a weight and token."""
        parts = self._parts.get(_key(site))
        if parts is None:
            raise NotFitted(f"{site} was not fitted", hint="call fit() with traces of it first")
        weights = sum(p.numel() for p in parts.values())
        d, m = parts["down"].shape[0], parts["bias"].numel()
        return Cost(bytes_=4 * (weights + n * (d + m)), flops=2 * n * weights)

    def state_dict(self) -> dict[str, Any]:
        """The base model's fingerprint, the source, and the weights of each site."""
        weights = {f"{site}.{name}": p.clone() for site, parts in self._parts.items() for name, p in parts.items()}
        return {"base": self.options.base, "source": self.source, **weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore.

        Raises:
            InvalidInput: the state is of another base model or source, or not complete.
        """
        for name, mine in (("base", self.options.base), ("source", self.source)):
            if state.get(name) != mine:
                raise InvalidInput(
                    f"the state has {name} {state.get(name)!r}, this predictor {mine!r}",
                    hint="load it into a predictor made with the same options, or fit again",
                )
        parts: dict[str, dict[str, Tensor]] = {}
        for key, value in state.items():
            if key not in ("base", "source"):
                site, _, name = key.rpartition(".")
                parts.setdefault(site, {})[name] = value.clone()
        if any(set(found) != set(PARTS) for found in parts.values()):
            raise InvalidInput(f"the state is not complete: {sorted(state)}", hint="fit again")
        self._parts = parts


def _key(site: Site) -> str:
    return f"{site.kind}.{site.layer}"
