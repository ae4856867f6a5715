"""Tests of connections that a server has to survive: slow, endless, broken and very many ones."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest

from serve_helpers import CODEC, connect, jpeg, post, refused, rest_of, running, told
from sprdiff.serve.protocol import CHUNK_BYTES, FREE_CHUNKS
from sprdiff.serve.settings import Settings

QUICK = Settings(max_upload=100_000, upload_timeout=1, header_timeout=1)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running(QUICK) as found:
        yield found


def busy(address: str) -> tuple[float, float]:
    """Return how many places are taken and how many jobs run, by the metrics."""
    lines = dict(
        line.rsplit(" ", 1) for line in httpx.get(f"{address}metrics").text.splitlines() if line[0] != "#"
    )
    return float(lines['sprdiff_waiting{pool="coding"}']), float(lines['sprdiff_busy{pool="coding"}'])


@pytest.mark.services
@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"POST /encode HTTP/1.1\r\nHost: localhost\r\nX: y\r\n"])
def test_heads_that_never_end(address: str, sent: bytes) -> None:
    with connect(address) as connection:
        connection.sendall(sent)
        assert rest_of(connection) == b""


@pytest.mark.services
def test_a_head_that_never_ends_after_a_good_request(address: str) -> None:
    with connect(address) as connection:
        connection.sendall(b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"HEAD / HTTP/1.1\r\nHos")
        assert rest_of(connection) == b""


@pytest.mark.services
def test_bodies_that_never_end(address: str) -> None:
    with connect(address) as connection:
        connection.sendall(b"POST /encode HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\nabc")
        answer = rest_of(connection)
    assert answer.startswith(b"HTTP/1.1 408 ") and b"within 1 seconds" in answer
    assert busy(address) == (0, 0)


@pytest.mark.services
def test_a_body_that_is_too_large_is_refused_so_that_its_sender_hears_of_it(address: str) -> None:
    refused(httpx.post(f"{address}encode", content=bytes(5_000_000)), 413, "100000 bytes")

    def endless() -> Iterator[bytes]:
        for _ in range(80):
            yield bytes(65536)

    refused(httpx.post(f"{address}encode", content=endless()), 413, "100000 bytes")


@pytest.mark.services
def test_a_client_that_asks_first_is_refused_before_it_sends(address: str) -> None:
    with connect(address) as connection:
        connection.sendall(
            b"POST /encode HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Length: 5000000\r\nExpect: 100-continue\r\n\r\n"
        )
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


TINY_CHUNKS = b"1\r\nx\r\n" * 100_000


CHUNKED = "Transfer-Encoding: chunked"


@pytest.mark.services
@pytest.mark.parametrize(
    "sent",
    [
        *(post("/encode", f"Content-Length: {length}") + b"abcdef" for length in ("-5", "x", "5, 6")),
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a browser that speaks TLS",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        post("/encode", CHUNKED) + b"zz\r\n",
    ],
)
def test_what_is_no_http_is_answered_in_json(address: str, sent: bytes) -> None:
    with connect(address) as connection:
        connection.sendall(sent)
        told(rest_of(connection), 400, "not valid HTTP")


@pytest.mark.services
@pytest.mark.parametrize("count", [101, 4000])
def test_heads_of_very_many_fields(address: str, count: int) -> None:
    with connect(address) as connection:
        connection.sendall(post("/healthz", *("a:" for _ in range(count))))
        told(rest_of(connection), 400, "100 fields")


@pytest.mark.services
def test_heads_that_are_too_long_although_they_come_whole(address: str) -> None:
    with connect(address) as connection:
        connection.sendall(post("/healthz", "a: " + 60_000 * "b"))
        told(rest_of(connection), 400, "too long")


@pytest.mark.services
@pytest.mark.parametrize("path", ["/encode", "/healthz", "/nothing"])
def test_bodies_of_one_byte_chunks(address: str, path: str) -> None:
    """A megabyte of them once kept the event loop for a second, and everybody else waited."""
    with connect(address) as connection:
        connection.sendall(post(path, CHUNKED) + TINY_CHUNKS)
        told(rest_of(connection), 400, "too many small chunks")
    assert busy(address) == (0, 0)


@pytest.mark.services
def test_chunks_that_are_small_and_not_very_many(address: str) -> None:
    def pieces(body: bytes, size: int) -> Iterator[bytes]:
        return (body[start : start + size] for start in range(0, len(body), size))

    small = jpeg(64, 96)
    assert len(small) < 2 * FREE_CHUNKS
    answer = httpx.post(f"{address}encode?quality=0", content=pieces(small, 2))
    assert answer.content == CODEC.encode(small, quality=0)
    large = bytes(2 * FREE_CHUNKS * CHUNK_BYTES)
    with running(replace(QUICK, max_upload=len(large))) as roomy:
        refused(httpx.post(f"{roomy}encode", content=pieces(large, CHUNK_BYTES)), 415, "not an image")


@pytest.mark.services
def test_a_body_that_breaks_after_its_answer_only_ends_its_connection(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(address) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + CHUNKED.encode() + b"\r\n\r\n")
        answer = connection.recv(65536)
        connection.sendall(b"no chunk\r\n")
        answer += rest_of(connection)
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.count(b"HTTP/1.1") == 1
    assert caplog.text == ""


@pytest.mark.services
def test_too_many_connections_of_one_client() -> None:
    with (
        running(replace(QUICK, connections=8, header_timeout=60)) as address,
        contextlib.ExitStack() as stack,
    ):
        for _ in range(2):
            held = stack.enter_context(connect(address))
            held.sendall(b"GET /healthz HT")
        with connect(address) as third:
            third.sendall(post("/encode", "Content-Length: 3") + b"abc")
            told(rest_of(third), 429, "too many connections from one address")
        with connect(address) as silent:
            assert rest_of(silent) == b"", "it has less time than others for its head"
        held.sendall(b"TP/1.1\r\nHost: localhost\r\n\r\n")
        assert held.recv(65536).startswith(b"HTTP/1.1 200 ")
        held.close()
        until = time.monotonic() + 60
        while (answer := httpx.get(f"{address}healthz")).status_code != 200:
            refused(answer, 429)
            assert time.monotonic() < until


@pytest.mark.services
def test_too_many_connections() -> None:
    with running(replace(QUICK, connections=1, header_timeout=60)) as address, connect(address) as held:
        held.sendall(b"GET /healthz HT")
        for _ in range(2):
            with connect(address, source="127.0.0.2") as other:
                other.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                told(rest_of(other), 503, "too many connections")
        held.sendall(b"TP/1.1\r\nHost: localhost\r\n\r\n")
        assert held.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.services
def test_connections_beyond_all_measure_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sprdiff.serve.protocol._SPARE", 0)
    with running(replace(QUICK, connections=1, header_timeout=60)) as address, connect(address) as held:
        held.sendall(b"GET /healthz HT")
        with connect(address) as second, contextlib.suppress(ConnectionError):
            assert rest_of(second) == b""
        held.sendall(b"TP/1.1\r\nHost: localhost\r\n\r\n")
        assert held.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.services
def test_clients_that_go_away_leave_nothing_behind(address: str) -> None:
    body = jpeg(600, 800)
    for sent in (body[:100], body):
        for _ in range(6):
            with connect(address) as connection:
                connection.sendall(
                    b"POST /encode HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
                    + sent
                )
    until = time.monotonic() + 60
    while busy(address) != (0, 0):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert httpx.post(f"{address}encode?quality=0", content=jpeg()).content == CODEC.encode(jpeg(), quality=0)


@pytest.mark.services
def test_a_client_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 50_000_000
    monkeypatch.setattr("sprdiff.serve.jobs.encode_image", lambda *_: bytes(size))
    monkeypatch.setattr("sprdiff.serve.guard._SLOWEST", size)  # one second more for all of it
    data = CODEC.encode(jpeg(64, 96), quality=0)
    with running(replace(QUICK, timeout=2)) as address, connect(address) as connection:
        connection.sendall(
            b"POST /decode HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(data) + data
        )
        until = time.monotonic() + 60
        while 'route="/decode",status="200"' not in httpx.get(f"{address}metrics").text:
            assert time.monotonic() < until
            time.sleep(0.1)
        answer = rest_of(connection)
    assert b"content-length: 50000000\r\n" in answer and len(answer) < size


@pytest.mark.services
def test_below_the_path_of_a_proxy() -> None:
    with running(root_path="/photos") as address:
        # As a proxy asks that has taken the path off.
        assert httpx.get(address).text.startswith("<!doctype html>")
        assert httpx.post(f"{address}encode?quality=0", content=jpeg()).status_code == 200
        assert httpx.get(f"{address}openapi.json").json()["servers"] == [{"url": "/photos"}]
        assert 'route="/encode"' in httpx.get(f"{address}metrics").text
