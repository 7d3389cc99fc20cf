"""Costs up to what the optimum does not see: multiples of equality rows, and positive scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.linalg import qr
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

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

    basis: Tensor  # [n, r] float64, orthonormal columns: the equalities, with zeros in fixed columns
    free: Tensor  # [n] float64: 1 in the columns that are not fixed, 0 in the others

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        milp = problem.milp()
        self.n = milp.n
        free = (milp.col_lower[: milp.n] != milp.col_upper[: milp.n]).astype(np.float64)
        if not free.any():
            raise InvalidInput("every column is fixed: no cost has an influence", where=f"problem {problem.kind!r}")
        self.count = int(free.sum())
        self.register_buffer("free", torch.from_numpy(free), persistent=False)
        self.register_buffer("basis", torch.from_numpy(_basis(milp.equalities() * free)), persistent=False)

    def project(self, costs: Tensor) -> Tensor:
        """P applied to `costs [..., n]`, float64; rows of which only rounding would remain are 0."""
        c = costs.double()
        inside = c * self.free
        basis = self.basis.double()  # a module moved to half precision still projects as exactly as it can
        inside = inside - (inside @ basis) @ basis.T
        rounding = _largest(inside) <= ROUNDING * _largest(c)
        return torch.where(rounding, 0.0, inside) if bool(rounding.any()) else inside

    def forward(self, costs: Tensor) -> Tensor:
        """The normalised `[..., n]` float64 of `costs [..., n]`.

        Double precision on purpose: ties of size 1e-6 drown in the rounding of single precision.
        """
        if costs.shape[-1] != self.n:
            raise InvalidInput(f"costs have {costs.shape[-1]} entries, the problem has {self.n}")
        u: Tensor = _Normalise.apply(costs, self)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return u


class _Normalise(torch.autograd.Function):
    """The map and the derivative of `Normaliser` as written there; a third of the time of torch's own chain."""

    @staticmethod
    def forward(ctx: Any, costs: Tensor, normaliser: Normaliser) -> Tensor:
        projected = normaliser.project(costs)
        largest = _largest(projected)
        u = projected / torch.where(largest == 0, 1.0, largest)  # squares of tiny costs would underflow
        size = torch.linalg.vector_norm(u, dim=-1, keepdim=True) / normaliser.count**0.5
        u /= torch.where(size == 0, 1.0, size)
        ctx.normaliser, ctx.dtype = normaliser, costs.dtype
        ctx.save_for_backward(u, largest * size)
        return u

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, None]:
        u, s = ctx.saved_tensors
        along = (u * above).sum(-1, keepdim=True) / ctx.normaliser.count
        grad = (ctx.normaliser.project(above) - u * along) / s  # P u = u
        return (grad if bool((s != 0).all()) else torch.where(s == 0, 0.0, grad)).to(ctx.dtype), None


def _largest(rows: Tensor) -> Tensor:
    """The largest size `[..., 1]` of an entry of `rows [..., n]`."""
    return rows.detach().abs().amax(-1, keepdim=True)


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
