"""Autoregressive prior over grids of codes, and its steering by what samples cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from tian_genco.maps.vae import expected_costs

if TYPE_CHECKING:
    from tian_genco.maps.objective import Objective
    from tian_genco.maps.vqvae import VQVAE, CostHead

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

    A drawn code is passed on as its one-hot vector, with the gradient of its probability given the codes before it
    (straight-through, at each cell for itself), through the fixed decoder and the fixed head to the costs. There the
    gradient of the path's cost is the path.

    Args:
        prior: trained in place; the only part with parameters that change.
        vqvae: decodes.
        head: reads costs.
        levels: `[L]` cost of each class.
        objective: of the samples; None for none.
    """

    def __init__(
        self, prior: CodePrior, vqvae: VQVAE, head: CostHead, levels: Tensor, *, objective: Objective | None
    ) -> None:
        super().__init__()
        self.prior, self.objective = prior, objective
        self.vqvae = vqvae.requires_grad_(requires_grad=False)
        self.head = head.requires_grad_(requires_grad=False)
        self.levels: Tensor
        self.register_buffer("levels", levels, persistent=False)

    def costs(self, uniform: Tensor) -> Tensor:
        """Expected costs `[M, h, w]` of drawn maps, with a gradient to the prior; `uniform` as in `CodePrior.sample`."""
        p = self.prior
        codes = p.sample(uniform)
        likely = p.logits(codes).softmax(dim=2)
        chosen = functional.one_hot(codes.flatten(1), p.codes).to(likely.dtype)
        vectors = (chosen + likely - likely.detach()) @ self.vqvae.codebook.vectors
        grid = vectors.transpose(1, 2).reshape(len(codes), -1, p.height, p.width)
        return expected_costs(self.head.logits(self.vqvae.decode(grid)), self.levels)

    def forward(self, codes: Tensor, uniform: Tensor) -> dict[str, Tensor]:
        """Scalars `loss`, `nats` and, with an objective, `objective`, for the codes `[B, h, w]` of training maps."""
        nats = self.prior.nats(codes).mean()
        out = {"loss": nats, "nats": nats}
        if self.objective is not None:
            out["objective"] = self.objective(self.costs(uniform))
            out["loss"] = nats + self.objective.weight * out["objective"]
        return out
