"""Recipe `genco/estimators`: bias and noise of every gradient estimator against the exact smoothed gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tian.config.compose import options_of
from tian.types import Measurement
from tian_genco.grad.barrier import LogBarrier
from tian_genco.grad.costs import Normaliser
from tian_genco.grad.estimators import IMLE, BlackBox, Estimator, Identity, Perturbed, Saved, Solve
from tian_genco.grad.layer import SolverLayer
from tian_genco.grad.noise import draw, generator
from tian_genco.grad.oracle import Oracle
from tian_genco.grad.placement import Placement, PlacementSolver
from tian_genco.grad.qptl import QPTL

if TYPE_CHECKING:
    from tian.runs.rundir import Run
    from tian_genco.grad.options import LaboratoryOptions

FILE = "estimators.json"
COLUMNS = ("dot", "dot_mean", "square", "variance", "exact", "exact_mean")
FIGURES = {  # name -> whether higher is better
    "cosine": True,
    "cosine, loss of the mean": True,
    "scale": None,
    "relative bias": False,
    "noise": False,
    "progress per solve": True,
}
FILTERS = 12
DRAW, COST, LOSS = 1, 2, 3  # streams of randomness


@dataclass(frozen=True)
class WrongSign(Estimator):
    """+d: the negative control."""

    def backward(self, solve: Solve, saved: Saved, d: Tensor) -> Tensor:
        """What `Identity` gives, negated."""
        return d


class Loss:
    """Squared distance of an object's features to those of a target: not linear in x, as generative losses are.

    Features are means of ReLU responses of random 2x2 filters, and the densities of rows and columns; the target is
    their mean over two random placements, which no single placement meets.
    """

    def __init__(self, problem: Placement, seed: int) -> None:
        self.side = problem.side
        source = generator(seed, LOSS)
        self.filters = torch.from_numpy(source.standard_normal((FILTERS, 1, 2, 2)))
        self.shift = torch.from_numpy(source.standard_normal(FILTERS)) / 2
        vertices = problem.vertices()
        self.target = self.features(vertices[source.choice(len(vertices), 2, replace=False)]).mean(0)

    def features(self, x: Tensor) -> Tensor:
        """`[B, F]` of `x [B, n]`."""
        grid = x.reshape(-1, 1, self.side, self.side)
        found = torch.nn.functional.conv2d(grid, self.filters, self.shift).relu().mean((2, 3))
        return torch.cat([found, grid.mean(3).flatten(1), grid.mean(2).flatten(1)], dim=1)

    def __call__(self, x: Tensor) -> Tensor:
        """Loss `[B]` of `x [B, n]`."""
        return (self.features(x) - self.target).square().sum(1)


@dataclass(frozen=True)
class Exact:
    """Both gradients `[n]` an estimator could mean: of E L(x), and of L(E x); x is the optimum of c + sigma z."""

    of_loss: Tensor
    of_mean: Tensor


def exact_gradients(problem: Placement, loss: Callable[[Tensor], Tensor], cost: Tensor, sigma: float) -> Exact:
    """By the chances of all placements, exact to rounding."""
    c = cost.detach().clone().requires_grad_()
    vertices = problem.vertices()
    with torch.enable_grad():
        chances = problem.chances(c, sigma)
        (of_loss,) = torch.autograd.grad(chances @ loss(vertices), c, retain_graph=True)
        (of_mean,) = torch.autograd.grad(loss((chances @ vertices)[None]).sum(), c)
    return Exact(of_loss, of_mean)


def score_function(oracle: Oracle, loss: Callable[[Tensor], Tensor], costs: Tensor, sigma: float, z: Tensor) -> Tensor:
    """`[B, n]`: sum_m z_m (L_m - mean L) / ((M - 1) sigma) for `z [B, M, n]`; needs no slope of L and has no bias."""
    noisy = costs[:, None] + sigma * z
    losses = loss(oracle(noisy.flatten(0, 1))).reshape(noisy.shape[:2])
    centred = losses - losses.mean(1, keepdim=True)
    return torch.einsum("bm,bmn->bn", centred, z) / ((z.shape[1] - 1) * sigma)


@dataclass(frozen=True)
class Arm:
    """A row of the table; `estimator` is None for the score function, `samples` 0 for what draws no noise itself."""

    label: str
    estimator: Estimator | None
    samples: int = 0


def arms_of(options: LaboratoryOptions, seed: int) -> list[Arm]:
    """Every estimator at every parameter, controls first and last."""
    placed, sigma = options.placed, options.sigma
    arms = [Arm(f"score function, {m} samples", None, m) for m in options.samples]
    arms.append(Arm("identity", Identity()))
    arms += [Arm(f"blackbox, lambda {lam:g}", BlackBox(lam)) for lam in options.lams]
    arms += [Arm(f"perturbed, {m} samples", Perturbed(sigma, m, seed), m) for m in options.samples]
    gamma_sigma = sigma * math.sqrt(6 * placed) / math.pi  # sum-of-gamma noise has variance pi^2 / 6 k
    for lam in options.lams:
        for two_sided in (False, True):
            label = f"imle{' two-sided' if two_sided else ''}, lambda {lam:g}"
            arms.append(Arm(label, IMLE(gamma_sigma, lam, 4, two_sided=two_sided, k=placed, seed=seed), 4))
    problem = Placement(options.side, placed)
    arms.append(Arm(f"qptl, gamma {options.gamma:g}", QPTL(problem, options.gamma)))
    arms.append(Arm(f"log-barrier, mu {options.mu:g}", LogBarrier(problem, options.mu)))
    arms.append(Arm("wrong sign (control)", WrongSign()))
    return arms


def laboratory(cfg: Any, run: Run) -> list[Measurement]:
    """See `LaboratoryOptions`. Finished rows are read from the run directory when it is resumed."""
    return compare(options_of(cfg), run, seed=int(cfg.seed))


def compare(options: LaboratoryOptions, run: Run, *, seed: int) -> list[Measurement]:
    """The rows, written to the run directory one by one, as measurements."""
    problem = Placement(options.side, options.placed)
    loss = Loss(problem, seed)
    normaliser = Normaliser(problem)
    points = normaliser(draw("normal", (options.points, problem.n), generator(seed, COST)))
    exact = [exact_gradients(problem, loss, c, options.sigma) for c in points]
    arms = arms_of(options, seed)
    rows: dict[str, Any] = (run.read_json(FILE) or {}).get("rows", {})
    with run.progress(len(arms), "estimators", done=len(rows)) as bar:
        for arm in arms:
            if arm.label in rows:
                continue
            rows[arm.label] = measure(arm, problem, loss, points, exact, options, seed)
            run.write_json(FILE, {"sigma": options.sigma, "repeats": options.repeats, "rows": rows})
            bar.advance()
    return [
        Measurement(name, value, "1", options.points, (value - 1.96 * error, value + 1.96 * error), better, by)
        for label, row in rows.items()
        for by in ({"estimator": label, "data": "constructed"},)
        for (name, better), (value, error) in zip(FIGURES.items(), figures(row).values(), strict=True)
    ]


def measure(
    arm: Arm,
    problem: Placement,
    loss: Callable[[Tensor], Tensor],
    points: Tensor,
    exact: list[Exact],
    options: LaboratoryOptions,
    seed: int,
) -> dict[str, Any]:
    """`solves` a gradient, and for each point the numbers `COLUMNS` names.

    An estimator that draws no noise is given c + sigma z, as a generator's latent noise would; the others draw theirs
    around c.
    """
    project = Normaliser(problem).project
    estimator = arm.estimator or Identity()
    layer = SolverLayer(PlacementSolver(), problem, estimator, time_limit_s=10.0)
    columns: dict[str, list[float]] = {name: [] for name in COLUMNS}
    for i, (point, truth) in enumerate(zip(points, exact, strict=True)):
        source = generator(seed, 1000 * DRAW + i)
        costs = point.expand(options.repeats, -1)
        if arm.estimator is None:
            z = draw("normal", (options.repeats, arm.samples, problem.n), source)
            found = score_function(layer.oracle, loss, costs, options.sigma, z)
        else:
            if not arm.samples:
                costs = costs + options.sigma * draw("normal", tuple(costs.shape), source)
            c = costs.clone().requires_grad_()
            with torch.enable_grad():
                (found,) = torch.autograd.grad(loss(layer(c)).sum(), c)
        for name, value in numbers(project(found), truth).items():
            columns[name].append(value)
    counts = layer.counts()
    relaxed = isinstance(estimator, QPTL | LogBarrier)
    solves = 1 if relaxed else (counts["solves"] + counts["reused"]) / options.repeats / len(points)
    return {"solves": solves, **columns}


def numbers(found: Tensor, truth: Exact) -> dict[str, float]:
    """`COLUMNS` of the estimates `found [N, n]` at one cost, each without bias however few they are."""
    mean, variance = found.mean(0), float(found.var(0).sum())
    return {
        "dot": float(mean @ truth.of_loss),
        "dot_mean": float(mean @ truth.of_mean),
        "square": float(mean @ mean) - variance / len(found),
        "variance": variance,
        "exact": float(truth.of_loss @ truth.of_loss),
        "exact_mean": float(truth.of_mean @ truth.of_mean),
    }


def figures(row: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Each of `FIGURES` with its standard error, by the jackknife over points.

    With g the exact gradients of all points in one vector, h the mean estimates and V their variances summed:
    cosine h.g / |h||g|; scale h.g / |g|^2; relative bias |h - g| / |g|; noise sqrt(V) / |h| of one gradient; progress
    (h.g)^2 / (|g|^2 (|h|^2 + V)), the squared cosine of one gradient, by the number of solves it took.
    """
    data = torch.tensor([row[name] for name in COLUMNS], dtype=torch.float64)  # [columns, points]
    count = data.shape[1]
    whole = _figures(data.sum(1), row["solves"])
    without = torch.stack([_figures(data.sum(1) - data[:, i], row["solves"]) for i in range(count)])
    errors = ((count - 1) / count * (without - without.mean(0)).square().sum(0)).sqrt()
    return {name: (float(whole[i]), float(errors[i])) for i, name in enumerate(FIGURES)}


def _figures(total: Tensor, solves: float) -> Tensor:
    dot, dot_mean, square, variance, exact, exact_mean = total
    square = square.clamp_min(1e-300)  # an estimate that is zero everywhere has cosine 0
    return torch.stack(
        [
            dot / (square * exact).sqrt(),
            dot_mean / (square * exact_mean).sqrt(),
            dot / exact,
            ((square - 2 * dot + exact).clamp_min(0) / exact).sqrt(),
            (variance / square).sqrt(),
            dot.square() / (exact * (square + variance)) / solves,
        ]
    )
