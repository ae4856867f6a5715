"""The built page: a few static files, which ``make web`` makes from ``web/`` and which every wheel carries.

Beside them a server gives out ``weights.json`` and the binary that it names (`bundle.Bundle`).
"""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path

from ..common.files import describe, write_atomic
from ..errors import OutputError, ViewerError
from .bundle import Bundle

HOME = "index.html"
INDEX = "weights.json"
"""What the page asks for first; it names the file of the weights."""
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
"""Types of its files by their endings; all others are bytes (``application/octet-stream``)."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; "
    "connect-src 'self'; style-src 'self'; img-src 'self' blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}
"""What a server should send with every file: the last two let the page have threads."""
_LIST = "build.json"
"""The hash of every file, and of the sources that they were built from."""
HOW_TO_BUILD = "the page is not built here: run make web in a clone of the repository (it needs Node and npm)"


def kind_of(name: str) -> str:
    """Return the type that a server names for a file of the page."""
    return KINDS.get(Path(name).suffix, "application/octet-stream")


def page_files() -> dict[str, bytes]:
    """Return the page's files by name.

    Raises:
        ViewerError: it is not built, or its files are not what was built.
    """
    folder = files(__package__).joinpath("page")
    if not folder.joinpath(_LIST).is_file():
        raise ViewerError(HOW_TO_BUILD)
    listed: dict[str, str] = json.loads(folder.joinpath(_LIST).read_bytes())["files"]
    found = {name: folder.joinpath(name) for name in listed}
    if missing := [name for name, file in found.items() if not file.is_file()]:
        raise ViewerError(f"the page is incomplete: it lacks {missing[0]}")
    content = {name: file.read_bytes() for name, file in found.items()}
    if wrong := [name for name, data in content.items() if hashlib.sha256(data).hexdigest() != listed[name]]:
        raise ViewerError(f"the page is damaged: {wrong[0]} is not what was built")
    return content


def write_site(folder: Path, bundle: Bundle, *, force: bool = False) -> list[str]:
    """Write the page with its weights into a folder for any web server; return the names of its files.

    Raises:
        ViewerError: the page is not built.
        OutputError: a file exists and not `force`, or cannot be written.
    """
    content = {**page_files(), INDEX: bundle.index, bundle.name: bundle.data}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {describe(error)}") from error
    if not force and (there := sorted(name for name in content if (folder / name).exists())):
        raise OutputError(f"{folder / there[0]} already exists; only -f (force) overwrites it")
    for name, data in content.items():
        write_atomic(folder / name, data, force=force)
    return sorted(content)
