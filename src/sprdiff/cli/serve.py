"""The command ``sprdiff serve``: the web page and the HTTP API (extra: serve)."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
from typing import Annotated, NoReturn

import typer

from ..common.extras import needed
from ..errors import ServiceError
from .files import say, tell
from .options import Threads, Weights


def serve(
    host: Annotated[str, typer.Option("--host", help="Address; other than this it can be reached from outside.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: one that is free.")] = 8000,
    max_upload: Annotated[int, typer.Option("--max-upload", min=1, help="Bytes of a request at most.")] = 32_000_000,
    max_pixels: Annotated[int, typer.Option("--max-pixels", min=1, help="Refuse larger pictures.")] = 2**26,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, max=256, help="Pictures coded at once.")] = 2,
    queue: Annotated[int, typer.Option("--queue", min=0, max=10_000, help="Requests that may wait.")] = 64,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, max=86_400, help="Seconds for a request.")] = 120,
    uploads: Annotated[int, typer.Option("--uploads", min=1, max=10_000, help="Bodies received at once.")] = 32,
    upload_timeout: Annotated[
        float, typer.Option("--upload-timeout", min=0.1, max=86_400, help="Seconds for its upload.")
    ] = 30,
    root_path: Annotated[
        str, typer.Option("--root-path", metavar="/PATH", help="What a reverse proxy takes off paths.")
    ] = "",
    allow_origin: Annotated[
        list[str] | None,
        typer.Option("--allow-origin", metavar="ORIGIN", help="Whose pages may use it; repeatable."),
    ] = None,
    threads: Threads = None,
    weights: Weights = None,
) -> int:
    """Serve a web page and an HTTP API that encode, decode and compare."""
    if root_path and not re.fullmatch(r"(/[\w.~-]+)+", root_path, re.ASCII):
        raise typer.BadParameter("--root-path begins with / and does not end with it")
    with needed("serve", ServiceError, "the service"):
        from ..serve.origins import is_origin
        from ..serve.server import address_of, is_loopback, listen, make_server, names_of, warm_up
        from ..serve.server import serve as run
        from ..serve.settings import Settings
    from ..codec import Codec

    origins = tuple(origin.lower() for origin in allow_origin or ())
    if wrong := [origin for origin in origins if not is_origin(origin)]:
        raise typer.BadParameter(f"--allow-origin is a scheme and a host, such as https://example.org, not {wrong[0]}")
    codec = Codec(weights, threads, max_pixels)
    with listen(host, port) as bound:
        settings = Settings(
            max_upload, max_pixels, concurrency, queue, timeout, uploads, upload_timeout,
            names=names_of(host, bound), origins=origins, weights=weights,
        )  # fmt: skip
        warm_up(codec)
        if not is_loopback(bound):
            say("warning", f"{address_of(bound)} can be reached from outside, and anybody may use it")
        logging.basicConfig(level=logging.INFO, format="sprdiff: %(message)s")
        server = make_server(codec, settings, root_path=root_path)
        ended = run(server, bound, lambda: tell(f"sprdiff serves {address_of(bound)} (Ctrl+C ends it)"))
    if not ended:
        _leave()
    return 0


def _leave() -> NoReturn:
    """End the process as a return would, but do not wait for threads that are still working."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(0)
