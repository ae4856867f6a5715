"""The service in this process, asked without a socket, and on a socket of its own thread."""

from __future__ import annotations

import asyncio
import io
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from PIL import Image

from conftest import photo
from sprdiff.codec import Codec
from sprdiff.serve.app import create_app
from sprdiff.serve.server import address_of, listen, make_server, serve
from sprdiff.serve.service import Service
from sprdiff.serve.settings import Settings

CODEC = Codec(threads=1, max_pixels=Settings().max_pixels)
"""A codec that all tests share, because loading it takes longest."""


def jpeg(height: int = 192, width: int = 256, seed: int = 0, **options: Any) -> bytes:
    """Make a photograph as the bytes of a JPEG file."""
    return saved(Image.fromarray(photo(height, width, seed)), "JPEG", **options)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


class Api:
    """The application with its own event loop; every call waits for its answer."""

    def __init__(self, settings: Settings | None = None, codec: Codec = CODEC) -> None:
        self.app = create_app(codec, settings)
        self.service: Service = self.app.state.service
        self.loop = asyncio.Runner()
        self._http = self.client("127.0.0.1")

    def client(self, address: str) -> httpx.AsyncClient:
        """Return a client with an address."""
        transport = httpx.ASGITransport(self.app, client=(address, 4711))
        return httpx.AsyncClient(transport=transport, base_url="http://localhost")

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.loop.run(self._http.request(method, path, **options))

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.ask("GET", path, **options)

    def post(self, path: str, content: bytes | AsyncIterator[bytes] = b"", **options: Any) -> httpx.Response:
        return self.ask("POST", path, content=content, **options)

    def together(self, *requests: tuple[str, bytes]) -> list[httpx.Response]:
        """Send several posts at once."""

        async def all_of_them() -> list[httpx.Response]:
            return await asyncio.gather(
                *(self._http.post(path, content=content) for path, content in requests)
            )

        return self.loop.run(all_of_them())

    def close(self) -> None:
        self.loop.run(self._http.aclose())
        self.service.close()
        self.loop.close()


@contextmanager
def api(settings: Settings | None = None, codec: Codec = CODEC) -> Iterator[Api]:
    made = Api(settings, codec)
    try:
        yield made
    finally:
        made.close()


def refused(answer: httpx.Response, status: int, *words: str) -> dict[str, Any]:
    """Check that an answer is an error: JSON with this status, these words, one sentence, and nothing of the
    machine."""
    assert answer.status_code == status, answer.text
    content: dict[str, Any] = answer.json()
    assert (
        set(content) <= {"error", "request", "smallest"}
        and content["request"] == answer.headers["request-id"]
    )
    for word in words:
        assert word in content["error"]
    for leak in ("Traceback", "File ", ".py", "/", "\\", "0x", "<", "\n"):
        assert leak not in content["error"]
    return content


@contextmanager
def running(settings: Settings | None = None, codec: Codec = CODEC, root_path: str = "") -> Iterator[str]:
    """Run a server on a thread of its own; return its address."""
    bound = listen("127.0.0.1", 0)
    server = make_server(codec, Settings() if settings is None else settings, root_path=root_path)
    thread = threading.Thread(target=serve, args=(server, bound, lambda: None))
    thread.start()
    try:
        yield address_of(bound)
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def connect(address: str, source: str = "127.0.0.1") -> socket.socket:
    """Open a bare connection to a server."""
    url = httpx.URL(address)
    return socket.create_connection((url.host, url.port or 80), timeout=60, source_address=(source, 0))


def rest_of(connection: socket.socket) -> bytes:
    """Return everything that the server still sends until it closes the connection."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


class Held(Codec):
    """A codec that waits until it is released."""

    def __init__(self) -> None:
        super().__init__(threads=1)
        self.begun, self.go = threading.Semaphore(0), threading.Event()

    def encode_with(self, *_: object, **__: object) -> bytes:
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
