"""Places and threads: a limited number of jobs run, a limited number of requests wait, and each for a limited
time.

    upload ─► place() ─ 429 when all are taken ─► run(): on a thread ─┬─► result
                                                                      ├─► time is over: 503
                                                                      └─► client gone: its place is free

A thread cannot be stopped from outside. A job for which nobody waits any more ends before its next tile
(`sprdiff.interrupt`). Until then it keeps its thread but not its place: no more than `workers` jobs ever run.
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
    """A flag that tells a job that nobody waits for it any more."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Say that nobody waits any more."""
        self._event.set()

    def check(self, pixels: int = 0) -> None:
        """Check whether the next piece of work is still wanted.

        Raises:
            StoppedError: nobody waits any more.
        """
        if self._event.is_set():
            raise StoppedError("nobody waits for the result any more")


class Pool:
    """The threads of jobs, and the queue before them.

    Attributes:
        workers: how many jobs may run at the same time.
        queue: how many more requests may wait.
        busy: how many jobs are running.
        places: how many requests have a place, from the end of their upload to the end of their job.
    """

    def __init__(self, name: str, workers: int, queue: int) -> None:
        self.workers, self.queue = workers, queue
        self.busy = self.places = 0
        self._idle = threading.Condition()
        self._threads = ThreadPoolExecutor(workers, f"sprdiff-{name}")

    @property
    def waiting(self) -> int:
        """How many requests have a place and are not running yet."""
        return max(0, self.places - self.busy)

    def check(self) -> None:
        """Check whether a place is free.

        Raises:
            Refusal: 429: all are taken.
        """
        if self.places >= self.workers + self.queue:
            raise Refusal(429, "too many requests are waiting")

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place during a ``with`` block, on the event loop only.

        Raises:
            Refusal: 429: all are taken.
        """
        self.check()
        self.places += 1
        try:
            yield
        finally:
            self.places -= 1

    async def run(self, job: Callable[[], T], gone: Awaitable[None], seconds: float) -> T:
        """Run a job on a thread and return its result; if nobody waits for it any more, it ends at its next
        checkpoint.

        Args:
            gone: ends when the client has gone.
            seconds: how long waiting and running may take together.

        Raises:
            Refusal: 503: the time is over.
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
            result.cancel()  # removes a job from the queue that has not begun
            leaving.cancel()

    def close(self) -> None:
        """Begin no further jobs."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def ended(self, seconds: float) -> bool:
        """Wait for the running jobs; return whether all have ended in time."""
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
