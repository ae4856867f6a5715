"""The process around the application: address, names, warm-up, signals and the end."""

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

from ..codec import Codec
from ..common.files import describe
from ..errors import ServiceError
from .app import create_app
from .clients import Connections
from .protocol import Door, Protocol
from .service import Service
from .settings import LOOPBACK, Names, Settings

_KEEP_ALIVE = 30
_GRACE, _FAREWELL, _LAST = 7, 2, 1
"""Seconds after a signal to stop: for requests to end, then for the 503 of the others, then for their
threads."""


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address; port 0 chooses a free one.

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
            bound.listen()  # from here on no second service can have it
        except OSError:
            bound.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = describe(error) if isinstance(error, OSError) else "no such host"
        raise ServiceError(f"{host}, port {port}, cannot be used: {reason}") from error
    return bound


def address_of(bound: socket.socket) -> str:
    """Return the address to open in a browser."""
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def is_loopback(bound: socket.socket) -> bool:
    """Whether only this machine can reach the address."""
    return ipaddress.ip_address(bound.getsockname()[0].partition("%")[0]).is_loopback


def warm_up(codec: Codec) -> None:
    """Load and run all networks, so that errors show at once and the first request is as fast as the others.

    Raises:
        SprdiffError: they cannot be loaded or do not run.
    """
    codec.decode(codec.encode(np.zeros((64, 64, 3), np.uint8), quality=0))


def names_of(host: str, bound: socket.socket) -> Names:
    """Return the names under which requests may call a service that was bound to `host`."""
    address = str(bound.getsockname()[0]).partition("%")[0]
    names = {*LOOPBACK, host.lower(), address.lower()}
    if is_loopback(bound):
        return Names(tuple(names))
    machine = socket.gethostname().lower()
    short = machine.partition(".")[0]
    return Names((*names, machine, short, f"{short}.local"), any_address=True)


class Server(uvicorn.Server):
    """A server that ends in the promised time: requests that are not answered by then get a 503."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        patience = asyncio.get_running_loop().call_later(_GRACE, self.service.stop)
        try:
            await super().shutdown(sockets)
        finally:
            patience.cancel()


def make_server(codec: Codec, settings: Settings, *, root_path: str = "") -> Server:
    """Return a server that is not running yet.

    Args:
        root_path: the beginning of paths that a reverse proxy removes, such as ``/photos``.
    """
    app = create_app(codec, settings)
    service: Service = app.state.service
    door = Door(Connections(settings.connections), service.metrics, settings.header_timeout)
    config = uvicorn.Config(
        app,
        http=type("Protocol", (Protocol,), {"door": door}),
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        root_path=root_path,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_GRACE + _FAREWELL,
    )
    return Server(config, service)


def serve(server: Server, bound: socket.socket, ready: Callable[[], None]) -> bool:
    """Serve until SIGINT or SIGTERM; running work has some time to end.

    Args:
        ready: a function that is called just before.

    Returns:
        Whether all work has ended. A thread in the middle of a tile cannot be stopped, and a process that
        wants to end must not wait for it.
    """

    def stop(_: int, __: FrameType | None) -> None:
        server.should_exit = True

    # After its end uvicorn raises the signal again, which then needs a handler for a proper exit.
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    # It logs whatever strangers send; what matters is in our own log.
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    try:
        ready()
        server.run(sockets=[bound])
    finally:
        ended = server.service.close(_LAST)
        for number, handler in before.items():
            signal.signal(number, handler)
    return ended
