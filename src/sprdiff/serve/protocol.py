"""Connections that misuse HTTP, or are too many; the answers that uvicorn gives by itself are JSON here, too.

A connection is closed if no request begins or completes its head in time, or if its requests would cost far
more work than they have bytes: a head with thousands of fields, a body of one-byte chunks. If there are too
many connections, a further one has a short time to send its request, which gets a 429 or 503; beyond `_SPARE`
of those it is cut off.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from typing import NoReturn

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .clients import Connections, client_of
from .guard import HEADERS
from .metrics import Metrics
from .problems import Refusal, answer

MAX_HEAD = 2**14
"""The largest head in bytes, and how much the parser gets at once."""
MAX_FIELDS = 100
"""The largest number of fields in a head."""
FREE_CHUNKS, CHUNK_BYTES = 1024, 256
"""How many chunks of any size a body may have, and how many bytes all further ones must have on average."""
_SPARE = 128
_SHORT = 1.0
"""How long the request may take on a connection that is not accepted, in seconds."""
_LINGER = 3.0
"""For this many seconds after a refusal further data are read and discarded, because a reset could overtake
the answer."""


class Parser(h11.Connection):
    """A parser that refuses requests of very many very small parts.

    Attributes:
        problem: what is wrong with the request, once `next_event` has raised an error.
    """

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MAX_HEAD)
        self.problem = "the request is not valid HTTP"
        self._chunks = self._bytes = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Return the next event.

        Raises:
            RemoteProtocolError: the data are not HTTP, or have too many fields or chunks.
        """
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == 431:
                self.problem = "the head is too long"
            raise
        if isinstance(event, h11.Request):
            self._chunks = self._bytes = 0
            if len(event.headers) > MAX_FIELDS:
                self._refuse(f"the head has more than {MAX_FIELDS} fields")
        elif isinstance(event, h11.Data):
            self._chunks += event.chunk_start
            self._bytes += len(event.data)
            if (self._chunks - FREE_CHUNKS) * CHUNK_BYTES > self._bytes:
                self._refuse("the body consists of too many small chunks")
        return event

    def _refuse(self, problem: str) -> NoReturn:
        self.problem = problem
        raise h11.RemoteProtocolError(problem)


@dataclass(frozen=True)
class Door:
    """What all connections of a server share.

    Attributes:
        seconds: within this time the head of a request has to arrive.
    """

    connections: Connections
    metrics: Metrics
    seconds: float


class Protocol(H11Protocol):
    """One connection."""

    door: Door
    _timer: asyncio.TimerHandle | None = None
    _parser: Parser
    _refusal: Refusal | None = None
    _over = False
    _who = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.conn = self._parser = Parser()
        self._who = client_of(self.client[0] if self.client else "")
        self._refusal = self.door.connections.enter(self._who)
        if self._refusal is not None:
            if self.door.connections.refused > _SPARE:
                transport.abort()
                return
            self.app_state = {
                **self.app_state,
                "refusal": self._refusal,
            }  # the application's guard answers it
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.door.connections.leave(self._who, let_in=self._refusal is None)
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        # In pieces, so that the parser's own limit also holds for a head that arrives at once.
        for start in range(0, len(data), MAX_HEAD):
            if self._over or self.transport.is_closing():
                return
            super().data_received(data[start : start + MAX_HEAD])
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser refuses; if another answer has begun, the connection can only be closed."""
        self._over = True
        answerable = self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE)
        if answerable:
            self._send_bad_request()
        if self.cycle is not None:
            self.cycle.disconnected = True  # the application must not send anything any more
            self.cycle.message_event.set()
        if answerable and self.transport.can_write_eof():
            self.transport.write_eof()
            self.flow.resume_reading()
            self.loop.call_later(_LINGER, self.transport.close)
        else:
            self.transport.close()

    def _send_bad_request(self) -> None:
        refusal = Refusal(400, self._parser.problem)
        request_id = secrets.token_hex(8)
        problem = answer(refusal, request_id, {**HEADERS, "Request-Id": request_id})
        more = [(b"connection", b"close"), (b"cache-control", b"no-store")]
        headers = [*self.server_state.default_headers, *problem.raw_headers, *more]
        response = h11.Response(status_code=refusal.status, headers=headers, reason=b"Bad Request")
        body = bytes(problem.body)
        events = (response, h11.Data(data=body), h11.EndOfMessage())
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        if self._is_waiting():  # otherwise the request is counted when it ends
            self.door.metrics.answered("other", refusal.status, 0.0, 0, len(body))

    def _watch(self) -> None:
        if not self._is_waiting() and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        elif self._is_waiting() and self._timer is None:
            seconds = self.door.seconds if self._refusal is None else min(_SHORT, self.door.seconds)
            self._timer = self.loop.call_later(seconds, self._close)

    def _is_waiting(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _close(self) -> None:
        self._timer = None
        if self._is_waiting() and not self.transport.is_closing():
            self.transport.close()
