"""The descriptions in ``/openapi.json`` of the routes that receive and return bytes."""

from __future__ import annotations

from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from .jobs import SPRD_TYPE
from .problems import responses

ABOUT = """Photographs in about a thousand bytes, and back.
Details are invented: not for evidence, faces or text.

Bodies are the bytes of the file itself:
`curl --data-binary @photo.jpg '.../encode?bpp=0.02' -o photo.sprd`."""

_BINARY = {"type": "string", "format": "binary"}
_ERRORS = responses(400, 403, 408, 413, 415, 421, 422, 429, 500, 503)
_PICTURE = "Any picture that Pillow reads: JPEG, PNG, WebP, AVIF, TIFF ..."
_HEADERS = {
    "Bytes": "Bytes of the file.",
    "Bpp": "Bits per pixel of the picture, for the whole file.",
    "Width": "Width of the picture in pixels.",
    "Height": "Height of the picture in pixels.",
    "Level": "Quality level, 0 to 255.",
    "Quality": "Quality, 0 to 100.",
    "Scale": "How many times smaller the picture was coded.",
    "Model": "Name of the weights.",
    "Realism": "The realism at which the picture was decoded.",
    "Seconds": "Seconds that the work took.",
    "Codec": "Library and version.",
    "Dropped": "What the picture had and the file lacks, such as transparency; left out if nothing is lost.",
}
_SPRD = ("Bytes", "Bpp", "Width", "Height", "Level", "Quality", "Scale", "Model", "Seconds")
_BASELINE = ("Bytes", "Quality", "Scale", "Codec", "Seconds")


def _route(summary: str, body: str, kinds: tuple[str, ...], headers: tuple[str, ...]) -> dict[str, Any]:
    described = {
        f"Sprdiff-{name}": {
            "schema": {"type": "string"},
            "description": _HEADERS[name],
            "required": name != "Dropped",
        }
        for name in headers
    }
    done = {
        "description": "Done.",
        "content": {kind: {"schema": _BINARY} for kind in kinds},
        "headers": described,
    }
    content = {"application/octet-stream": {"schema": _BINARY}}
    return {
        "summary": summary,
        "response_class": Response,
        "responses": {200: done, **_ERRORS},
        "openapi_extra": {"requestBody": {"required": True, "description": body, "content": content}},
    }


ENCODE = _route("The `.sprd` file of a picture", _PICTURE, (SPRD_TYPE,), (*_SPRD, "Dropped"))
DECODE = _route(
    "The picture of an `.sprd` file",
    "The bytes of an `.sprd` file.",
    ("image/png", "image/webp", "image/jpeg"),
    (*_SPRD, "Realism"),
)
COMPARE = _route("What another codec makes of a picture", _PICTURE, ("image/png",), _BASELINE)
METRICS: dict[str, Any] = {
    "summary": "Counters for Prometheus",
    "response_class": Response,
    "responses": {
        200: {"description": "Done.", "content": {CONTENT_TYPE_LATEST: {"schema": {"type": "string"}}}},
        **responses(400, 421, 429, 500, 503),
    },
}
HEALTH: dict[str, Any] = {
    "summary": "Whether the networks load",
    "responses": responses(400, 421, 429, 500, 503),
}
