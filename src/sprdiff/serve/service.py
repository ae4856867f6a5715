"""From a request to its answer: upload, place, thread, time limit, and whether the networks are loaded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from ..codec import Codec
from ..format.container import weights_name
from .clients import Uploads, client_of
from .jobs import Answer, Task
from .metrics import Metrics
from .pool import Pool
from .problems import Refusal
from .settings import Settings
from .upload import check_headers, read_body

_COMPARISONS = 8
"""How many comparisons may wait: each takes seconds, and the next upload probably makes it pointless."""

_STOPPING = "the service is stopping"

O = TypeVar("O")
Job = Callable[[Task, O], Answer]


class Service:
    """One codec with its threads and counters.

    Attributes:
        coding: the threads for encoding and decoding.
        comparing: the thread for baselines, which take longest.
        uploads: the bodies that are being received.
    """

    def __init__(self, codec: Codec, settings: Settings) -> None:
        self.codec, self.settings, self.metrics = codec, settings, Metrics()
        self.coding = Pool("coding", settings.concurrency, settings.queue)
        self.comparing = Pool("comparing", 1, min(settings.queue, _COMPARISONS))
        self.uploads = Uploads(settings.uploads)
        self._tasks: set[asyncio.Task[object]] = set()
        self._stopping = asyncio.Event()
        self.metrics.watch("coding", self.coding)
        self.metrics.watch("comparing", self.comparing)
        self.metrics.watch_uploads(self.uploads)

    async def answer(self, request: Request, pool: Pool, job: Job[O], options: O) -> Response:
        """Read the body and do the job. No place is taken before the body has arrived.

        Raises:
            Refusal: see `read_body`, `Uploads` and `Pool`; 503: the service stops.
            ClientGone: nobody waits any more.
            SprdiffError: the job failed.
        """
        limits = self.settings
        check_headers(request, limits.max_upload)
        with self._unless_stopped():
            pool.check()  # a client that would be refused afterwards need not send its body
            body = await self._body(request)

            def work() -> tuple[Answer, float]:
                begin = time.perf_counter()
                answer = job(Task(self.codec, body, limits.max_pixels), options)
                return answer, time.perf_counter() - begin

            with pool.place():
                answer, seconds = await pool.run(work, _gone(request), limits.timeout)
        self.metrics.worked(request.scope["route"].path, seconds, answer.pixels)
        headers = {f"Sprdiff-{name}": value for name, value in answer.about.items()}
        headers["Sprdiff-Seconds"] = f"{seconds:.3f}"
        return Response(answer.content, media_type=answer.media_type, headers=headers)

    async def model(self) -> str:
        """Return the name of the weights; load them if needed.

        Raises:
            WeightsError: they cannot be loaded.
        """
        runtime = await asyncio.to_thread(lambda: self.codec.runtime)
        return weights_name(runtime.manifest.preset_id, runtime.weights_hash[:2])

    def stop(self) -> None:
        """Answer 503 to all waiting requests, on the event loop only."""
        self._stopping.set()
        for task in self._tasks:
            task.cancel()

    def close(self, seconds: float = 0.0) -> bool:
        """Begin no further jobs; return whether all running ones have ended in time."""
        self.coding.close()
        self.comparing.close()
        until = time.monotonic() + seconds
        return all(pool.ended(max(0.0, until - time.monotonic())) for pool in (self.coding, self.comparing))

    async def _body(self, request: Request) -> bytes:
        limits = self.settings
        client = client_of(request.client.host if request.client else "")
        async with self.uploads.turn(client, limits.upload_timeout):
            return await read_body(request, limits.max_upload, limits.upload_timeout)

    @contextmanager
    def _unless_stopped(self) -> Iterator[None]:
        """Run a ``with`` block that `stop` cancels; the answer is then that the service stops.

        Raises:
            Refusal: 503.
        """
        task = asyncio.current_task()
        assert task is not None
        if self._stopping.is_set():
            raise Refusal(503, _STOPPING)
        self._tasks.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if not self._stopping.is_set():
                raise
            task.uncancel()
            raise Refusal(503, _STOPPING) from None
        finally:
            self._tasks.discard(task)


async def _gone(request: Request) -> None:
    """Return when the client has closed its connection; its body has been read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
