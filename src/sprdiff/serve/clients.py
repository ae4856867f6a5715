"""Clients: uploads and connections are counted in total and by client, so that nobody can take all of them.

A client is an IPv4 address or a 64-bit network of IPv6, in which one subscriber usually has all addresses.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from .problems import Refusal

_SHARE = 4
"""One client may have at most this part of the total: a quarter."""


def share_of(total: int) -> int:
    """Return how many of `total` one client may have at the same time."""
    return max(1, total // _SHARE)


def client_of(host: str) -> str:
    """Return what counts as one client; anything but an IP address (as with Unix sockets) is a client of
    its own."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if address.version == 6:
        mapped = address.ipv4_mapped
        return str(mapped or ipaddress.ip_network((address, 64), strict=False))
    return str(address)


class Uploads:
    """The bodies that are received at the same time; further ones wait unread.

    A client first waits for a place in its own share, so that a client that has used up its share does not
    delay others.

    Attributes:
        busy: how many bodies are being received.
    """

    def __init__(self, total: int) -> None:
        self.busy = 0
        self._share = share_of(total)
        self._all = asyncio.Semaphore(total)
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._asking: Counter[str] = Counter()

    @asynccontextmanager
    async def turn(self, client: str, seconds: float) -> AsyncIterator[None]:
        """Receive a body in a ``with`` block.

        Raises:
            Refusal: 429: no place became free in time.
        """
        turns = self._turns.setdefault(client, asyncio.Semaphore(self._share))
        self._asking[client] += 1
        try:
            async with asyncio.timeout(seconds) as limit, turns, self._all:
                limit.reschedule(None)
                self.busy += 1
                try:
                    yield
                finally:
                    self.busy -= 1
        except TimeoutError:
            raise Refusal(429, "too many bodies are being received") from None
        finally:
            self._asking[client] -= 1
            if not self._asking[client]:
                del self._asking[client], self._turns[client]


class Connections:
    """The open connections: how many are accepted in total and from one client.

    Attributes:
        refused: the number of open connections that were not accepted.
    """

    def __init__(self, total: int) -> None:
        self._total, self._share = total, share_of(total)
        self._open: Counter[str] = Counter()
        self.refused = 0

    def enter(self, client: str) -> Refusal | None:
        """Count a new connection; return why it is not accepted, or None."""
        if self._open[client] < self._share and self._open.total() < self._total:
            self._open[client] += 1
            return None
        self.refused += 1
        if self._open[client] < self._share:
            return Refusal(503, "too many connections")
        return Refusal(429, "too many connections from one address")

    def leave(self, client: str, *, let_in: bool) -> None:
        """Count a connection that was closed."""
        if not let_in:
            self.refused -= 1
            return
        self._open[client] -= 1
        if not self._open[client]:
            del self._open[client]
