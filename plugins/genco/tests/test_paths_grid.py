"""Shortest paths: five implementations, closed forms, invariances, refusals."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tian.errors import InvalidInput
from tian.spec import Instance
from tian.testing import conformance
from tian_genco.paths import grid
from tian_genco.paths.grid import GridPathSolver, clamp
from tian_genco.paths.options import PathOptions
from tian_genco.paths.problem import PathProblem
from tian_genco.paths.relax import least_cost, min_plus, shortest_paths, trace

spec = importlib.util.spec_from_file_location("path_reference", Path(__file__).with_name("path_reference.py"))
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)

ROUTES = ("sweeps", "torch", "scipy")
TERRAIN = (0.8, 1.2, 5.3, 7.7, 9.2)
SHAPES = ((12, 12), (5, 9), (1, 7), (7, 1), (2, 2))
seeds = st.integers(0, 10**6)


def solved(costs, route="sweeps"):
    """The batch of answers to costs `[B, H, W]`."""
    B, H, W = costs.shape
    solver = GridPathSolver(PathOptions(route))
    return solver.solve_costs(PathProblem(H, W).instance(), costs.reshape(B, H * W), time_limit_s=10.0)


def drawn(seed, B, H, W):
    """A third of the maps generic, a third with many ties, a third with free cells."""
    rng = np.random.default_rng(seed)
    kinds = (rng.exponential(size=(B, H, W)), rng.choice(TERRAIN, (B, H, W)), rng.integers(0, 2, (B, H, W)))
    return np.choose(rng.integers(0, 3, (B, 1, 1)), kinds)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, shape=st.sampled_from(SHAPES))
def test_five_implementations_agree(seed, shape):
    costs = drawn(seed, 6, *shape)
    answers = [solved(costs, route) for route in ROUTES]
    for other in answers[1:]:
        assert np.array_equal(other.x, answers[0].x)  # ties included
        assert np.array_equal(other.objective, answers[0].objective)
    for heap in (reference.python_heap, reference.numba_heap):
        found = np.array([heap(c)[0] for c in costs])
        assert np.abs(found - answers[0].objective).max() <= 1e-9


def test_with_unique_shortest_paths_all_five_take_them():
    costs = np.random.default_rng(1).exponential(size=(40, 9, 9))
    x = solved(costs).x.reshape(costs.shape)
    for c, path in zip(costs, x, strict=True):
        assert np.array_equal(reference.python_heap(c)[1], path)
        assert np.array_equal(reference.numba_heap(c)[1], path)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, shape=st.sampled_from(SHAPES), route=st.sampled_from(ROUTES))
def test_every_answer_is_a_chordless_path_with_its_cost(seed, shape, route):
    costs = drawn(seed, 6, *shape)
    answer, problem = solved(costs, route), PathProblem(*shape)
    assert [problem.broken(x) for x in answer.x] == [""] * 6
    cost = (costs.reshape(6, -1) * answer.x).sum(1)
    assert np.array_equal(answer.objective, cost)
    assert (answer.bound <= cost).all()
    assert np.allclose(answer.bound, cost, rtol=1e-11, atol=1e-11)
    assert set(answer.status) == {"optimal"}
    assert set(answer.route) == {route}


@settings(max_examples=30, deadline=None)
@given(seed=seeds, n=st.integers(2, 14))
def test_no_path_costs_more_than_the_diagonal(seed, n):
    costs = drawn(seed, 4, n, n)
    diagonal = costs[:, np.arange(n), np.arange(n)].sum(1)
    assert (solved(costs).objective <= diagonal + 1e-9).all()


@settings(max_examples=30, deadline=None)
@given(seed=seeds, k=st.floats(0.01, 5.0))
def test_adding_k_to_all_cells_adds_k_for_each_cell_of_a_path(seed, k):
    costs = drawn(seed, 4, 7, 7)
    before, after = solved(costs), solved(costs + k)
    old_path = ((costs + k).reshape(4, -1) * before.x).sum(1)
    assert np.allclose(old_path, before.objective + k * before.x.sum(1), rtol=1e-12)
    # the new shortest path has no more cells than the old one, and lies between its own two bounds
    assert (after.x.sum(1) <= before.x.sum(1)).all()
    assert (after.objective <= old_path + 1e-9).all()
    assert (after.objective >= before.objective + k * after.x.sum(1) - 1e-9).all()


@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_parts_of_shortest_paths_are_shortest(seed):
    costs = np.random.default_rng(seed).exponential(size=(1, 8, 8))
    path = solved(costs).x.reshape(8, 8)
    for r, c in np.argwhere(path)[1:]:
        part = solved(costs[:, : r + 1, : c + 1])  # the shortest in this corner
        rest_of = min_plus(torch.from_numpy(costs))[0, r, c].item()  # the shortest anywhere
        whole = min_plus(torch.from_numpy(costs.transpose(0, 2, 1).copy()))[0, c, r].item()
        assert rest_of == whole <= part.objective[0] + 1e-12
    # walked backwards from the goal, the remaining cost is the shortest too
    back = min_plus(torch.from_numpy(costs[:, ::-1, ::-1].copy()))[0].numpy()[::-1, ::-1]
    there = min_plus(torch.from_numpy(costs))[0].numpy()
    through = there + back - costs[0]  # the cheapest path through each cell
    assert np.allclose(through[path > 0], solved(costs).objective[0], rtol=1e-12)
    assert (through[path == 0] > solved(costs).objective[0]).all()


@settings(max_examples=30, deadline=None)
@given(seed=seeds, route=st.sampled_from(ROUTES))
def test_reflections_of_the_map_reflect_the_path(seed, route):
    costs = np.random.default_rng(seed).exponential(size=(3, 6, 8))
    x = solved(costs, route).x.reshape(costs.shape)
    across = np.ascontiguousarray(costs.transpose(0, 2, 1))
    turned = np.ascontiguousarray(costs[:, ::-1, ::-1])
    assert np.array_equal(solved(across, route).x.reshape(across.shape), x.transpose(0, 2, 1))
    assert np.array_equal(solved(turned, route).x.reshape(costs.shape), x[:, ::-1, ::-1])


@pytest.mark.parametrize("route", ROUTES)
def test_a_batch_is_bit_equal_to_its_maps_in_any_order(route):
    costs = drawn(5, 30, 12, 12)
    whole = solved(costs, route)
    for i in range(30):
        one = solved(costs[i : i + 1], route)
        assert np.array_equal(one.x[0], whole.x[i])
        assert (one.objective[0], one.bound[0]) == (whole.objective[i], whole.bound[i])
    order = np.random.default_rng(0).permutation(30)
    assert np.array_equal(solved(costs[order], route).x, whole.x[order])


@settings(max_examples=20, deadline=None)
@given(seed=seeds, scale=st.floats(1e-6, 1e6))
def test_a_positive_factor_changes_no_path(seed, scale):
    costs = np.random.default_rng(seed).exponential(size=(4, 7, 7))
    assert np.array_equal(solved(costs * scale).x, solved(costs).x)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("dearest", [0.0, 5e-324, 1e-310, 1.0, 1e300])
def test_free_cells_form_no_circles_and_take_the_fewest_steps(route, dearest):
    costs = np.zeros((1, 9, 9))
    costs[0, 4, 1:8] = dearest  # a wall with two gaps
    answer = solved(costs, route)
    assert PathProblem(9, 9).broken(answer.x[0]) == ""
    assert answer.objective[0] == 0.0 or dearest <= 1e-310  # below what a double resolves, all cells cost the same
    assert answer.bound[0] <= 0.0


def test_the_slope_of_the_least_cost_is_the_path():
    rng = np.random.default_rng(3)
    costs = rng.uniform(1.0, 9.0, (1, 7, 7))
    base = solved(costs)
    h = 1e-6
    steps = np.eye(49).reshape(49, 7, 7) * h
    slope = (solved(costs + steps).objective - solved(costs - steps).objective) / (2 * h)
    assert np.abs(slope - base.x[0]).max() <= 1e-6


def test_in_torch_the_gradient_of_the_cost_is_the_path():
    costs = torch.rand(5, 6, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    path = shortest_paths(costs)
    (costs * path).sum().backward()
    assert torch.equal(costs.grad, path)
    assert torch.equal(min_plus(costs)[:, -1, -1].sign(), torch.ones(5))


def test_single_precision_finds_paths_through_free_cells():
    costs = torch.zeros(2, 12, 12)
    costs[1] = torch.from_numpy(np.random.default_rng(0).choice(TERRAIN, (12, 12)))
    paths = shortest_paths(costs)
    assert paths.dtype == torch.float32
    assert [PathProblem(12, 12).broken(p.numpy().ravel()) for p in paths] == ["", ""]
    assert paths[0].sum() == 12
    best = solved(costs[1:].double().numpy()).objective[0]
    assert abs((costs[1].double() * paths[1]).sum().item() - best) <= 1e-4


@pytest.mark.parametrize("value", [-1e-3, float("nan"), float("inf")])
def test_in_torch_a_bad_cost_is_refused(value):
    costs = torch.ones(2, 3, 3)
    costs[1, 1, 1] = value
    with pytest.raises(InvalidInput, match="finite costs >= 0"):
        shortest_paths(costs)


def test_distances_that_lead_nowhere_are_refused():
    with pytest.raises(InvalidInput, match="goes in circles"):
        trace(torch.tensor([[[5.0, 9.0, 9.0], [9.0, 9.0, 9.0], [9.0, 1.0, 0.0]]]))


@given(seed=seeds, side=st.integers(2, 40), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_the_least_cost_shows_in_every_distance(seed, side, dtype):
    costs = torch.rand(1, side, side, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    largest = costs.max() * side
    assert largest + least_cost(costs)[0] > largest


def test_the_default_is_sweeps_and_without_numba_torch_then_scipy(monkeypatch):
    costs = np.ones((1, 25, 25))
    assert solved(costs, "auto").route == ("sweeps",)
    monkeypatch.setattr(grid, "find_spec", lambda name: None)
    assert solved(costs[:, :24, :24], "auto").route == ("torch",)
    assert solved(costs, "auto").route == ("scipy",)


@pytest.mark.parametrize(
    ("value", "message"),
    [(-0.5, r"row 1, cell \(2, 3\) is -0.5"), (np.nan, r"row 1, cell \(2, 3\) is nan"), (np.inf, "is inf")],
)
def test_a_bad_cost_is_refused_with_its_place(value, message):
    costs = np.ones((3, 4, 5))
    costs[1, 2, 3] = value
    with pytest.raises(InvalidInput, match=message) as error:
        solved(costs)
    assert "clamp" in error.value.hint


def test_costs_too_large_to_add_are_refused():
    with pytest.raises(InvalidInput, match="add up to infinity"):
        solved(np.full((1, 3, 3), 1e308))


def test_other_shapes_and_kinds_are_refused():
    inst = PathProblem(3, 3).instance()
    with pytest.raises(InvalidInput, match=r"3x3 grid are \[B, 9\], got \[1, 8\]"):
        GridPathSolver().solve_costs(inst, np.ones((1, 8)), time_limit_s=1.0)
    with pytest.raises(InvalidInput, match="with NoneType"):
        GridPathSolver().solve(Instance("grid-path", np.ones(9), None), time_limit_s=1.0)


def test_clamping_counts_what_it_cuts_off_and_leaves_its_argument_alone():
    costs = np.array([[1.0, -2.0], [-1e-9, 0.0]])
    cut, number = clamp(costs)
    assert number == 2
    assert cut.tolist() == [[1.0, 0.0], [0.0, 0.0]]
    assert costs[0, 1] == -2.0


def instances(seed):
    rng = np.random.default_rng(seed)
    return [
        PathProblem(H, W).instance(drawn(seed, 1, H, W).ravel() + rng.random()) for H, W in ((3, 3), (2, 5), (1, 4))
    ]


class TestGridPath(
    conformance.solver(
        lambda **options: GridPathSolver(PathOptions(**options)),
        options=[{"route": "auto"}, {"route": "torch"}, {"route": "scipy"}],
        bad_options=[{"route": "astar"}],
        instances=instances,
        feasible=lambda inst, x: not inst.payload.broken(x),
        brute=lambda inst: reference.python_heap(inst.cost.reshape(inst.payload.height, inst.payload.width))[0],
    )
):
    """The kit, but for one check."""
