"""Recipe `genco/predict`: learn to predict costs for the sake of the path that is chosen by them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from tian.config.compose import options_of
from tian.types import Measurement
from tian_genco.grad.costs import Normaliser
from tian_genco.grad.layer import SolverLayer
from tian_genco.grad.losses import FenchelYoung, SPOPlus
from tian_genco.grad.make import make_estimator
from tian_genco.grad.noise import generator
from tian_genco.grad.options import GradOptions
from tian_genco.grad.oracle import Oracle
from tian_genco.paths.grid import GridPathSolver
from tian_genco.paths.problem import PathProblem

if TYPE_CHECKING:
    from tian.runs.rundir import Run
    from tian_genco.grad.options import GradName, PredictOptions

FILE = "predict.json"
FLOOR = "expected costs (floor)"  # what no prediction from features can beat but by luck
LIMIT = 10.0  # seconds a solve; paths take microseconds
LOSSES = ("two-stage", "spo-plus", "fenchel-young")  # minimised without a gradient through the solver
DATA, WEIGHTS, ORDER = 4, 5, 6  # streams of randomness


@dataclass(frozen=True)
class Examples:
    """Features `[N, p]`, true costs `[N, n]`, their shortest paths `[N, n]`, and expected costs `[N, n]`, float64."""

    features: Tensor
    costs: Tensor
    paths: Tensor
    expected: Tensor

    def __getitem__(self, rows: Tensor) -> Examples:
        return Examples(self.features[rows], self.costs[rows], self.paths[rows], self.expected[rows])


def make_examples(options: PredictOptions, oracle: Oracle, seed: int) -> tuple[Examples, Examples]:
    """Synthetic examples to learn from and to judge by.

    Features are standard normal; cell j is expected to cost ((B f)_j / sqrt(p) + 3)^degree + 1, over 3.5^degree, and
    costs that times a number from 1 - spread to 1 + spread; B has zeros and ones at equal odds. An odd power of a negative base can make that
    negative, hence at least 0.01 before it is spread.

    Source: the polynomial costs of Elmachtoub and Grigas 2022, section 6.1, as in PyEPO; here on cells, not on arcs.
    """
    source = generator(seed, DATA)
    count = options.train + options.test
    mixing = source.integers(0, 2, (options.features, oracle.n)).astype(np.float64)
    features = source.standard_normal((count, options.features))
    base = (((features @ mixing) / options.features**0.5 + 3) ** options.degree + 1) / 3.5**options.degree
    expected = np.maximum(base, 0.01)
    costs = torch.from_numpy(expected * source.uniform(1 - options.spread, 1 + options.spread, base.shape))
    every = Examples(torch.from_numpy(features), costs, oracle(costs), torch.from_numpy(expected))
    rows = torch.arange(count)
    return every[rows[: options.train]], every[rows[options.train :]]


class Predictor(nn.Module):
    """Costs as a linear function of features, as in the source of the examples; the same for every method.

    It cannot be right where costs are of higher degree, which is the point. What it puts below 0 is solved as 0.
    """

    def __init__(self, features: int, n: int, seed: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, n, dtype=torch.float64)
        with torch.no_grad():
            self.linear.weight.copy_(torch.from_numpy(generator(seed, WEIGHTS).normal(0, 0.1, (n, features))))
            self.linear.bias.fill_(1.0)

    def forward(self, features: Tensor) -> Tensor:
        """`[N, n]` of `features [N, p]`."""
        found: Tensor = self.linear(features)
        return found


class Objective(nn.Module):
    """What a method minimises, as a function of predicted costs and examples."""

    def __init__(self, method: str, oracle: Oracle, problem: PathProblem, options: PredictOptions, seed: int) -> None:
        super().__init__()
        self.method = method
        self.spo_plus = SPOPlus(oracle)
        self.fenchel_young = FenchelYoung(oracle, sigma=options.sigma, samples=options.samples, seed=seed)
        self.layer: SolverLayer | None = None
        if method not in LOSSES:
            grad = GradOptions(
                name=cast("GradName", method),
                lam=options.lam,
                sigma=options.sigma,
                samples=options.samples,
                k=problem.height,
                gamma=options.gamma,
                mu=options.mu,
            )
            self.layer = SolverLayer(
                oracle.solver,
                problem,
                make_estimator(grad, problem=problem, seed=seed),
                time_limit_s=LIMIT,
                normaliser=Normaliser(problem),
                least=0.0,
            )

    def forward(self, predicted: Tensor, examples: Examples) -> Tensor:
        """The mean loss."""
        if self.layer is not None:
            chosen: Tensor = self.layer(predicted)
            return (examples.costs * chosen).sum(1).mean()
        if self.method == "spo-plus":
            return torch.as_tensor(self.spo_plus(predicted, examples.costs).mean())
        if self.method == "fenchel-young":
            return torch.as_tensor(self.fenchel_young(predicted, examples.paths).mean())
        return (predicted - examples.costs).square().mean()


def learn(method: str, examples: Examples, oracle: Oracle, options: PredictOptions, seed: int) -> Predictor:
    """The predictor `method` arrives at; weights at the start and order of examples depend on the seed only."""
    problem = oracle.instance.payload
    model = Predictor(options.features, oracle.n, seed)
    objective = Objective(method, oracle, problem, options, seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=options.lr)
    source = generator(seed, ORDER)
    with torch.enable_grad():
        for _ in range(options.epochs):
            order = torch.from_numpy(source.permutation(len(examples.features)))
            for first in range(0, len(order), options.batch):
                part = examples[order[first : first + options.batch]]
                optimiser.zero_grad()
                loss: Any = objective(model(part.features), part)
                loss.backward()
                optimiser.step()
    return model


@torch.no_grad()
def regret(predicted: Tensor, examples: Examples, oracle: Oracle) -> float:
    """What paths chosen by `predicted [N, n]` cost beyond the best, as a share of the best, over all examples; >= 0."""
    best = (examples.costs * examples.paths).sum()
    return float(((examples.costs * oracle(predicted)).sum() - best) / best)


def predict(cfg: Any, run: Run) -> list[Measurement]:
    """See `PredictOptions`. Finished rows are read from the run directory when it is resumed."""
    return compare(options_of(cfg), run, seed=int(cfg.seed))


def compare(options: PredictOptions, run: Run, *, seed: int) -> list[Measurement]:
    """Every method on every seed, written to the run directory one by one, as measurements."""
    rows: dict[str, list[float]] = (run.read_json(FILE) or {}).get("rows", {})
    methods = [*dict.fromkeys(options.methods), FLOOR]
    done = sum(len(found) for found in rows.values())
    problem = PathProblem(options.size, options.size)
    oracle = Oracle(GridPathSolver(), problem, time_limit_s=LIMIT, least=0.0)
    with run.progress(len(methods) * options.seeds, "methods and seeds (synthetic)", done=done) as bar:
        for i in range(options.seeds):
            train, test = make_examples(options, oracle, 1000 * seed + i)
            for method in methods:
                found = rows.setdefault(method, [])
                if len(found) > i:
                    continue
                if method == FLOOR:
                    predicted = test.expected
                else:
                    predicted = learn(method, train, oracle, options, 1000 * seed + i)(test.features)
                found.append(regret(predicted, test, oracle))
                run.write_json(FILE, {"rows": rows})
                bar.advance()
    out = []
    for method in methods:
        by = {"method": method, "data": "synthetic"}
        out.append(Measurement("normalised regret", *_interval(rows[method]), higher_is_better=False, by=by))
        if method != methods[0]:
            gain = [a - b for a, b in zip(rows[methods[0]], rows[method], strict=True)]
            out.append(Measurement("regret saved", *_interval(gain), by={**by, "over": methods[0]}))
    return out


def _interval(values: list[float]) -> tuple[float, str, int, tuple[float, float]]:
    """Mean, unit, count and 95 % interval by Student's t."""
    from scipy.stats import t

    mean, count = float(np.mean(values)), len(values)
    half = float(t.ppf(0.975, count - 1) * np.std(values, ddof=1) / count**0.5)
    return mean, "1", count, (mean - half, mean + half)
