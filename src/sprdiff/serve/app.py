"""The routes: the page and the API, as ``/openapi.json`` describes them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from hashlib import sha256
from importlib.resources import files
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from .. import __version__
from ..codec import Codec
from ..errors import SprdiffError
from . import jobs, openapi
from .guard import LOG, Guard
from .origins import Origins
from .problems import Refusal, answer, from_error, from_validation, plain
from .service import Service
from .settings import Settings
from .view import View

_PAGE = {  # the type of each address, and the files that it consists of
    "": ("text/html; charset=utf-8", "page.html"),
    "page.css": ("text/css; charset=utf-8", "base.css", "page.css"),
    "page.js": ("text/javascript; charset=utf-8", "page.js"),
    "api.js": ("text/javascript; charset=utf-8", "api.js"),
    "viewer.js": ("text/javascript; charset=utf-8", "viewer.js"),
    "icon.svg": ("image/svg+xml", "icon.svg"),
}


class Limits(BaseModel):
    """The limits of a request."""

    max_upload: int = Field(description="Bytes of a body.")
    max_pixels: int = Field(description="Width x height of a picture.")


class Health(BaseModel):
    """The answer that the networks are loaded, with the name of the weights."""

    status: str
    version: str
    model: str
    limits: Limits


def create_app(codec: Codec | None = None, settings: Settings | None = None) -> FastAPI:
    """Return the service as an ASGI application; ``app.state.service`` is its `Service`.

    Args:
        codec: the codec; None: the shipped weights. Its own limit on pixels holds beside that of the
            settings.
        settings: the settings; None: the defaults.
    """
    settings = Settings() if settings is None else settings
    service = Service(Codec(max_pixels=settings.max_pixels) if codec is None else codec, settings)
    app = FastAPI(
        title="sprdiff",
        version=__version__,
        description=openapi.ABOUT,
        license_info={"name": "Apache-2.0"},
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    origins = Origins(settings.names, settings.origins)
    app.add_middleware(Guard, metrics=service.metrics, seconds=settings.timeout, origins=origins)
    _add_errors(app)
    _add_page(app)
    View(settings.weights).add_to(app)
    _add_coding(app, service)
    _add_comparing(app, service)
    _add_watching(app, service)
    return app


def _add_coding(app: FastAPI, service: Service) -> None:
    @app.post("/encode", **openapi.ENCODE)
    async def encode(request: Request, query: Annotated[jobs.EncodeQuery, Query()]) -> Response:
        """The answer is never larger than `bpp` or `max_bytes` allow; if no file is that small, 422 states
        the smallest size."""
        query.check()
        return await service.answer(request, service.coding, jobs.encode, query)

    @app.post("/decode", **openapi.DECODE)
    async def decode(request: Request, query: Annotated[jobs.DecodeQuery, Query()]) -> Response:
        """Texture, faces and letters are partly invented; `realism=0` shows what the file really contains.

        Above it the picture says so to machines, in XMP: `Iptc4xmpExt:DigitalSourceType` is
        `compositeWithTrainedAlgorithmicMedia`.
        """
        return await service.answer(request, service.coding, jobs.decode, query)


def _add_comparing(app: FastAPI, service: Service) -> None:
    comparer = jobs.Comparer()

    @app.post("/compare", **openapi.COMPARE)
    async def compare(request: Request, query: Annotated[jobs.CompareQuery, Query()]) -> Response:
        """The best JPEG, WebP or AVIF (by MS-SSIM) within a number of bytes, over qualities and coded sizes.

        A picture above one megapixel is first made smaller to one megapixel. If even the smallest file is
        larger, 422 states its size.
        """
        return await service.answer(request, service.comparing, comparer, query)


def _add_watching(app: FastAPI, service: Service) -> None:
    limits = Limits(max_upload=service.settings.max_upload, max_pixels=service.settings.max_pixels)

    @app.get("/healthz", **openapi.HEALTH)
    async def healthz() -> Health:
        """The answer is 503 until the networks are loaded."""
        return Health(status="ok", version=__version__, model=await service.model(), limits=limits)

    @app.get("/metrics", **openapi.METRICS)
    async def metrics() -> Response:
        """Counts of requests, times, bytes, pixels, waiting and running jobs."""
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _add_page(app: FastAPI) -> None:
    folder = files(__package__).joinpath("page")

    def serve(content: bytes, kind: str) -> Callable[[Request], Any]:
        tag = f'"{sha256(content).hexdigest()[:16]}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache", "Content-Type": kind}

        async def file(request: Request) -> Response:
            same = request.headers.get("if-none-match") == tag
            return Response(b"" if same else content, 304 if same else 200, headers)

        return file

    # The files are read once, from a fixed list: no path of a request ever reaches the file system.
    for path, (kind, *names) in _PAGE.items():
        content = b"".join(folder.joinpath(name).read_bytes() for name in names)
        app.add_api_route(
            f"/{path}",
            serve(content, kind),
            methods=["GET", "HEAD"],
            include_in_schema=False,
            response_class=Response,
        )


def _add_errors(app: FastAPI) -> None:
    def tell(request: Request, refusal: Refusal, headers: Any = None) -> Response:
        return answer(refusal, request.state.request_id, headers)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return tell(request, error)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return tell(request, from_validation(error))

    async def no_route(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return tell(request, plain(error.status_code), error.headers)

    async def failed(request: Request, error: Exception) -> Response:
        refusal = from_error(error)
        assert refusal is not None
        level = logging.ERROR if refusal.status == 503 else logging.DEBUG
        LOG.log(level, "request %s: %s: %s", request.state.request_id, type(error).__name__, error)
        return tell(request, refusal)

    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, no_route)
    app.add_exception_handler(SprdiffError, failed)
    app.add_exception_handler(MemoryError, failed)
