"""Costs up to what the optimum does not see: multiples of equality rows, and positive scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.linalg import qr
from torch import Tensor, nn

from tian.errors import InvalidInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tian_genco.problem import Problem

TIE = 1e-6  # size of the tie-breaking field; costs have unit RMS
ROUNDING = 1e-12  # relative; what remains of a cost in the span of the equalities
RANK_TOLERANCE = 1e-10  # relative; an equality row whose remainder is smaller depends on the others


class Normaliser(nn.Module):
    r"""Brings costs into the one form that stands for all costs with the same optimum.

    Let E `[G, n]` hold the equalities of the problem, fixed columns among them, and F be the number of columns not
    fixed. For every solution E x = e, so c + E^T m has the objective c.x + m.e: the same optimum. With P = I - Q Q^T the
    orthogonal projection onto the complement of the rows of E,

        u = P c / s,    s = sqrt(|P c|^2 / F),

    which is 0 in fixed columns and has unit RMS over the others. A cost with P c = 0 (below 1e-12 of its largest entry) says
    nothing about x and gives u = 0 with gradient 0. The derivative of c -> u, applied to a gradient g = dL/du, is

        dL/dc = P (g - u (u.g) / F) / s :

    no part along E, nor along the cost itself, reaches what computed the cost. Source: sections 2.1 and 8.5 of the
    notes ("both projections"), here for any equalities.

    Args:
        problem: n columns with equality rows and fixed columns.

    Raises:
        InvalidInput: every column is fixed.
    """

    basis: Tensor  # [F, r] float64, orthonormal: the equalities, restricted to the columns that are free
    free: Tensor  # [F] int64

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        milp = problem.milp()
        self.n = milp.n
        free = np.flatnonzero(milp.col_lower[: milp.n] != milp.col_upper[: milp.n])
        if not len(free):
            raise InvalidInput("every column is fixed: no cost has an influence", where=f"problem {problem.kind!r}")
        self.register_buffer("free", torch.from_numpy(free), persistent=False)
        self.register_buffer("basis", torch.from_numpy(_basis(milp.equalities()[:, free])), persistent=False)

    def project(self, costs: Tensor) -> Tensor:
        """P applied to `costs [..., n]`, float64; rows of which only rounding would remain are 0."""
        c = costs.double()
        inside = c[..., self.free]
        basis = self.basis.double()  # a module moved to half precision still projects as exactly as it can
        inside = inside - (inside @ basis) @ basis.T
        rounding = inside.detach().abs().amax(-1, keepdim=True) <= ROUNDING * c.detach().abs().amax(-1, keepdim=True)
        return torch.zeros_like(c).index_copy(-1, self.free, torch.where(rounding, 0.0, inside))

    def forward(self, costs: Tensor) -> Tensor:
        """The normalised `[..., n]` float64 of `costs [..., n]`.

        Double precision on purpose: ties of size 1e-6 drown in the rounding of single precision.
        """
        if costs.shape[-1] != self.n:
            raise InvalidInput(f"costs have {costs.shape[-1]} entries, the problem has {self.n}")
        u = self.project(costs)
        largest = u.detach().abs().amax(-1, keepdim=True)
        v = u / torch.where(largest == 0, 1.0, largest)  # squares of tiny costs would underflow
        square = v.square().sum(-1, keepdim=True) / len(self.free)
        return v / torch.where(square == 0, 1.0, square).sqrt()


def _basis(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """`[F, r]` orthonormal columns that span the rows of `[G, F]`, which may depend on each other."""
    rows = rows[np.abs(rows).sum(1) > 0]
    if not len(rows):
        return np.zeros((rows.shape[1], 0))
    q, r, _ = qr(rows.T, mode="economic", pivoting=True)
    size = np.abs(np.diag(r))
    return np.ascontiguousarray(q[:, : int((size > RANK_TOLERANCE * size[0]).sum())])


def ties(n: int, seed: int) -> NDArray[np.float64]:
    """`[n]` float64 uniform in [-1e-6, 1e-6): breaks ties the same way in every sample.

    Drawn anew for each sample it would turn equal costs into different objects, and look like diversity.
    """
    return np.random.default_rng([seed, n]).uniform(-TIE, TIE, n)
