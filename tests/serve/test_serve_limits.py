"""Tests of what a request may take: bytes, pixels, places and time; a place always comes free again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest
from PIL import Image

from conftest import photo
from serve_helpers import CODEC, Api, api, held, jpeg, refused, saved
from sprdiff.errors import StoppedError
from sprdiff.interrupt import interruptible
from sprdiff.serve.clients import Uploads, client_of
from sprdiff.serve.pool import Stop
from sprdiff.serve.problems import Refusal
from sprdiff.serve.settings import Settings

FILE = CODEC.encode(jpeg(), quality=20, scale=1)
SMALL = Settings(max_upload=50_000, max_pixels=50_000, concurrency=1, queue=1)


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
def test_pixels_of_a_picture_are_counted_before_it_is_decoded(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sprdiff.imageio.open._loaded", None)
    limit = replace(SMALL, max_upload=10**6)
    with api(limit) as service:
        large = saved(Image.new("L", (251, 200)), kind)
        refused(service.post("/encode", large), 413, "251 x 200 pixels", "50000")


def test_pixels_that_an_sprd_file_asks_for() -> None:
    # Fourteen bytes that ask for four million megapixels.
    huge = b"SPR\x20\x01\x00\x00\x00" + b"\xff\xff\x7f" * 2 + bytes(20)
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


def test_uploads_take_no_places() -> None:
    """Bodies that hardly begin once took every place for half a minute."""
    one_byte = Settings(concurrency=1, queue=1, uploads=8)

    async def scene(service: Api) -> None:
        never = asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            yield b"\xff"
            await never.wait()

        slow = [
            asyncio.create_task(service.client("192.0.2.1").post("/encode", content=endless()))
            for _ in range(66)
        ]
        uploads = service.service.uploads
        while uploads.busy < 2:
            await asyncio.sleep(0.01)
        assert service.service.coding.places == 0
        answer = await service.client("192.0.2.2").post("/encode?quality=0", content=jpeg())
        assert answer.content == CODEC.encode(jpeg(), quality=0)
        assert uploads.busy == 2, "a quarter of all is the share of one client"
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        assert uploads.busy == 0

    with api(one_byte) as service:
        service.loop.run(scene(service))


def test_uploads_wait_for_their_turn() -> None:
    async def scene(service: Api) -> None:
        go = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield jpeg()[:100]
            await go.wait()
            yield jpeg()[100:]

        bodies: list[bytes | AsyncIterator[bytes]] = [slow(), jpeg()]
        tasks = []
        for body in bodies:
            tasks.append(
                asyncio.create_task(service.client("192.0.2.1").post("/encode?quality=0", content=body))
            )
            await asyncio.sleep(0.05)
        assert service.service.uploads.busy == 1 and not tasks[1].done()
        go.set()
        for task in tasks:
            assert (await task).content == CODEC.encode(jpeg(), quality=0)

    with api(Settings(uploads=1)) as service:
        service.loop.run(scene(service))
        assert service.service.uploads._turns == {}


@pytest.mark.parametrize("client", ["a", "b"])
def test_uploads_do_not_wait_for_ever(client: str) -> None:
    async def scene() -> None:
        uploads = Uploads(1)
        async with uploads.turn("a", 60):
            with pytest.raises(Refusal, match="bodies are being received") as caught:
                async with uploads.turn(client, 0.05):
                    raise AssertionError
            assert caught.value.status == 429
        async with uploads.turn(client, 0.05):
            assert uploads.busy == 1

    asyncio.run(scene())


def test_no_client_waits_for_the_uploads_of_another() -> None:
    async def scene() -> None:
        uploads, held = Uploads(4), []
        for client in ("a", "b", "c"):
            held.append(uploads.turn(client, 60))
            await held[-1].__aenter__()
        waits = asyncio.create_task(uploads.turn("a", 60).__aenter__())
        await asyncio.sleep(0)
        async with uploads.turn("d", 60):
            assert uploads.busy == 4
        waits.cancel()
        await asyncio.gather(waits, return_exceptions=True)
        for turn in held:
            await turn.__aexit__(None, None, None)
        assert uploads.busy == 0

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("testclient", "testclient"),
    ],
)
def test_who_counts_as_one_client(host: str, client: str) -> None:
    assert client_of(host) == client


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


def test_a_search_for_a_baseline_ends_when_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    from sprdiff.evaluate.codecs.pillow import Jpeg
    from sprdiff.serve.baselines import best_baseline

    stop, encode = Stop(), Jpeg.encode
    tried = 0

    def counted(self: Jpeg, pixels: object, quality: object) -> bytes:
        nonlocal tried
        tried += 1
        stop.set()
        return encode(self, pixels, quality)  # type: ignore[arg-type]

    monkeypatch.setattr(Jpeg, "encode", counted)
    with pytest.raises(StoppedError), interruptible(stop.check):
        best_baseline("jpeg", photo(192, 256), 700)
    assert tried == 1
