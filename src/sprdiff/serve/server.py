"""The process around the application: address, warm-up, signals, connections that do not get on with it."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..codec import Codec
from ..common.files import describe
from ..errors import ServiceError
from .app import create_app
from .settings import Settings

_KEEP_ALIVE = 30
_GRACE = 10
"""Seconds that requests have to end once the service is told to stop."""


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to an address; port 0: one that is free.

    Raises:
        ServiceError: there is no such host, or the port is taken or not allowed.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen()  # from here on a second service cannot have it
        except OSError:
            bound.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = describe(error) if isinstance(error, OSError) else "no such host"
        raise ServiceError(f"{host}, port {port}, cannot be used: {reason}") from error
    return bound


def address_of(bound: socket.socket) -> str:
    """The address for a browser."""
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def is_loopback(bound: socket.socket) -> bool:
    """Whether only this machine can reach it."""
    return ipaddress.ip_address(bound.getsockname()[0].partition("%")[0]).is_loopback


def warm_up(codec: Codec) -> None:
    """Load all networks: what is wrong with them shows now, and the first request is as fast as the others.

    Raises:
        SprdiffError: they cannot be loaded or do not run.
    """
    codec.decode(codec.encode(np.zeros((64, 64, 3), np.uint8), quality=0))


class Protocol(H11Protocol):
    """Closes a connection on which no request begins or ends its head in time; uvicorn itself waits for ever."""

    seconds: float
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def _watch(self) -> None:
        if not self._is_waiting() and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        elif self._is_waiting() and self._timer is None:
            self._timer = self.loop.call_later(self.seconds, self._close)

    def _is_waiting(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _close(self) -> None:
        self._timer = None
        if self._is_waiting() and not self.transport.is_closing():
            self.transport.close()


def make_server(codec: Codec, settings: Settings, *, root_path: str = "") -> uvicorn.Server:
    """A server that is not running yet.

    Args:
        root_path: what a reverse proxy takes off the front of paths, such as ``/photos``.
    """
    app = create_app(codec, settings)
    protocol = type("Protocol", (Protocol,), {"seconds": settings.header_timeout})
    config = uvicorn.Config(
        app, http=protocol, ws="none", lifespan="off", loop="asyncio", log_config=None, access_log=False,
        server_header=False, proxy_headers=False, root_path=root_path, limit_concurrency=settings.connections,
        timeout_keep_alive=_KEEP_ALIVE, timeout_graceful_shutdown=_GRACE,
    )  # fmt: skip
    return uvicorn.Server(config)


def serve(server: uvicorn.Server, bound: socket.socket, ready: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM; what has begun may end.

    Args:
        ready: called just before.
    """

    def stop(_: int, __: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn raises the signal again when it has stopped: to end well, it has to meet a handler then.
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    # It speaks up for whatever a stranger sends; what matters is in our own log.
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    try:
        ready()
        server.run(sockets=[bound])
    finally:
        server.config.app.state.service.close()  # type: ignore[union-attr]
        for number, handler in before.items():
            signal.signal(number, handler)
