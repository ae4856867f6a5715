"""From a request to its answer: place, upload, thread, time; and whether the networks are there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from ..codec import Codec
from ..format.container import weights_name
from .jobs import Answer, Task
from .metrics import Metrics
from .pool import Pool, Stop
from .settings import Settings
from .upload import check_headers, read_body

_COMPARISONS = 8
"""Comparisons that may wait: each takes seconds, and the next upload is likely to make it pointless."""

O = TypeVar("O")
Job = Callable[[Task, O], Answer]


class Service:
    """One codec, its threads and its counters.

    Attributes:
        coding: threads for encoding and decoding; comparing: one for rivals, which take longest.
    """

    def __init__(self, codec: Codec, settings: Settings) -> None:
        self.codec, self.settings, self.metrics = codec, settings, Metrics()
        self.coding = Pool("coding", settings.concurrency, settings.queue)
        self.comparing = Pool("comparing", 1, min(settings.queue, _COMPARISONS))
        self.metrics.watch("coding", self.coding)
        self.metrics.watch("comparing", self.comparing)

    async def answer(self, request: Request, pool: Pool, job: Job[O], options: O) -> Response:
        """Read the body and do the job.

        Raises:
            Refusal: see `read_body` and `Pool`.
            ClientGone: nobody waits any more.
            SprdiffError: the job failed.
        """
        limits = self.settings
        check_headers(request, limits.max_upload)
        with pool.place():
            body = await read_body(request, limits.max_upload, limits.upload_timeout)

            def work(stop: Stop) -> tuple[Answer, float]:
                begin = time.perf_counter()
                answer = job(Task(self.codec, body, limits.max_pixels, stop), options)
                return answer, time.perf_counter() - begin

            answer, seconds = await pool.run(work, _gone(request), limits.timeout)
        self.metrics.worked(request.scope["route"].path, seconds, answer.pixels)
        headers = {f"Sprdiff-{name}": value for name, value in answer.about.items()}
        headers["Sprdiff-Seconds"] = f"{seconds:.3f}"
        return Response(answer.content, media_type=answer.media_type, headers=headers)

    async def model(self) -> str:
        """Name of the weights, loaded now if they are not yet.

        Raises:
            WeightsError: they cannot be loaded.
        """
        runtime = await asyncio.to_thread(lambda: self.codec.runtime)
        return weights_name(runtime.manifest.preset_id, runtime.weights_hash[:2])

    def close(self) -> None:
        """Begin no job any more."""
        self.coding.close()
        self.comparing.close()


async def _gone(request: Request) -> None:
    """Ends when the client has closed its connection; the body has been read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
