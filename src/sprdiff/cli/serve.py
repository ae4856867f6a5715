"""The command ``sprdiff serve``: the web page and the HTTP API (extra: serve)."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
from dataclasses import replace
from typing import Annotated, NoReturn

import typer

from ..common.extras import needed
from ..errors import ServiceError
from ..serve.settings import Settings
from .fields import takes
from .files import say, tell
from .options import Threads


@takes
def serve(
    settings: Settings,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; 0.0.0.0 lets others in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 chooses a free one.")] = 8000,
    root_path: Annotated[
        str,
        typer.Option(
            "--root-path", metavar="/PATH", help="The beginning of paths that a reverse proxy removes."
        ),
    ] = "",
    threads: Threads = None,
) -> int:
    """Serve a web page and an HTTP API that encode, decode and compare."""
    if root_path and not re.fullmatch(r"(/[\w.~-]+)+", root_path, re.ASCII):
        raise typer.BadParameter("--root-path begins with / and does not end with it")
    with needed("serve", ServiceError, "the service"):
        from ..serve.origins import is_origin
        from ..serve.server import address_of, is_loopback, listen, make_server, names_of, warm_up
        from ..serve.server import serve as run
    from ..codec import Codec

    origins = tuple(origin.lower() for origin in settings.origins)
    if wrong := [origin for origin in origins if not is_origin(origin)]:
        raise typer.BadParameter(
            f"--allow-origin is a scheme and a host, such as https://example.org, not {wrong[0]}"
        )
    codec = Codec(settings.weights, threads, settings.max_pixels)
    with listen(host, port) as bound:
        warm_up(codec)
        if not is_loopback(bound):
            say("warning", f"{address_of(bound)} can be reached from outside, and anybody may use it")
        logging.basicConfig(level=logging.INFO, format="sprdiff: %(message)s")
        settings = replace(settings, names=names_of(host, bound), origins=origins)
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
