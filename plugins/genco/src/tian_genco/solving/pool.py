"""Worker processes that solve the instances of a batch; what they answer does not depend on their number."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import tempfile
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from tian.errors import InvalidInput, RunError
from tian_genco.problem import Floats, Problem
from tian_genco.solving.engine import Engine
from tian_genco.solving.kept import Answer, Kept
from tian_genco.solving.options import HighsOptions

LARGEST_CHUNK = 8  # instances handed out at once
_GONE = (EOFError, OSError)  # what reading from, or writing to, a dead worker raises

Task = tuple[Problem, Floats]


@dataclass(frozen=True)
class _Chunk:
    """Tasks of one problem; `again` when a worker died of them."""

    tasks: tuple[int, ...]
    again: bool = False


class _Worker:
    """A process, its pipe, the problem it holds and the chunk it works on."""

    def __init__(self, options: HighsOptions) -> None:
        # Spawned, not forked: a fork inherits locks of threads that do not exist in the child.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, options), daemon=True)
        self.process.start()
        theirs.close()  # so that its end of the pipe closes when it dies
        self.problem: Problem | None = None
        self.chunk: _Chunk | None = None

    def give(self, chunk: _Chunk, problem: Problem, costs: list[Floats], *, time_limit_s: float, seed: int) -> None:
        self.chunk = chunk
        pickled = None if problem is self.problem else _pickled(problem)
        self.problem = problem
        self.connection.send((pickled, costs, time_limit_s, seed))

    def close(self) -> None:
        self.process.kill()
        self.process.join()
        self.process.close()
        self.connection.close()


class Pool:
    """Processes that live until `close`, or until the process that made them ends.

    Args:
        options: of the solver; `workers` is the number of processes.
    """

    def __init__(self, options: HighsOptions) -> None:
        self._options = options
        self._workers: list[_Worker] = []

    def run(self, tasks: Sequence[Task], *, time_limit_s: float, seed: int) -> list[Answer]:
        """Solve all tasks, each within the limit, in order.

        Raises:
            RunError: an instance ended a worker twice; it is saved as .mps in the system's temporary folder.
        """
        size = max(1, min(LARGEST_CHUNK, len(tasks) // (2 * self._options.workers)))
        todo = deque(
            _Chunk(tuple(same[i : i + size]))
            for same in (list(g) for _, g in groupby(range(len(tasks)), key=lambda t: id(tasks[t][0])))
            for i in range(0, len(same), size)
        )
        answers: dict[int, Answer] = {}
        try:
            while len(answers) < len(tasks):
                self._hand_out(todo, tasks, time_limit_s=time_limit_s, seed=seed)
                self._collect(todo, tasks, answers)
        except BaseException:
            self.close()  # workers still busy would answer the next batch
            raise
        return [answers[t] for t in range(len(tasks))]

    def close(self) -> None:
        """End the processes. A later `run` starts new ones."""
        for worker in self._workers:
            worker.close()
        self._workers = []

    def _hand_out(self, todo: deque[_Chunk], tasks: Sequence[Task], *, time_limit_s: float, seed: int) -> None:
        idle = [w for w in self._workers if w.chunk is None]
        while todo and (idle or len(self._workers) < self._options.workers):
            if not idle:
                idle.append(_Worker(self._options))
                self._workers.append(idle[-1])
            worker, chunk = idle.pop(), todo.popleft()
            costs = [tasks[t][1] for t in chunk.tasks]
            try:
                worker.give(chunk, tasks[chunk.tasks[0]][0], costs, time_limit_s=time_limit_s, seed=seed)
            except _GONE:
                self._bury(worker, todo, tasks)

    def _collect(self, todo: deque[_Chunk], tasks: Sequence[Task], answers: dict[int, Answer]) -> None:
        busy = {w.connection: w for w in self._workers if w.chunk is not None}
        for connection in wait(list(busy)) if busy else ():
            worker = busy[connection]  # type: ignore[index]
            try:
                reply = worker.connection.recv()
            except _GONE:
                self._bury(worker, todo, tasks)
                continue
            if isinstance(reply, Exception):
                raise reply
            assert worker.chunk is not None  # noqa: S101 - it was busy
            answers.update(zip(worker.chunk.tasks, reply, strict=True))
            worker.chunk = None

    def _bury(self, worker: _Worker, todo: deque[_Chunk], tasks: Sequence[Task]) -> None:
        """Put the tasks of a dead worker back, one by one, so that a second death names the one it is."""
        chunk = worker.chunk
        self._workers.remove(worker)
        worker.process.join()
        code = worker.process.exitcode
        worker.close()
        assert chunk is not None  # noqa: S101 - it was busy
        if chunk.again:
            problem, cost = tasks[chunk.tasks[0]]
            path = _save(problem, cost)
            raise RunError(
                f"a worker ended twice (exit code {code}) while it solved instance {chunk.tasks[0]}, saved as {path}",
                hint="solve it with solver.workers=1 to see why; a script that uses workers needs the guard "
                "`if __name__ == '__main__':`",
            )
        todo.extendleft(_Chunk((t,), again=True) for t in reversed(chunk.tasks))


def work(connection: Connection, options: HighsOptions) -> None:
    """What a worker does: receive a problem (when it is another one) and costs, send the answers, until the pipe ends."""
    kept = Kept(options)
    problem: Any = None
    while True:
        try:
            pickled, costs, time_limit_s, seed = connection.recv()
        except _GONE:
            return
        try:
            problem = problem if pickled is None else pickle.loads(pickled)  # noqa: S301 - from our own parent
            reply: Any = [kept.answer(problem, c, time_limit_s=time_limit_s, seed=seed) for c in costs]
        except Exception as error:  # noqa: BLE001 - raised again where the batch was asked for
            reply = error
        connection.send(reply)


def _pickled(problem: Problem) -> bytes:
    try:
        return pickle.dumps(problem)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InvalidInput(
            f"a {problem.kind} problem cannot be sent to a worker: {error}",
            hint="set solver.workers=1, or keep functions and open files out of the problem",
        ) from error


def _save(problem: Problem, cost: Floats) -> Path:
    handle, name = tempfile.mkstemp(prefix="genco-", suffix=".mps")
    os.close(handle)
    Engine(problem.milp()).write(cost, Path(name))
    return Path(name)
