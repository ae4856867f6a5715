"""Places and threads: at most so many jobs run, at most so many requests wait, and none for longer than it may.

    upload ─► place() ─ 429 when all are taken ─► run(): on a thread ─┬─► result
                                                                     ├─► time is over: 503
                                                                     └─► client gone: its place is free

A thread cannot be stopped from outside. A job that nobody waits for any more ends before its next tile
(`sprdiff.interrupt`), and keeps its thread, not its place, until then: no more than `workers` jobs ever run.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from ..errors import StoppedError
from ..interrupt import interruptible
from .problems import ClientGone, Refusal

T = TypeVar("T")


class Stop:
    """By which a job learns that nobody waits for it."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Nobody waits any more."""
        self._event.set()

    def check(self, pixels: int = 0) -> None:
        """Before the next piece of work.

        Raises:
            StoppedError: nobody waits any more.
        """
        if self._event.is_set():
            raise StoppedError("nobody waits for the result any more")


class Pool:
    """Threads for jobs, and the queue before them.

    Attributes:
        workers: jobs that may run at once.
        queue: requests that may wait beyond those.
        busy: jobs that run now.
        places: requests that are let in now, from the end of their upload to the end of their job.
    """

    def __init__(self, name: str, workers: int, queue: int) -> None:
        self.workers, self.queue = workers, queue
        self.busy = self.places = 0
        self._idle = threading.Condition()
        self._threads = ThreadPoolExecutor(workers, f"sprdiff-{name}")

    @property
    def waiting(self) -> int:
        """Requests that are let in and do not run yet."""
        return max(0, self.places - self.busy)

    def check(self) -> None:
        """Whether a place is free.

        Raises:
            Refusal: 429, all are taken.
        """
        if self.places >= self.workers + self.queue:
            raise Refusal(429, "too many requests are waiting")

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place; to be called on the event loop only.

        Raises:
            Refusal: 429, all are taken.
        """
        self.check()
        self.places += 1
        try:
            yield
        finally:
            self.places -= 1

    async def run(self, job: Callable[[], T], gone: Awaitable[None], seconds: float) -> T:
        """Return the result of a job on a thread; where nobody waits for it any more, it ends at its next checkpoint.

        Args:
            gone: ends when the client has gone.
            seconds: for waiting and running together.

        Raises:
            Refusal: 503, the time is over.
            ClientGone: the client has gone.
        """
        stop = Stop()
        result = asyncio.wrap_future(self._threads.submit(self._counted, job, stop))
        leaving = asyncio.ensure_future(gone)
        try:
            both: set[asyncio.Future[Any]] = {result, leaving}
            await asyncio.wait(both, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if result.done():
                return result.result()
            if leaving.done():
                raise ClientGone
            raise Refusal(503, f"no result within {seconds:g} seconds")
        finally:
            stop.set()
            result.cancel()  # takes a job that has not begun out of the queue
            leaving.cancel()

    def close(self) -> None:
        """Begin nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def ended(self, seconds: float) -> bool:
        """Wait for the jobs that run; False: after so many seconds one still does."""
        with self._idle:
            return self._idle.wait_for(lambda: not self.busy, seconds)

    def _counted(self, job: Callable[[], T], stop: Stop) -> T:
        with self._idle:
            self.busy += 1
        try:
            with interruptible(stop.check):
                stop.check()
                return job()
        finally:
            with self._idle:
                self.busy -= 1
                self._idle.notify_all()
