"""Who asks: uploads and connections are counted in all and by client, so that nobody takes those of the others.

A client is an address of IPv4 or a network of 64 bits of IPv6, of which one subscriber usually has all addresses.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from .problems import Refusal

_SHARE = 4
"""One client has at most this part of what there is: a quarter."""


def share_of(total: int) -> int:
    """Return how many of `total` one client may have at once."""
    return max(1, total // _SHARE)


def client_of(host: str) -> str:
    """Return what is counted as one client; an address that is none (a socket of Unix) stands for itself."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if address.version == 6:
        mapped = address.ipv4_mapped
        return str(mapped or ipaddress.ip_network((address, 64), strict=False))
    return str(address)


class Uploads:
    """Bodies that are received at the same time; further ones wait, unread, for their turn.

    A client first waits for a turn of its own share: whoever has used it up stands in no other client's way.

    Attributes:
        busy: bodies that are received now.
    """

    def __init__(self, total: int) -> None:
        self.busy = 0
        self._share = share_of(total)
        self._all = asyncio.Semaphore(total)
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._asking: Counter[str] = Counter()

    @asynccontextmanager
    async def turn(self, client: str, seconds: float) -> AsyncIterator[None]:
        """Receive a body inside.

        Raises:
            Refusal: 429, no turn came within so many seconds.
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
    """Open connections: how many are let in, in all and of one client.

    Attributes:
        refused: those that are open and were not let in.
    """

    def __init__(self, total: int) -> None:
        self._total, self._share = total, share_of(total)
        self._open: Counter[str] = Counter()
        self.refused = 0

    def enter(self, client: str) -> Refusal | None:
        """Count one more; returns why it is not let in."""
        if self._open[client] < self._share and self._open.total() < self._total:
            self._open[client] += 1
            return None
        self.refused += 1
        if self._open[client] < self._share:
            return Refusal(503, "too many connections")
        return Refusal(429, "too many connections from one address")

    def leave(self, client: str, *, let_in: bool) -> None:
        """One is closed."""
        if not let_in:
            self.refused -= 1
            return
        self._open[client] -= 1
        if not self._open[client]:
            del self._open[client]
