"""Which format a file has, by its contents, and which plug-in reads it."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from PIL import Image, ImageFile

from ..errors import ImageError
from ..limits import MAX_PIXELS
from .facts import Facts
from .formats import RASTER, Bounded
from .gather import gather
from .kinds import HEAD, is_heif, is_jxl, is_raw, open_by_extra, refusal
from .png import SIGNATURE, Parts, walk
from .tiff import Tiff, find_picture, has_extra, is_misread, is_uncertain
from .tiff_pages import is_tiff

_NOT_MINE = (SyntaxError, IndexError, TypeError, KeyError, struct.error)
"""The errors with which Pillow's plug-ins say that a file has another format."""


@dataclass
class Found:
    """An open image file.

    Attributes:
        size: (width, height) in pixels according to its head.
        image: the image; None if Pillow does not read it, but an extra may.
        facts: what the file says beside its pixels.
        stream: the file; None for an image that a caller has opened.
        tiff: the page that is the picture.
    """

    size: tuple[int, int]
    image: Image.Image | None
    facts: Facts
    stream: IO[bytes] | None = None
    tiff: Tiff | None = None


@contextmanager
def identify(stream: IO[bytes], name: str, max_pixels: int = MAX_PIXELS) -> Iterator[Found]:
    """Open an image file; its pixels are not decoded, unless its plug-in decodes them at once.

    Args:
        max_pixels: the limit for plug-ins that decode at once.

    Raises:
        ImageError: nothing here reads its format or this variant of it, or a plug-in fails on its damaged
            head.
    """
    head = stream.read(HEAD)
    if not head:
        raise ImageError(f"{name} is empty")
    tiff = chunks = None
    if head.startswith(SIGNATURE):
        chunks = walk(stream)
        stream = stream if chunks.whole else io.BufferedReader(Parts(stream, chunks.kept))
    elif is_tiff(head):
        if is_raw(head):
            raise refusal(name, head)
        tiff = find_picture(stream, name, max_pixels)
        stream = stream if tiff is None else tiff.stream
    bounded: Any = Bounded(stream, name)
    image = open_by_extra(bounded, head, name, max_pixels) or _open_by_pillow(bounded)
    if (
        image is not None
        and tiff is not None
        and (is_misread(image) or (is_uncertain(image) and has_extra()))
    ):
        image = None
    if image is not None:
        with image:
            bounded.allow(image.width * image.height)
            yield Found(image.size, image, gather(image, chunks, tiff), bounded, tiff)
    elif tiff is not None:
        yield Found(tiff.page.size, None, Facts(), bounded, tiff)
    else:
        raise refusal(name, head)


def _open_by_pillow(stream: IO[bytes]) -> ImageFile.ImageFile | None:
    """Open an image like `Image.open`, but without the limit on pixels, which is a global of the
    application."""
    stream.seek(0)
    for factory in _factories(stream.read(16)):
        try:
            stream.seek(0)
            return factory(stream, "")
        except _NOT_MINE:
            continue
    return None


def _factories(prefix: bytes) -> Iterator[Callable[[IO[bytes], str], ImageFile.ImageFile]]:
    """Yield the plug-ins that may read a file with these first bytes."""
    tried: set[str] = set()
    for load_plugins in (Image.preinit, Image.init):
        load_plugins()
        for kind in [kind for kind in Image.ID if kind in RASTER - tried]:
            tried.add(kind)
            factory, accept = Image.OPEN[kind]
            try:
                accepted = accept is None or accept(prefix)
            except _NOT_MINE:
                continue
            if accepted and not isinstance(accepted, str):  # a string says why it cannot read its own format
                yield factory


def may_be_picture(head: bytes) -> bool:
    """Whether a file that begins like this may be a picture; formats without a signature are tried by
    their header."""
    if is_heif(head) or is_jxl(head):
        return True
    for factory in _factories(head[:16]):
        if any(accept is not None for made, accept in Image.OPEN.values() if made is factory):
            return True
        try:
            factory(io.BytesIO(head), "")
            return True
        except Exception:  # a header of another format may raise anything
            continue
    return False
