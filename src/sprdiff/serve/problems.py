"""Answers that are errors: a small JSON object with one short sentence, which reveals nothing about the
machine."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from ..errors import (
    BitstreamError,
    DeviceError,
    LargeImageError,
    SprdiffError,
    StoppedError,
    TargetError,
    UnsupportedImageError,
    WeightsError,
)

RETRY_AFTER = "2"
"""The seconds after which a client may try again, after 429 and 503."""
CLIENT_GONE = 499
"""The status in the metrics of a request whose client has gone; nobody reads it."""
_LONGEST = 300


class Problem(BaseModel):
    """The body of an error answer."""

    error: str = Field(description="What is wrong, in one sentence.")
    request: str = Field(
        description="Id of the request, as in the header Request-Id and in the server's log."
    )
    smallest: int | None = Field(
        None, description="Bytes of the smallest file there is, where fewer were asked for."
    )


class Refusal(Exception):  # noqa: N818
    """An answer other than success.

    Attributes:
        status: the HTTP status.
        smallest: the size of the smallest file in bytes, if a smaller one was wanted.
    """

    def __init__(self, status: int, message: str, smallest: int | None = None) -> None:
        super().__init__(message)
        self.status, self.smallest = status, smallest


class ClientGone(Exception):  # noqa: N818
    """The client closed its connection, so nobody waits for an answer."""


DESCRIPTIONS = {
    400: "The request is not valid HTTP, or consists of far too many small parts.",
    403: "A page of another site sends this.",
    421: "Host is not a name of this service.",
    413: "The body has too many bytes, or the picture too many pixels.",
    415: "The body is not a picture (or not an `.sprd` file), or is said to be something else.",
    408: "The body did not arrive in time.",
    422: "A parameter is wrong, the file is damaged, or no file can be that small.",
    429: "Too many requests wait, too many bodies are received, or one address has too many connections.",
    500: "A bug; the id of the request is in the server's log.",
    503: "The work did not end in time, the networks cannot run, the service stops, "
    "or it has too many connections.",
}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the error answers of a route, for OpenAPI."""
    return {status: {"model": Problem, "description": DESCRIPTIONS[status]} for status in statuses}


def answer(refusal: Refusal, request_id: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return the JSON answer of a refusal."""
    content = Problem(error=str(refusal)[:_LONGEST], request=request_id, smallest=refusal.smallest)
    more = {"Retry-After": RETRY_AFTER} if refusal.status in (429, 503) else {}
    return JSONResponse(content.model_dump(exclude_none=True), refusal.status, {**(headers or {}), **more})


def plain(status: int) -> Refusal:
    """Return the refusal of a request for which there is no route."""
    return Refusal(status, HTTPStatus(status).phrase.lower())


def from_error(error: Exception) -> Refusal | None:
    """Return the refusal for an error of the codec; None if no request can cause the error."""
    if isinstance(error, MemoryError):
        return Refusal(503, "not enough memory for this now")
    if isinstance(error, WeightsError | DeviceError):
        return Refusal(503, "the networks cannot run")  # their messages name folders of this machine
    if isinstance(error, StoppedError):
        return Refusal(503, str(error))
    if isinstance(error, TargetError):
        return Refusal(422, str(error), error.smallest)
    if isinstance(error, BitstreamError):
        return Refusal(422, str(error))
    if isinstance(error, UnsupportedImageError | LargeImageError):
        return Refusal(415 if isinstance(error, UnsupportedImageError) else 413, str(error))
    if isinstance(error, SprdiffError):
        return Refusal(422, _clean(str(error)))
    return None


def from_validation(error: RequestValidationError) -> Refusal:
    """Return one sentence about the first wrong parameter."""
    first = error.errors()[0]
    name = str(first["loc"][-1])[:60] if first.get("loc") else "the request"
    if first["type"] == "extra_forbidden":
        return Refusal(422, f"there is no parameter {name!a}")
    message = str(first["msg"])
    return Refusal(422, f"{name}: {message[:1].lower()}{message[1:]}")


def _clean(message: str) -> str:
    """Remove what Pillow says about the machine: addresses of objects and paths come after a colon."""
    head, colon, reason = message.partition(": ")
    return head if colon and any(mark in reason for mark in "</\\") else message
