"""Workers answer like this process, and one that dies is replaced once."""

import dataclasses
import os
import re
import signal
import threading
import time
from pathlib import Path

import highspy
import numpy as np
import pytest

from tian.errors import InvalidInput, RunError
from tian_genco.problem import Milp, Row
from tian_genco.solving.highs import HighsSolver
from tian_genco.solving.options import HighsOptions


def made(seed, n=14, kind=Milp):
    rng = np.random.default_rng(seed)
    rows = [Row(np.arange(n), rng.integers(-3, 6, n).astype(float), -np.inf, 9.0, f"row {i}") for i in range(5)]
    milp = Milp.of(rows, n=n, lower=np.zeros(n), upper=np.ones(n), integer=np.ones(n, bool))
    return kind(**{f.name: getattr(milp, f.name) for f in dataclasses.fields(milp)})


class Deadly(Milp):
    """Ends the process that unpickles it."""

    def __reduce__(self):
        return os._exit, (3,)


class Unpicklable(Milp):
    def __reduce__(self):
        raise TypeError("a file is open in it")


@pytest.fixture(scope="module")
def two():
    with HighsSolver(HighsOptions(workers=2)) as solver:
        yield solver


def keys(solutions):
    return [(s.status, s.objective, s.bound, None if s.x is None else s.x.tobytes()) for s in solutions]


def test_a_pool_answers_bit_by_bit_like_one_process(two):
    one, problem, other = HighsSolver(), made(0), made(1)
    costs = np.random.default_rng(0).normal(size=(40, 14))
    costs[30] = costs[3]
    a = two.solve_costs(problem.instance(), costs, time_limit_s=60, seed=5)
    b = one.solve_costs(problem.instance(), costs, time_limit_s=60, seed=5)
    assert keys(a.solution(i) for i in range(40)) == keys(b.solution(i) for i in range(40))
    assert a.route == b.route
    insts = [(problem, other)[i % 2].instance(c) for i, c in enumerate(costs[:9])]
    assert keys(two.solve_batch(insts, time_limit_s=60)) == keys(one.solve_batch(insts, time_limit_s=60))


def test_a_worker_that_was_killed_is_replaced(two):
    problem, costs = made(2), np.random.default_rng(1).normal(size=(60, 14))
    want = HighsSolver().solve_costs(problem.instance(), costs, time_limit_s=60)
    two.solve_costs(problem.instance(), costs[:4], time_limit_s=60)
    for delay in (0.0, 0.02):  # idle, then at work; one at a time, for two deaths of one instance are an error
        pid = two._pool._workers[0].process.pid
        timer = threading.Timer(delay, os.kill, (pid, signal.SIGKILL))
        timer.start()
        if not delay:
            timer.join()
        got = two.solve_costs(problem.instance(), costs, time_limit_s=60)
        timer.join()
        assert np.array_equal(got.x, want.x)
        assert np.array_equal(got.bound, want.bound)


def test_an_instance_that_ends_workers_is_saved(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    problem = made(3, kind=Deadly)
    costs = np.random.default_rng(1).normal(size=(2, 14))
    with HighsSolver(HighsOptions(workers=2)) as solver:
        with pytest.raises(RunError, match=r"ended twice \(exit code 3\)") as info:
            solver.solve_costs(problem.instance(), costs, time_limit_s=60)
        assert solver._pool._workers == []
    path = Path(re.search(r"saved as (\S+\.mps)", str(info.value))[1])
    assert path.parent == tmp_path
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    assert highs.readModel(str(path)) == highspy.HighsStatus.kOk
    k = int(re.search(r"instance (\d+)", str(info.value))[1])
    np.testing.assert_allclose(highs.getLp().col_cost_, costs[k], rtol=1e-9)


def test_a_problem_that_cannot_travel_is_refused():
    with HighsSolver(HighsOptions(workers=2)) as solver, pytest.raises(InvalidInput, match="a file is open in it"):
        solver.solve_costs(made(0, kind=Unpicklable).instance(), np.eye(14), time_limit_s=9)


def test_no_process_is_started_for_a_single_instance_and_none_outlives_close():
    with HighsSolver(HighsOptions(workers=2)) as solver:
        solver.solve_costs(made(0).instance(), np.zeros((5, 14)), time_limit_s=9)  # five times the same
        assert solver._pool._workers == []
        solver.solve_costs(made(0).instance(), np.eye(14)[:2], time_limit_s=9)
        workers = [w.process.pid for w in solver._pool._workers]
    assert workers
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.slow
def test_workers_end_with_a_solver_that_nobody_holds():
    solver = HighsSolver(HighsOptions(workers=2))
    solver.solve_costs(made(0).instance(), np.eye(14)[:4], time_limit_s=9)
    processes = [w.process for w in solver._pool._workers]
    del solver
    deadline = time.monotonic() + 30
    while any(p.is_alive() for p in processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(p.is_alive() for p in processes)
