"""The page that opens files in the browser itself, at ``/view/``: its files, and the weights it asks for."""

from __future__ import annotations

import asyncio
import html
from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path

from fastapi import FastAPI, Request, Response

from ..errors import ViewerError
from ..viewer.bundle import Bundle, make_bundle
from ..viewer.page import HEADERS, HOME, INDEX, kind_of, page_files

_FOR_EVER = "public, max-age=31536000, immutable"
_CHECKED = "no-cache"
_MISSING = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="color-scheme" content="light dark"><title>sprdiff</title>
<p>{}.</p></html>
"""

Answer = Callable[[Request], Awaitable[Response]]


class View:
    """The answers below ``/view``.

    Args:
        weights: folder of weights for the page; None: the shipped one. It is read when a page first asks for
            it.
    """

    def __init__(self, weights: Path | None) -> None:
        self._weights = weights
        self._bundle: Bundle | None = None
        self._lock = asyncio.Lock()

    def add_to(self, app: FastAPI) -> None:
        """Add the routes."""
        try:
            content = page_files()
        except ViewerError as error:
            for path in ("/view", "/view/"):
                _add(app, path, _saying(str(error)))
            return
        _add(app, "/view", _moved)
        _add(app, "/view/", _giving(content[HOME], HOME))
        _add(app, f"/view/{INDEX}", self._index)
        # Read once, by a fixed list: no path of a request ever reaches the file system.
        for name, data in content.items():
            _add(app, f"/view/{name}", _giving(data, name))
        _add(app, "/view/weights-{digest}.bin", self._binary)

    async def _index(self, request: Request) -> Response:
        bundle = await self._made()
        return Response(bundle.index, headers=_headers(INDEX, _CHECKED))

    async def _binary(self, request: Request) -> Response:
        bundle = await self._made()
        if request.url.path.rpartition("/")[2] != bundle.name:
            return Response(status_code=404)
        return Response(bundle.data, headers=_headers(bundle.name, _FOR_EVER))

    async def _made(self) -> Bundle:
        """Return the weights, which are packed once and kept.

        Raises:
            WeightsError: the folder is damaged, or holds no graphs.
        """
        async with self._lock:
            if self._bundle is None:
                self._bundle = await asyncio.to_thread(make_bundle, self._weights)
            return self._bundle


def _add(app: FastAPI, path: str, answer: Answer) -> None:
    app.add_api_route(path, answer, methods=["GET", "HEAD"], include_in_schema=False, response_class=Response)


def _giving(content: bytes, name: str) -> Answer:
    tag = f'"{sha256(content).hexdigest()[:16]}"'
    headers = _headers(name, _CHECKED) | {"ETag": tag}

    async def file(request: Request) -> Response:
        same = request.headers.get("if-none-match") == tag
        return Response(b"" if same else content, 304 if same else 200, headers)

    return file


def _saying(sentence: str) -> Answer:
    content = _MISSING.format(html.escape(sentence[:1].upper() + sentence[1:]))

    async def missing(request: Request) -> Response:
        return Response(content, 404, _headers(HOME, _CHECKED))

    return missing


async def _moved(request: Request) -> Response:
    # It is relative, because a proxy may have removed the front of the path; browsers keep the fragment.
    return Response(status_code=308, headers={"Location": "view/"})


def _headers(name: str, keeping: str) -> dict[str, str]:
    return {**HEADERS, "Content-Type": kind_of(name), "Cache-Control": keeping}
