"""Work spread over processes, of which any may die without taking the rest along."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_processes(function: Callable[[T], R], tasks: Iterable[T], jobs: int) -> Iterator[tuple[T, R | None]]:
    """Apply a function of a module to every task, in `jobs` fresh processes; results as they come.

    A task whose process dies (killed for memory, crashed in a library) gives None. With several at work it cannot
    be told which one it was: those are repeated one by one, each with a process to itself.

    When the consumer stops, and when this process dies, even by SIGKILL, the processes end at once.

    Raises:
        Whatever the function raises.
    """
    waiting, suspects = deque(tasks), deque[T]()
    while waiting or suspects:
        source, size = (suspects, 1) if suspects else (waiting, jobs)
        running: dict[Future[R], T] = {}
        others = set(multiprocessing.active_children())
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(size, mp_context=context, initializer=_start)
        try:
            while source or running:
                # No queue: what was not at work when a process died is above suspicion.
                while source and len(running) < size:
                    future = pool.submit(function, source[0])
                    running[future] = source.popleft()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    result = future.result()
                    yield running.pop(future), result
        except BrokenProcessPool:
            if size > 1:
                suspects.extend(running.values())
            else:
                yield from ((task, None) for task in running.values())
        except BaseException:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise
        finally:
            pool.shutdown()


def _start() -> None:
    # Ctrl-C reaches all processes of a terminal; the parent alone answers it, and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Before torch is imported. One thread each: times are per thread, and -j says how many cores are used.
    os.environ["OMP_NUM_THREADS"] = "1"
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
