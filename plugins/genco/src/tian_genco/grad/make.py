"""From options to objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tian.errors import InvalidInput
from tian_genco.grad.costs import Normaliser
from tian_genco.grad.estimators import IMLE, BlackBox, Estimator, Identity, Perturbed
from tian_genco.grad.layer import SolverLayer

if TYPE_CHECKING:
    from tian.spec import Solver
    from tian_genco.grad.options import GradOptions
    from tian_genco.problem import Problem

LOSSES = {
    "spo-plus": "SPO+ compares predicted with true costs, and a gradient from above brings none",
    "fenchel-young": "the Fenchel-Young loss compares with a wanted x, and a gradient from above brings none",
}


def make_estimator(options: GradOptions, *, problem: Problem, seed: int = 0) -> Estimator:
    """The estimator `options` describe; `seed` is the stream of its noise.

    Raises:
        InvalidInput: a loss, which cannot serve as an estimator.
    """
    if options.name in LOSSES:
        raise InvalidInput(
            f"grad.name={options.name}: {LOSSES[options.name]}",
            hint="choose identity, blackbox, perturbed, imle, qptl or log-barrier; the losses are in tian_genco.grad.losses",
        )
    match options.name:
        case "identity":
            return Identity()
        case "blackbox":
            return BlackBox(lam=options.lam)
        case "perturbed":
            return Perturbed(sigma=options.sigma, samples=options.samples, seed=seed)
        case "imle":
            return IMLE(
                sigma=options.sigma,
                lam=options.lam,
                samples=options.samples,
                two_sided=options.two_sided,
                k=options.k,
                seed=seed,
            )
        case "log-barrier":
            from tian_genco.grad.barrier import LogBarrier

            return LogBarrier(problem, mu=options.mu)
        case _:
            from tian_genco.grad.qptl import QPTL

            return QPTL(problem, gamma=options.gamma)


def make_layer(
    options: GradOptions,
    solver: Solver,
    problem: Problem,
    *,
    time_limit_s: float,
    max_fail_rate: float = 0.01,
    seed: int = 0,
) -> SolverLayer:
    """The layer `options` describe."""
    return SolverLayer(
        solver,
        problem,
        make_estimator(options, problem=problem, seed=seed),
        time_limit_s=time_limit_s,
        max_fail_rate=max_fail_rate,
        normaliser=Normaliser(problem) if options.normalise else None,
        tie_seed=options.tie_seed,
    )
