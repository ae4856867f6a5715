"""The routes: the page, the API and what they are described as in ``/openapi.json``."""

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
from . import described, jobs
from .guard import LOG, Guard
from .origins import Origins
from .problems import Refusal, answer, from_error, from_validation, plain
from .service import Service
from .settings import Settings
from .view import View

_PAGE = {
    "": ("page.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
    "api.js": ("api.js", "text/javascript; charset=utf-8"),
    "viewer.js": ("viewer.js", "text/javascript; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}


class Limits(BaseModel):
    """What a request may have at most."""

    max_upload: int = Field(description="Bytes of a body.")
    max_pixels: int = Field(description="Width x height of a picture.")


class Health(BaseModel):
    """That the networks are loaded, and which."""

    status: str
    version: str
    model: str
    limits: Limits


def create_app(codec: Codec | None = None, settings: Settings | None = None) -> FastAPI:
    """The service as an ASGI application; ``app.state.service`` is its `Service`.

    Args:
        codec: None: the shipped weights. Its own limit on pixels holds beside that of the settings.
        settings: None: the defaults.
    """
    settings = Settings() if settings is None else settings
    service = Service(Codec(max_pixels=settings.max_pixels) if codec is None else codec, settings)
    app = FastAPI(
        title="sprdiff",
        version=__version__,
        description=described.ABOUT,
        license_info={"name": "Apache-2.0"},
        docs_url=None,  # pages that load scripts from elsewhere
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
    @app.post("/encode", **described.ENCODE)
    async def encode(request: Request, options: Annotated[jobs.EncodeOptions, Query()]) -> Response:
        """The answer is never larger than `bpp` or `max_bytes`; where no file is that small, 422 names the smallest."""
        options.check()
        return await service.answer(request, service.coding, jobs.encode, options)

    @app.post("/decode", **described.DECODE)
    async def decode(request: Request, options: Annotated[jobs.DecodeOptions, Query()]) -> Response:
        """Texture, faces and letters are partly made up; `realism=0` shows what the file really says."""
        return await service.answer(request, service.coding, jobs.decode, options)


def _add_comparing(app: FastAPI, service: Service) -> None:
    comparer = jobs.Comparer()

    @app.post("/compare", **described.COMPARE)
    async def compare(request: Request, options: Annotated[jobs.CompareOptions, Query()]) -> Response:
        """JPEG, WebP or AVIF at its best MS-SSIM within so many bytes, over qualities and over coding it smaller.

        A picture above one megapixel is made smaller to that first. Where even the smallest file is larger, 422 names
        its bytes.
        """
        return await service.answer(request, service.comparing, comparer, options)


def _add_watching(app: FastAPI, service: Service) -> None:
    limits = Limits(max_upload=service.settings.max_upload, max_pixels=service.settings.max_pixels)

    @app.get("/healthz", **described.HEALTH)
    async def healthz() -> Health:
        """Answers 503 while they do not."""
        return Health(status="ok", version=__version__, model=await service.model(), limits=limits)

    @app.get("/metrics", **described.METRICS)
    async def metrics() -> Response:
        """Requests, times, bytes, pixels, waiting and running jobs."""
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

    # Read once, by a fixed list: no path of a request ever reaches the file system.
    for path, (name, kind) in _PAGE.items():
        content = folder.joinpath(name).read_bytes()
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
