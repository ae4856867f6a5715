"""Tests of the running server: its address, its end, and connections that it has to survive."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

import sprdiff
from serve_helpers import CODEC, connect, jpeg, refused, rest_of, running
from sprdiff import cli
from sprdiff.serve import server
from sprdiff.serve.protocol import CHUNK_BYTES, FREE_CHUNKS
from sprdiff.serve.server import address_of, is_loopback, listen
from sprdiff.serve.settings import Settings

QUICK = Settings(max_upload=100_000, upload_timeout=1, header_timeout=1)


@contextmanager
def started(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start ``sprdiff serve``; return the process and its first line."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sprdiff", "serve", "--port", "0", "--threads", "1", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline()
    finally:
        process.kill()
        process.communicate()


def post(path: str, *fields: str) -> bytes:
    """Return the head of a request."""
    return "\r\n".join((f"POST {path} HTTP/1.1", "Host: localhost", *fields, "", "")).encode()


def told(answer: bytes, status: int, *words: str) -> None:
    """Check one whole answer of the server itself: JSON with an id and these words, after which the
    connection is closed."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status_line, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    assert int(status_line.split()[1]) == status and headers["content-type"] == "application/json"
    assert headers.get("connection", "close") == "close" and headers["x-content-type-options"] == "nosniff"
    refused(httpx.Response(status, content=body, headers=headers), status, *words)


def address_in(line: str) -> str:
    return next(word for word in line.split() if word.startswith("http://"))


# The command, in this process: what it refuses before it serves


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    status = cli.main(["serve", *arguments])
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("sprdiff: error: ") and err.count("\n") == 1
    return status, err


def test_a_port_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        status, line = failure(capsys, "--port", str(port))
    assert status == 1 and f"port {port}, cannot be used: address already in use" in line


def test_no_such_host(capsys: pytest.CaptureFixture[str]) -> None:
    for host in ("not a host", "a" * 70, "203.0.113.1"):
        status, line = failure(capsys, "--host", host, "--port", "0")
        assert status == 1 and "cannot be used" in line


def test_weights_that_do_not_load(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, line = failure(capsys, "--port", "0", "--weights", str(tmp_path))
    assert status == 1 and "manifest.json" in line


def test_wrong_options(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (
        ["--port", "70000"],
        ["--concurrency", "0"],
        ["--timeout", "0"],
        ["--root-path", "photos/"],
    ):
        assert failure(capsys, *wrong)[0] == 2


def test_without_the_extra(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # The settings stay: the command line reads their types. The package itself is put back afterwards.
    monkeypatch.setattr("sprdiff.serve", importlib.import_module("sprdiff.serve"))
    for name in [name for name in sys.modules if name.startswith("sprdiff.serve") and "settings" not in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    status, line = failure(capsys)
    assert status == 1 and "uvicorn: pip install 'sprdiff[serve]'" in line


def test_addresses() -> None:
    with listen("localhost", 0) as bound:
        assert is_loopback(bound) and address_of(bound).startswith("http://")
    with listen("0.0.0.0", 0) as bound:
        assert not is_loopback(bound)


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_an_address_of_version_6() -> None:
    try:
        bound = listen("::1", 0)
    except sprdiff.ServiceError:
        pytest.skip("no loopback of IPv6 here")
    with bound:
        assert is_loopback(bound) and address_of(bound).startswith("http://[::1]:")


# The command in a process of its own


@pytest.mark.services
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_told_to_stop(number: signal.Signals) -> None:
    with started() as (process, line):
        address = address_in(line)
        assert address.startswith("http://127.0.0.1:")
        answer = httpx.post(f"{address}encode?quality=0", content=jpeg())
        assert answer.content == CODEC.encode(jpeg(), quality=0)
        assert answer.headers["date"] and "server" not in answer.headers
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")


@pytest.mark.services
def test_what_has_begun_may_end() -> None:
    with started() as (process, line):
        large = jpeg(600, 800)
        with connect(address_in(line)) as connection:
            head = (
                f"POST /encode?quality=0 HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(large)}\r\n\r\n"
            )
            connection.sendall(head.encode() + large[:-1])
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            connection.sendall(large[-1:])
            answer = rest_of(connection)
        _, err = process.communicate(timeout=30)
    assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(CODEC.encode(large, quality=0))
    assert (process.returncode, err) == (0, "")


STUCK = """
import sys, threading, time
from sprdiff import cli
from sprdiff.codec import Codec
from sprdiff.interrupt import checkpoint
from sprdiff.serve import server

server._GRACE = server._FAREWELL = 1

def encode(self, *given, **options):
    print("at work", flush=True)
    while True:
        time.sleep(0.01)
        {between}

server.warm_up = lambda codec: None
Codec.encode_with = encode
sys.exit(cli.main(["serve", "--port", "0", "--threads", "1"]))
"""


@pytest.mark.services
@pytest.mark.parametrize("between", ["checkpoint()", "pass"], ids=["in tiles", "in one piece"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_with_a_job_at_work(number: signal.Signals, between: str) -> None:
    """Once the client had a 500 and the process stayed alive for as long as the job."""
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK.format(between=between)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        with connect(address_in(process.stdout.readline())) as connection:
            body = jpeg(64, 96)
            connection.sendall(post("/encode", f"Content-Length: {len(body)}") + body)
            assert process.stdout.readline() == "at work\n"
            process.send_signal(number)
            told(rest_of(connection), 503, "stopping")
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, err) == (0, "")


def test_the_times_for_stopping_add_up_to_what_is_promised() -> None:
    assert server._GRACE + server._FAREWELL + server._LAST == 10


@pytest.mark.services
def test_a_warning_when_others_can_reach_it() -> None:
    with started("--host", "0.0.0.0") as (process, line):
        port = httpx.URL(address_in(line)).port
        assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
        process.terminate()
        _, err = process.communicate(timeout=30)
    assert (
        err.startswith("sprdiff: warning: ") and "can be reached from outside" in err and err.count("\n") == 1
    )


# Connections


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


@pytest.mark.services
def test_the_load_test(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "serve.py"
    command = [
        sys.executable,
        str(script),
        "--clients",
        "5",
        "--seconds",
        "4",
        "--size",
        "64x96",
        "--",
        "--threads",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False, env=os.environ)
    assert "Wrong: 0." in done.stdout and "200: " in done.stdout and "| encode |" in done.stdout, done.stderr
