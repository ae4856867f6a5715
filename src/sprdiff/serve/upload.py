"""The body of a request, read with limits; its first bytes say what it is."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from ..format.container import MAGIC, Header, parse_file
from ..limits import above, size_message
from .problems import ClientGone, Refusal

# Senders say this about bytes of unknown type; the second is curl's default.
_UNTOLD = ("application/octet-stream", "application/x-www-form-urlencoded")


def check_headers(request: Request, most: int) -> None:
    """Refuse a body by its headers, before it is read, if its type is wrong or it is too large.

    Raises:
        Refusal: 413, 415.
    """
    kind = request.headers.get("content-type", _UNTOLD[0]).partition(";")[0].strip().lower()
    if kind not in _UNTOLD and not kind.startswith("image/"):
        raise Refusal(
            415, "send the bytes of the file as the body, with the content type of an image or none"
        )
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Refusal(415, "send the body without a content encoding")
    if int(request.headers.get("content-length") or 0) > most:
        raise _too_large(most)


async def read_body(request: Request, most: int, seconds: float) -> bytes:
    """Return the whole body; it is cut off at `most` bytes, whatever its headers said.

    Raises:
        Refusal: 408, 413, or 422 if it is empty.
        ClientGone: the connection was closed.
    """
    parts, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise _too_large(most)
                parts.append(part)
    except TimeoutError:
        raise Refusal(408, f"the body did not arrive within {seconds:g} seconds") from None
    except ClientDisconnect:
        raise ClientGone from None
    if not size:
        raise Refusal(422, "the body is empty")
    return b"".join(parts)


def check_sprd(data: bytes, max_pixels: int) -> Header:
    """Return the header of an ``.sprd`` file.

    Raises:
        Refusal: 413, 415.
        BitstreamError: it is damaged.
    """
    if not data.startswith(MAGIC):
        raise Refusal(415, "the body is not an sprd file")
    header = parse_file(data).header
    if above(header.width, header.height, max_pixels):
        raise Refusal(413, f"the picture has {size_message(header.width, header.height, max_pixels)}")
    return header


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"the body is above the limit of {most} bytes")
