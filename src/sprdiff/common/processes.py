"""Work spread over processes, any of which may die without taking the rest along."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def available_cores() -> int:
    """Return the number of cores that this process may use, at least 1."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


class Processes:
    """A pool of fresh processes; each starts when it is first needed and stays until the pool is closed.

    The processes end at once when the consumer of a result raises, and when this process dies, even by
    SIGKILL.
    """

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._executor: ProcessPoolExecutor | None = None
        self._others: set[multiprocessing.process.BaseProcess] = set()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None:
            self._terminate()
        self._close()

    def apply(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[tuple[T, R | None]]:
        """Apply a function of a module to every task; yield each task with its result, in the order of
        completion.

        Tasks are taken from their iterable when a process is free for them. When a process dies (killed for
        its memory, crashed in a library), each task that was at work is repeated by itself; a task whose
        process dies again gives None.

        Raises:
            Exception: whatever the function raises.
        """
        source, running = iter(tasks), dict[Future[R], T]()
        try:
            while True:
                # There is no queue: a task that was not at work when a process died is above suspicion.
                for task in islice(source, self._jobs - len(running)):
                    running[self._submit(function, task)] = task
                if not running:
                    return
                try:
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        result = future.result()
                        yield running.pop(future), result
                except BrokenProcessPool:
                    self._close()
                    suspects, running = list(running.values()), {}
                    yield from ((task, self._alone(function, task)) for task in suspects)
        except BaseException:
            self._terminate()
            raise

    def _alone(self, function: Callable[[T], R], task: T) -> R | None:
        try:
            return self._submit(function, task).result()
        except BrokenProcessPool:
            self._close()
            return None

    def _submit(self, function: Callable[[T], R], task: T) -> Future[R]:
        if self._executor is None:
            self._others = set(multiprocessing.active_children())
            context = multiprocessing.get_context("spawn")
            self._executor = ProcessPoolExecutor(self._jobs, mp_context=context, initializer=_start)
        try:
            return self._executor.submit(function, task)
        except BrokenProcessPool as error:  # a process died while it had nothing to do
            failed = Future[R]()
            failed.set_exception(error)
            return failed

    def _terminate(self) -> None:
        if self._executor is not None:
            for process in set(multiprocessing.active_children()) - self._others:
                process.terminate()
            self._close()

    def _close(self) -> None:
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None


def in_processes(function: Callable[[T], R], tasks: Iterable[T], jobs: int) -> Iterator[tuple[T, R | None]]:
    """Apply a function to every task in `jobs` processes that end with the last task; see
    `Processes.apply`."""
    with Processes(jobs) as pool:
        yield from pool.apply(function, tasks)


def _start() -> None:
    # Ctrl-C reaches all processes of a terminal; the parent alone answers it, and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # This stands before torch is imported. There is one thread each: times are per thread, and -j counts the
    # cores.
    os.environ["OMP_NUM_THREADS"] = "1"
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
