"""A solver as a layer of a network: every output meets the rules, and gradients come back by an estimator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tian.errors import InvalidInput, NanError
from tian_genco.grad.oracle import Oracle, check_costs

if TYPE_CHECKING:
    from tian.spec import Instance, Solver
    from tian_genco.grad.costs import Normaliser
    from tian_genco.grad.estimators import Estimator
    from tian_genco.problem import Problem


class SolverLayer(nn.Module):
    """x(c) = argmin c.x under the rules of a problem, with an estimated gradient.

    Rows whose solve ends without an x (time limit, error) give x = 0 and gradient 0 and are counted; so do rows that
    need no second solve because nothing comes from above. The number of calls is a buffer: with it in the checkpoint, a
    resumed training draws the same noise.

    Args:
        solver: any solver that takes the kind of the problem; solves in double precision on the CPU.
        problem: the rules; of an instance the cost plays no part.
        estimator: what comes back for what goes in.
        time_limit_s: seconds for each solve.
        max_fail_rate: share of solves that may fail, once there were 100.
        normaliser: normalises costs before they are solved, and projects what comes from above, so that lambda is in
            units of the part that matters; None leaves both as they are.
        tie_seed: breaks ties by one fixed field (see `tian_genco.grad.costs.ties`); None leaves them to the solver.
        least: costs below it are solved as it, for solvers that take no negative costs; None takes them as they are.

    Attributes:
        oracle: the counted solver.
    """

    step: Tensor  # calls so far

    def __init__(
        self,
        solver: Solver,
        problem: Problem | Instance,
        estimator: Estimator,
        *,
        time_limit_s: float,
        max_fail_rate: float = 0.01,
        normaliser: Normaliser | None = None,
        tie_seed: int | None = None,
        least: float | None = None,
    ) -> None:
        super().__init__()
        self.oracle = Oracle(
            solver,
            problem,
            time_limit_s=time_limit_s,
            max_fail_rate=max_fail_rate,
            tie_seed=tie_seed,
            least=least,
        )
        self.estimator = estimator
        self.normaliser = normaliser
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, costs: Tensor) -> Tensor:
        """The x `[B, n]` for `costs [B, n]`, in their type and on their device.

        Raises:
            InvalidInput: costs of another shape, not floating or not finite; contradicting rules; a second derivative.
            RunError: too many solves failed.
            NanError: on the way back, when what comes from above is not finite.
        """
        check_costs(costs, self.oracle.n)
        u = costs if self.normaliser is None else self.normaliser(costs)
        x: Tensor = _Estimate.apply(u, self)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.step += 1
        return x.to(costs.dtype)

    def counts(self) -> dict[str, Any]:
        """Solves, failures, status, routes and seconds; see `Oracle.counts`."""
        return self.oracle.counts()


class _Estimate(torch.autograd.Function):
    """The estimator as torch sees it; all arithmetic is float64 on the CPU."""

    @staticmethod
    def forward(ctx: Any, costs: Tensor, layer: SolverLayer) -> Tensor:
        cost = costs.detach().to("cpu", torch.float64)
        x, saved = layer.estimator.forward(layer.oracle, cost, step=int(layer.step))
        found = ~x.sum(1).isnan()
        ctx.layer, ctx.found = layer, found
        ctx.save_for_backward(*saved)
        return (x if bool(found.all()) else torch.where(found[:, None], x, 0.0)).to(costs)

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor, None]:
        if torch.is_grad_enabled():
            raise InvalidInput(
                "the gradient of a solver layer is an estimate and has no derivative of its own",
                where="backward with create_graph=True",
                hint="detach the output of the solver layer where a second derivative is taken, as in a gradient penalty",
            )
        layer: SolverLayer = ctx.layer
        d = above[0].to("cpu", torch.float64)
        if not bool(d.sum().isfinite()) and not bool(torch.isfinite(d).all()):  # the sum is one quick pass
            row = int((~torch.isfinite(d)).any(1).nonzero()[0])
            raise NanError(f"the gradient that reaches the solver layer is not finite in batch row {row}")
        if layer.normaliser is not None:
            d = layer.normaliser.project(d.to(layer.normaliser.basis.device)).cpu()
        wanted, saved = ctx.found & (d.abs().amax(1) > 0), ctx.saved_tensors
        if bool(wanted.all()):
            grad = _without_nan(layer.estimator.backward(layer.oracle, saved, d))
        else:
            grad = torch.zeros_like(d)
            if bool(wanted.any()):
                rows = layer.estimator.backward(layer.oracle, tuple(t[wanted] for t in saved), d[wanted])
                grad[wanted] = _without_nan(rows)
        return grad.to(above[0]), None


def _without_nan(rows: Tensor) -> Tensor:
    """`rows [B, n]` with zeros in place of rows that hold NaN."""
    failed = rows.sum(1, keepdim=True).isnan()
    return torch.where(failed, 0.0, rows) if bool(failed.any()) else rows
