"""Middleware for every request: who may ask, an id, headers, metrics, and an answer even if there is a bug.

A request may be refused before its body was read. If the connection were closed then, it would be reset and
the client might never see the answer. Therefore a limited part of the rest is read and discarded first.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .metrics import Metrics
from .origins import Origins
from .problems import CLIENT_GONE, ClientGone, Refusal, answer

LOG = logging.getLogger("sprdiff.serve")
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_CHUNK = 2**16
_DISCARD_BYTES = 2**27
_DISCARD_SECONDS = 3.0
_SLOWEST = 32_000
"""The bytes per second that every client is given time for, because the weights of the page at /view/ are
large."""


class Guard:
    """Middleware around the whole application.

    Args:
        seconds: how long sending an answer may take, and one more for each `_SLOWEST` bytes of it; a client
            that reads more slowly is cut off.
        origins: which web pages may ask.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, seconds: float, origins: Origins) -> None:
        self.app, self.metrics, self.seconds, self.origins = app, metrics, seconds, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http":
            await _Exchange(scope, receive, send, self.seconds, self.origins).run(self.app, self.metrics)
        else:
            await self.app(scope, receive, send)


class _Exchange:
    def __init__(self, scope: Scope, receive: Receive, send: Send, seconds: float, origins: Origins) -> None:
        self._scope, self._receive, self._send, self._seconds = scope, receive, send, seconds
        self._origins, self._headers = origins, Headers(scope=scope)
        self._id = secrets.token_hex(8)
        self._unread, self._started = True, False
        self._received = self._sent = 0
        self._status = CLIENT_GONE
        scope.setdefault("state", {})["request_id"] = self._id

    async def run(self, app: ASGIApp, metrics: Metrics) -> None:
        begin = time.perf_counter()
        try:
            await self._answered(app)
        finally:
            route = getattr(self._scope.get("route"), "path", "other")
            seconds = time.perf_counter() - begin
            metrics.answered(route, self._status, seconds, self._received, self._sent)

    async def _answered(self, app: ASGIApp) -> None:
        try:
            await self._app(app)(self._scope, self.receive, self.send)
        except ClientGone:
            return
        except Refusal as refusal:
            await self._refuse(refusal)
        except asyncio.CancelledError:
            # The server stops now: nothing here may wait any more.
            self._unread = False
            await self._refuse(Refusal(503, "the service is stopping"))
        except Exception:
            LOG.exception("request %s failed", self._id)
            await self._refuse(
                Refusal(500, "an error in the server; its log has more under the id of this request")
            )

    def _app(self, app: ASGIApp) -> ASGIApp:
        """Return the application, unless it must not see the request.

        Raises:
            Refusal: there are too many connections, or a page of another origin asks.
        """
        refusal = self._scope["state"].get("refusal")
        if refusal is not None:
            raise refusal
        self._origins.check(self._scope["method"], self._headers)
        allowed = self._origins.preflight(self._scope["method"], self._headers)
        return app if allowed is None else Response(status_code=204, headers=allowed)

    async def _refuse(self, refusal: Refusal) -> None:
        if not self._started:
            await answer(refusal, self._id)(self._scope, self.receive, self.send)

    async def receive(self) -> Message:
        message = await self._receive()
        self._received += len(message.get("body", b""))
        self._unread = message["type"] == "http.request" and message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._start(message)
        elif message["type"] == "http.response.body":
            await self._body(message)
        else:
            await self._send(message)

    async def _start(self, message: Message) -> None:
        self._status = message["status"]
        headers = MutableHeaders(scope=message)
        if self._status >= 400:
            if self._unread:
                await self._discard()
            if self._unread or "refusal" in self._scope["state"]:
                headers["Connection"] = "close"
        headers.setdefault("Cache-Control", "no-store")
        headers["Request-Id"] = self._id
        for name, value in HEADERS.items():
            headers.setdefault(name, value)  # the page at /view/ has a policy of its own
        headers.update(self._origins.shared(self._headers))
        self._started = True
        await self._send(message)

    async def _body(self, message: Message) -> None:
        """Send the body in pieces, so that the time limit works and little data waits in buffers."""
        body, more = memoryview(message.get("body", b"")), message.get("more_body", False)
        self._sent += len(body)
        try:
            async with asyncio.timeout(self._seconds + len(body) / _SLOWEST):
                for start in range(0, max(1, len(body)), _CHUNK):
                    piece = bytes(body[start : start + _CHUNK])
                    rest = more or start + _CHUNK < len(body)
                    await self._send({"type": "http.response.body", "body": piece, "more_body": rest})
        except TimeoutError:
            raise ClientGone from None

    async def _discard(self) -> None:
        if self._status == 408 or "expect" in self._headers:
            return  # the client sends nothing, or waits to be asked for it
        most = self._received + _DISCARD_BYTES
        try:
            async with asyncio.timeout(_DISCARD_SECONDS):
                while self._unread and self._received < most:
                    await self.receive()
        except TimeoutError:
            return
