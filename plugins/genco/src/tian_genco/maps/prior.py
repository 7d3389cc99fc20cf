"""Autoregressive prior over grids of codes, and its steering by what samples cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from tian_genco.maps.objective import Objective

EMBEDDING = 32  # length of a code's vector as the prior sees it


class CodePrior(nn.Module):
    """p(codes) = product over cells in reading order of p(code | all before).

    A recurrent network sees, at each cell, the codes to its left, above, and above to the right; its state knows the
    rest, but for the last code of the row above, which only the row's later cells see. Outside is one more code.

    Args:
        codes: K.
        height: h.
        width: w.
        state: size of the state.
    """

    def __init__(self, *, codes: int, height: int, width: int, state: int) -> None:
        super().__init__()
        self.codes, self.height, self.width = codes, height, width
        self.embedding = nn.Embedding(codes + 1, EMBEDDING)
        self.place = nn.Parameter(0.1 * torch.randn(height * width, 3 * EMBEDDING))
        self.core = nn.GRU(3 * EMBEDDING, state, batch_first=True)
        self.head = nn.Linear(state, codes)

    def _framed(self, codes: Tensor) -> Tensor:
        """`[B, h, w]` with a frame of the code for outside: one row above, one column on each side."""
        return functional.pad(codes, (1, 1, 1, 0), value=self.codes)

    def _seen(self, framed: Tensor, r: slice, c: slice) -> Tensor:
        """Embedded left, upper and upper right neighbours of the cells in rows r, columns c: `[B, cells, 3E]`."""
        rows, columns = range(self.height)[r], range(self.width)[c]
        top, left = rows.start, columns.start
        bottom, right = rows.stop, columns.stop
        near = torch.stack(
            [
                framed[:, top + 1 : bottom + 1, left:right],
                framed[:, top:bottom, left + 1 : right + 1],
                framed[:, top:bottom, left + 2 : right + 2],
            ],
            dim=-1,
        )
        found: Tensor = self.embedding(near).flatten(1, 2).flatten(2)
        return found

    def logits(self, codes: Tensor) -> Tensor:
        """`[B, h, w]` int64 -> `[B, h*w, K]`: logits of each code, given those before it."""
        seen = self._seen(self._framed(codes), slice(None), slice(None)) + self.place
        states, _ = self.core(seen)
        found: Tensor = self.head(states)
        return found

    def nats(self, codes: Tensor) -> Tensor:
        """`[B]`: -log p of `codes [B, h, w]`."""
        return functional.cross_entropy(self.logits(codes).transpose(1, 2), codes.flatten(1), reduction="none").sum(
            dim=1
        )

    @torch.no_grad()
    def sample(self, uniform: Tensor) -> Tensor:
        """Grids of codes `[B, h, w]` int64, by inverting the distribution function at `uniform [B, h*w]` in [0, 1)."""
        B = len(uniform)
        codes = torch.zeros(B, self.height, self.width, dtype=torch.int64, device=uniform.device)
        framed, state = self._framed(codes), None
        for t in range(self.height * self.width):
            r, c = divmod(t, self.width)
            seen = self._seen(framed, slice(r, r + 1), slice(c, c + 1)) + self.place[t]
            out, state = self.core(seen, state)
            below = self.head(out[:, 0]).softmax(dim=1).cumsum(dim=1)
            code = (below <= uniform[:, t : t + 1]).sum(dim=1).clamp_max(self.codes - 1)
            framed[:, r + 1, c + 1] = code
        return framed[:, 1:, 1:-1].clone()


class PriorLoss(nn.Module):
    """Nats of the codes of training maps, and the objective of maps drawn from the prior itself.

    A cell costs what training cells with its code do on average. The drawn code counts in the cost, with the gradient
    of its probability given the codes before it (straight-through, at each cell for itself); what a code does to later
    ones is left out. The gradient of the path's cost is the path. Going through decoder and cost head instead lowered
    nothing on the one seed tried, perhaps since a head that is sure of its classes has hardly any gradient.

    Args:
        prior: trained in place.
        table: `[K]` float32, >= 0, mean cost of each code.
        objective: of the samples; None for none.
    """

    def __init__(self, prior: CodePrior, table: Tensor, *, objective: Objective | None) -> None:
        super().__init__()
        self.prior, self.objective = prior, objective
        self.table: Tensor
        self.register_buffer("table", table, persistent=False)

    def costs(self, uniform: Tensor) -> Tensor:
        """Costs `[M, h, w]` of drawn maps, with a gradient to the prior; `uniform` as in `CodePrior.sample`."""
        codes = self.prior.sample(uniform)
        expected = self.prior.logits(codes).softmax(dim=2) @ self.table
        return self.table[codes] + (expected - expected.detach()).view(codes.shape)

    def forward(self, codes: Tensor, uniform: Tensor) -> dict[str, Tensor]:
        """Scalars `loss`, `nats` and, with an objective, `objective`, for the codes `[B, h, w]` of training maps."""
        nats = self.prior.nats(codes).mean()
        out = {"loss": nats, "nats": nats}
        if self.objective is not None:
            out["objective"] = self.objective(self.costs(uniform))
            out["loss"] = nats + self.objective.weight * out["objective"]
        return out


def mean_costs(codes: Tensor, costs: Tensor, number: int) -> Tensor:
    """`[number]` float32: mean of `costs` (any shape) over the cells with each of the `codes`; of all where there are none."""
    uses = torch.bincount(codes.flatten(), minlength=number)
    sums = torch.bincount(codes.flatten(), weights=costs.flatten().double(), minlength=number)
    return torch.where(uses > 0, sums / uses.clamp_min(1), costs.double().mean()).float()
