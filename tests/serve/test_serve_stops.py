"""Tests of work that nobody waits for: it ends, and its place becomes free again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import httpx
import pytest

from serve_helpers import CODEC, Api, api, jpeg, refused
from sprdiff.codec import Codec
from sprdiff.interrupt import checkpoint
from sprdiff.loading import load_runtime
from sprdiff.runtime.sessions import Sessions
from sprdiff.serve.pool import Pool
from sprdiff.serve.problems import ClientGone, Refusal
from sprdiff.serve.settings import Settings

FILE = CODEC.encode(jpeg(), quality=20, scale=1)


SMALL = Settings(max_upload=50_000, max_pixels=50_000, concurrency=1, queue=1)


# The pool by itself


async def forever() -> None:
    await asyncio.Event().wait()


class Gate:
    """Networks that begin a tile, wait there until they are released, and count their tiles."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.codec = Codec.from_runtime(load_runtime(threads=1, tile=64))
        self.begun, self.go, self.tiles = threading.Semaphore(0), threading.Event(), 0
        run = Sessions.run

        def held(sessions: Sessions, graph: str, *given: object, **options: object) -> object:
            self.tiles += 1
            self.begun.release()
            assert self.go.wait(60)
            return run(sessions, graph, *given, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(Sessions, "run", held)

    async def wait(self) -> None:
        while not self.begun.acquire(blocking=False):
            await asyncio.sleep(0.01)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate(monkeypatch)
    yield made
    made.go.set()


@pytest.mark.parametrize(("path", "body"), [("/encode?quality=0", jpeg()), ("/decode", None)])
def test_work_stops_before_its_next_tile_when_its_time_is_over(
    gate: Gate, path: str, body: bytes | None
) -> None:
    with api(replace(SMALL, timeout=0.2), gate.codec) as service:
        refused(service.post(path, body or FILE), 503, "within 0.2 seconds")
        gate.go.set()
        assert service.service.coding.ended(60)
    assert gate.tiles == 1


def test_work_stops_before_its_next_tile_when_the_client_has_gone(gate: Gate) -> None:
    async def scene() -> None:
        pool = Pool("test", 1, 0)
        with pytest.raises(ClientGone):
            await pool.run(lambda: gate.codec.decode(FILE), gate.wait(), 60)
        gate.go.set()
        assert pool.ended(60)
        pool.close()

    asyncio.run(scene())
    assert gate.tiles == 1


def test_a_service_that_stops_answers_and_ends_its_work(gate: Gate) -> None:
    async def scene(service: Api) -> list[httpx.Response]:
        async def slow() -> AsyncIterator[bytes]:
            yield b"S"
            await asyncio.Event().wait()

        posts: list[bytes | AsyncIterator[bytes]] = [
            FILE,
            FILE,
            slow(),
        ]  # one works, one waits for a thread, one still sends
        tasks = [
            asyncio.create_task(service.client("192.0.2.1").post("/decode", content=body)) for body in posts
        ]
        await gate.wait()
        while not (service.service.uploads.busy and service.service.coding.waiting):
            await asyncio.sleep(0.01)
        service.service.stop()
        answers = [await task for task in tasks]
        return [*answers, await service.client("192.0.2.1").post("/decode", content=FILE)]

    with api(replace(SMALL, queue=5), gate.codec) as service:
        for answer in service.loop.run(scene(service)):
            refused(answer, 503, "stopping")
        assert not service.service.close(0.0), "it waits inside a tile"
        gate.go.set()
        assert service.service.close(60)
    assert gate.tiles == 1


def test_a_client_that_goes_away_frees_its_place_in_the_queue() -> None:
    async def scene() -> None:
        pool, go = Pool("test", 1, 5), threading.Event()
        running = asyncio.create_task(pool.run(lambda: go.wait(60), forever(), 60))
        while not pool.busy:
            await asyncio.sleep(0.01)
        ran = []

        async def leaves() -> None:
            await asyncio.sleep(0)

        with pytest.raises(ClientGone):
            await pool.run(lambda: ran.append(1), leaves(), 60)
        go.set()
        assert await running
        assert await pool.run(lambda: 7, forever(), 60) == 7
        assert ran == []
        pool.close()

    asyncio.run(scene())


def test_a_job_that_nobody_waits_for_ends_at_its_next_check() -> None:
    async def scene() -> None:
        pool, ended = Pool("test", 1, 0), threading.Event()

        def job() -> None:
            try:
                while True:
                    checkpoint()
            finally:
                ended.set()

        with pytest.raises(Refusal) as caught:
            await pool.run(job, forever(), 0.05)
        assert caught.value.status == 503
        assert await asyncio.to_thread(ended.wait, 10)
        pool.close()

    asyncio.run(scene())


def test_errors_of_jobs_come_out_and_free_the_place() -> None:
    async def scene() -> None:
        pool = Pool("test", 1, 0)

        def fail() -> None:
            raise ZeroDivisionError

        for _ in range(3):
            with pytest.raises(ZeroDivisionError), pool.place():
                await pool.run(fail, forever(), 60)
        assert (pool.places, pool.busy) == (0, 0)
        pool.close()

    asyncio.run(scene())
