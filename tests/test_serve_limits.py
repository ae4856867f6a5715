"""What a request may take: bytes, pixels, places and time; and that a place always comes free again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace

import httpx
import pytest
from PIL import Image

from conftest import photo
from serve_helpers import CODEC, Api, api, jpeg, refused, saved
from sprdiff.codec import Codec
from sprdiff.errors import StoppedError
from sprdiff.interrupt import checkpoint, interruptible
from sprdiff.serve.pool import Pool, Stop
from sprdiff.serve.problems import ClientGone, Refusal
from sprdiff.serve.settings import Settings

SMALL = Settings(max_upload=50_000, max_pixels=50_000, concurrency=1, queue=1)


class Held(Codec):
    """A codec that waits until it is let go."""

    def __init__(self) -> None:
        super().__init__(threads=1)
        self.begun, self.go = threading.Semaphore(0), threading.Event()

    def encode(self, *_: object, **__: object) -> bytes:
        self.begun.release()
        assert self.go.wait(60)
        return CODEC.encode(jpeg(), quality=0)


@contextmanager
def held(settings: Settings) -> Iterator[tuple[Api, Held]]:
    codec = Held()
    with api(settings, codec) as made:
        try:
            yield made, codec
        finally:
            codec.go.set()


async def pieces(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def test_bytes_of_a_body() -> None:
    with api(SMALL) as service:
        assert service.post("/encode?quality=0", jpeg()).status_code == 200
        refused(service.post("/encode", bytes(50_001)), 413, "50000 bytes")
        refused(service.post("/encode", bytes(50_000)), 415)


def test_bytes_of_a_body_in_pieces_whose_length_nobody_told() -> None:
    with api(SMALL) as service:
        assert service.post("/encode?quality=0", pieces(jpeg())).content == CODEC.encode(jpeg(), quality=0)
        refused(service.post("/encode", pieces(bytes(50_001))), 413, "50000 bytes")


def test_a_content_length_that_lies_does_not_help() -> None:
    with api(SMALL) as service:
        answer = service.post("/encode", pieces(bytes(60_000)), headers={"Content-Length": "9"})
        refused(answer, 413, "50000 bytes")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"])
def test_pixels_of_a_picture_are_counted_before_it_is_decoded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sprdiff.serve.jobs.open_rgb", None)
    limit = replace(SMALL, max_upload=10**6)
    with api(limit) as service:
        large = saved(Image.new("L", (251, 200)), kind)
        refused(service.post("/encode", large), 413, "251 x 200 pixels", "50000")


def test_pixels_that_an_sprd_file_asks_for() -> None:
    # Fourteen bytes that ask for four million megapixels.
    huge = b"SPR\x10\x01\x00\x00\x00" + b"\xff\xff\x7f" * 2 + bytes(20)
    with api() as service:
        refused(service.post("/decode", huge), 413, "2097151 x 2097151 pixels")


def test_pixels_of_a_picture_to_compare() -> None:
    with api(SMALL) as service:
        refused(service.post("/compare?codec=jpeg&max_bytes=99", jpeg(201, 250)), 413, "250 x 201")


def test_too_many_requests() -> None:
    with held(SMALL) as (service, codec):

        async def four() -> list[httpx.Response]:
            first = [asyncio.create_task(service._http.post("/encode", content=jpeg())) for _ in range(2)]
            while not codec.begun.acquire(blocking=False):
                await asyncio.sleep(0.01)
            refusals = [await service._http.post("/encode", content=jpeg()) for _ in range(2)]
            assert (service.service.coding.busy, service.service.coding.waiting) == (1, 1)
            codec.go.set()
            return [*await asyncio.gather(*first), *refusals]

        answers = service.loop.run(four())
        assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
        refused(answers[2], 429, "waiting")
        assert int(answers[2].headers["retry-after"]) > 0
        assert service.post("/encode", jpeg()).status_code == 200
        assert service.service.coding.places == 0


def test_work_that_takes_too_long() -> None:
    with held(replace(SMALL, timeout=0.2)) as (service, codec):
        running, waiting = service.together(("/encode", jpeg()), ("/encode", jpeg()))
        for answer in (running, waiting):
            refused(answer, 503, "within 0.2 seconds")
            assert int(answer.headers["retry-after"]) > 0
        pool = service.service.coding
        assert (pool.places, pool.busy) == (0, 1)  # its thread cannot be stopped; the waiting one never began
        codec.go.set()
        while pool.busy:
            pass
        assert codec.begun.acquire(blocking=False) and not codec.begun.acquire(blocking=False)


def test_a_body_that_does_not_arrive() -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield jpeg()[:100]
        await asyncio.sleep(60)

    with api(replace(SMALL, upload_timeout=0.1)) as service:
        refused(service.post("/encode", slow()), 408, "within 0.1 seconds")
        assert service.service.coding.places == 0


def test_comparisons_have_a_thread_of_their_own() -> None:
    with held(SMALL) as (service, codec):

        async def both() -> tuple[httpx.Response, httpx.Response]:
            encoding = asyncio.create_task(service._http.post("/encode", content=jpeg()))
            while not codec.begun.acquire(blocking=False):
                await asyncio.sleep(0.01)
            compared = await service._http.post("/compare?codec=jpeg&max_bytes=600", content=jpeg())
            codec.go.set()
            return compared, await encoding

        assert [answer.status_code for answer in service.loop.run(both())] == [200, 200]


def test_answers_do_not_mix() -> None:
    bodies = [jpeg(seed=seed) for seed in range(6)]
    with api(Settings(concurrency=3)) as service:
        answers = service.together(*(("/encode?quality=10", body) for body in bodies))
        assert [answer.content for answer in answers] == [CODEC.encode(body, quality=10) for body in bodies]
        files = [("/decode?format=png", answer.content) for answer in answers]
        for (_, file), answer in zip(files, service.together(*files), strict=True):
            assert answer.headers["sprdiff-bytes"] == str(len(file))


def test_a_search_for_a_rival_ends_when_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    from sprdiff.evaluate.codecs_pillow import Jpeg
    from sprdiff.serve.rivals import best_rival

    stop, encode = Stop(), Jpeg.encode
    tried = 0

    def counted(self: Jpeg, pixels: object, quality: object) -> bytes:
        nonlocal tried
        tried += 1
        stop.set()
        return encode(self, pixels, quality)  # type: ignore[arg-type]

    monkeypatch.setattr(Jpeg, "encode", counted)
    with pytest.raises(StoppedError), interruptible(stop.check):
        best_rival("jpeg", photo(192, 256), 700)
    assert tried == 1


# The pool by itself


async def forever() -> None:
    await asyncio.Event().wait()


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
