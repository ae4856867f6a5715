"""TIFF files beyond what Pillow reads: the right page, the right numbers, and what the extra `tiff` adds.

Pillow always takes the first page, and silently misreads some kinds of numbers. What it misreads is corrected
here, exactly; what it cannot read goes to tifffile, if that is installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from ..common.extras import hint
from ..common.files import read_at_most
from ..errors import ImageError, UnsupportedImageError
from .facts import Facts
from .formats import check_size, check_tile, most_bytes
from .primaries import from_codes
from .samples import Samples, value_range
from .tiff_pages import (
    BITS,
    COMPRESSION,
    EXTRA,
    FORMAT,
    ORIENTATION,
    PHOTOMETRIC,
    PLANAR,
    Pages,
    TiffPage,
    read_pages,
)

_MOST_BYTES_A_PIXEL = 64
_NATIVE_MISREAD = ("I;16BS", "I;32BS", "F;32BF") if sys.byteorder == "little" else ("I;16S", "I;32S", "F;32F")
"""Layouts that Pillow reads in the file's byte order although libtiff has converted them to the machine's."""
_UNCERTAIN = (34925, 50000, 50001)  # LZMA, Zstandard, WebP
_EXTRA_ALPHA = (1, 2)  # premultiplied, plain


@dataclass
class Tiff:
    """A TIFF file and the page that is its picture.

    Attributes:
        stream: a stream whose first page is the picture.
        pages: all pages.
        page: the picture.
    """

    stream: IO[bytes]
    pages: Pages
    page: TiffPage


def find_picture(stream: IO[bytes], name: str, max_pixels: int) -> Tiff | None:
    """Find the page that is the picture; return None if the file is too damaged.

    Args:
        max_pixels: limits how much of the file is read; larger pictures are refused elsewhere.

    Raises:
        ImageError: the picture is the raw data of a camera's sensor, or the file is longer than it can need.
    """
    pages = read_pages(stream)
    if pages is None:
        return None
    page = pages.picture()
    if page.is_raw:
        raise UnsupportedImageError(f"{name} holds the {page.kind()} and a small preview: develop it first")
    if page is not pages.chain[0]:
        stream.seek(0)
        whole = read_at_most(stream, most_bytes(min(page.pixels, max_pixels)))
        if whole is None:
            raise ImageError(f"{name} has more bytes than a picture of its size can need")
        data = bytearray(whole)
        head = pages.head(page)
        data[: len(head)] = head
        stream = io.BytesIO(bytes(data))
    stream.seek(0)
    return Tiff(stream, pages, page)


def samples_of(image: Image.Image) -> Samples | None:
    """Return how the numbers of a TIFF image that Pillow has opened are read; None: as Pillow reads them."""
    tags = getattr(image, "tag_v2", None)
    if tags is None or image.mode not in ("L", "I", "F", "I;16", "I;16B"):
        return None
    bits, form = _first(tags.get(BITS), 1), _first(tags.get(FORMAT), 1)
    if image.mode == "L":
        return Samples(np.dtype(np.int8), depth=8) if form == 2 and bits == 8 else None
    kinds = {("I", 1): f"uint{bits}", ("I", 2): f"int{bits}", ("F", 3): "float32"}
    kind = kinds.get((image.mode, form), "uint16" if image.mode.startswith("I;16") else None)
    swapped = False
    for tile in getattr(image, "tile", None) or ():
        args = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        swapped = tile[0] == "libtiff" and args[0] in _NATIVE_MISREAD
    inverted = _first(tags.get(PHOTOMETRIC), 0) == 0
    return Samples(None if kind is None else np.dtype(kind), swapped, inverted, bits)


def tiff_depth(image: Image.Image) -> int:
    """Return the bits per sample of a TIFF file; 0 for any other file."""
    tags = getattr(image, "tag_v2", None)
    return 0 if tags is None else _first(tags.get(BITS), 1)


def _first(value: Any, default: int) -> int:
    found = value[0] if isinstance(value, tuple) and value else value
    return found if isinstance(found, int) else default


def repair_planes(image: ImageFile.ImageFile, *, low: bool = False) -> None:
    """Correct how Pillow would read uncompressed 16-bit planes that follow each other.

    Args:
        low: read the low bytes in place of the high ones.
    """
    tags = getattr(image, "tag_v2", None)
    if (
        tags is None
        or not image.tile
        or image.tile[0][0] != "raw"
        or image.mode not in ("RGB", "RGBA", "CMYK")
    ):
        return
    if _first(tags.get(PLANAR), 1) != 2 or _first(tags.get(BITS), 1) != 16:
        return
    order = "L" if (tags.prefix == b"II") is not low else "B"
    layer, repaired = -1, []
    for tile in image.tile:
        _, extents, _, args = tile
        layer += extents is not None and extents[:2] == (0, 0)
        if layer < len(image.mode) and isinstance(
            args, tuple
        ):  # further samples are neither colour nor alpha
            repaired.append(tile._replace(args=(f"{image.mode[layer]};16{order}", *args[1:])))
    image.tile = repaired


def read_by_extra(tiff: Tiff, name: str, max_pixels: int) -> tuple[Image.Image, Facts]:
    """Read a page with tifffile that Pillow cannot read; return the image and the facts about it.

    Raises:
        ImageError: the package is missing, or it cannot read the page either.
    """
    page, kind = tiff.page, f"{name} is a TIFF file of a kind that is not supported ({tiff.page.kind()})"
    try:
        tifffile: Any = importlib.import_module("tifffile")
    except ImportError as error:
        raise ImageError(f"{kind}; the extra tiff reads more: {hint('tiff')}") from error
    check_size(page.size, name, max_pixels)
    try:
        tiff.stream.seek(0)
        with _silent(), tifffile.TiffFile(tiff.stream) as file:
            found = file.pages[0]
            check_tile(found.tile or (), name, max_pixels)
            if found.nbytes > _MOST_BYTES_A_PIXEL * max(1, page.pixels):
                raise ImageError(kind)
            array = found.asarray(maxworkers=1)
            about = found.axes, int(found.photometric), tuple(int(e) for e in found.extrasamples)
            profile = found.iccprofile
    except ImageError:
        raise
    except Exception as error:  # the errors of tifffile and of the codecs behind it have no common base
        raise ImageError(f"{kind}: {' '.join(str(error).split())[:200]}") from error
    made, low = _images(array, *about, kind, name, page.first(BITS, 8))
    turned = page.first(ORIENTATION, tiff.pages.chain[0].first(ORIENTATION, 1))
    linear = made.mode in ("RGB", "RGBA") and page.first(FORMAT, 1) == 3
    facts = Facts(
        page.first(BITS, 8), bytes(profile) if profile else from_codes(1, 8).profile if linear else None
    )
    facts.low = low
    facts.orientation, facts.further = turned, tiff.pages.further()
    return made, facts


def _images(
    array: NDArray[Any], axes: str, photometric: int, extra: tuple[int, ...], kind: str, name: str, bits: int
) -> tuple[Image.Image, Image.Image]:
    """Return (high bytes, low bytes) as Pillow images."""
    if axes == "SYX":
        array = np.moveaxis(array, 0, -1)
    elif axes == "YX":
        array = array[..., None]
    elif axes != "YXS":
        raise ImageError(kind)
    count = {0: 1, 1: 1, 2: 3, 5: 4}.get(photometric)
    if count is None or array.shape[2] < count or array.dtype.kind not in "uif":
        raise ImageError(kind)
    colour = array[..., :count]
    linear = count == 3 and array.dtype.kind == "f"
    # Floating-point colours are linear light in which 1 is white; brighter ones are for other displays.
    black, white = (0.0, 1.0) if linear else value_range([colour], bits, name)
    shades = _scaled(colour, black, white)
    if photometric == 0:
        shades = 1 - shades
    planes = [shades]
    if extra and extra[0] in _EXTRA_ALPHA and count in (1, 3) and array.shape[2] > count:
        full = (0.0, 1.0) if array.dtype.kind == "f" else (0.0, white)
        alpha = _scaled(array[..., count : count + 1], *full)
        if extra[0] == 1:
            planes = [np.clip(np.divide(shades, alpha, out=np.zeros_like(shades), where=alpha > 0), 0, 1)]
        planes.append(alpha)
    deep = np.rint(np.concatenate(planes, axis=2) * 65535).astype(np.uint16)
    mode = {1: "L", 2: "LA", 3: "RGB"}.get(deep.shape[2], "CMYK" if count == 4 else "RGBA")
    high, low = (_image(part.astype(np.uint8), mode) for part in (deep >> 8, deep & 255))
    return high, low


def _scaled(values: NDArray[Any], black: float, white: float) -> NDArray[np.float32]:
    finite = np.nan_to_num(values.astype(np.float32), nan=black, posinf=white, neginf=black)
    return np.clip((finite - np.float32(black)) / np.float32(white - black), 0, 1)


def _image(pixels: NDArray[np.uint8], mode: str) -> Image.Image:
    flat = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    return Image.frombytes(mode, (pixels.shape[1], pixels.shape[0]), np.ascontiguousarray(flat).tobytes())


def is_misread(image: Image.Image) -> bool:
    """Whether Pillow misreads, or has misread, a TIFF image in a way that cannot be corrected.

    Uncompressed premultiplied planes can never be corrected; the others only if it is known before the pixels
    are decoded.
    """
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return False
    raw = _first(tags.get(COMPRESSION), 1) == 1
    planes = raw and _first(tags.get(PLANAR), 1) == 2
    if planes and image.mode == "RGBA" and _first(tags.get(EXTRA), 0) == 1:
        return True
    decoded = not getattr(image, "tile", None)
    deep_planes = planes and image.mode in ("RGB", "RGBA", "CMYK") and _first(tags.get(BITS), 1) == 16
    other_order = (tags.prefix == b"MM") is (sys.byteorder == "little")
    return decoded and (deep_planes or (not raw and other_order and image.mode in ("I", "F")))


def has_extra() -> bool:
    """Whether the extra `tiff` is installed."""
    return sys.modules.get("tifffile", ...) is not None and importlib.util.find_spec("tifffile") is not None


def is_uncertain(image: Image.Image) -> bool:
    """Whether some builds of Pillow cannot decode a TIFF image and print an error that cannot be caught."""
    tags = getattr(image, "tag_v2", None)
    return tags is not None and _first(tags.get(COMPRESSION), 1) in _UNCERTAIN


@contextmanager
def _silent() -> Iterator[None]:
    """Silence tifffile, whose warnings about odd metadata are of no use on a terminal."""
    logger = logging.getLogger("tifffile")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def is_unusual(image: Image.Image) -> bool:
    """Whether the compression of a TIFF image is one that not every Pillow decodes."""
    tags = getattr(image, "tag_v2", None)
    return tags is not None and _first(tags.get(COMPRESSION), 1) not in (1, 5, 7, 8, 32773, 32946)
