"""Tests of the running server: its address, what it refuses, and its end."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

import sprdiff
from serve_helpers import CODEC, connect, jpeg, post, rest_of, told
from sprdiff import cli
from sprdiff.serve import server
from sprdiff.serve.server import address_of, is_loopback, listen
from sprdiff.serve.settings import Settings

QUICK = Settings(max_upload=100_000, upload_timeout=1, header_timeout=1)


@contextmanager
def started(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start ``sprdiff serve``; return the process and its first line."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sprdiff", "serve", "--port", "0", "--threads", "1", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline()
    finally:
        process.kill()
        process.communicate()


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
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
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
