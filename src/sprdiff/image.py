"""Pictures in and out: anything Pillow opens safely becomes upright 8-bit sRGB."""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageColor, ImageFile

from .errors import ImageError
from .files import STDIO, check_output, describe, is_special, read_at_most, read_bytes, write_atomic
from .image_colour import Converter, Rgb, bit_depth
from .image_formats import MOST_FRAMES, RASTER, Bounded, check_format, check_tiles, count_frames, most_bytes
from .image_save import FORMATS, encode_image, output_format, save_image, to_pil
from .image_tiles import Tile, resize, tiles
from .limits import above, size_message

__all__ = [
    "FORMATS",
    "HEAD",
    "MAX_PIXELS",
    "Picture",
    "Tile",
    "check_output",
    "encode_image",
    "may_be_picture",
    "open_rgb",
    "output_format",
    "parse_background",
    "read_bytes",
    "resize",
    "save_image",
    "tiles",
    "to_pil",
    "write_atomic",
]

MAX_PIXELS = 2**28
"""Default limit on the pixels of a picture, both ways."""

HEAD = 2**10
"""Bytes of a stream by which it is told whether it may be a picture."""
_LAYERED = frozenset({"PSD"})  # its "frames" are layers, and the picture is their sum already
_TURNS = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}
"""How to view stored rows upright, by EXIF orientation."""

Source = str | Path | bytes | BinaryIO | Image.Image


@dataclass(frozen=True)
class Picture:
    """A picture as the codec sees it.

    Attributes:
        pixels: uint8 [H, W, 3], sRGB, upright, opaque.
        grey: the source had one channel: the three are equal.
        dropped: what the source had and `pixels` has not, such as ``"alpha"`` or ``"3 further frames"``.
    """

    pixels: NDArray[np.uint8]
    grey: bool
    dropped: tuple[str, ...] = ()


def open_rgb(source: Source | Picture, *, background: str | Rgb = "white", max_pixels: int = MAX_PIXELS) -> Picture:
    """Open anything Pillow reads as upright 8-bit sRGB.

    EXIF orientation is applied, an ICC profile converted, transparency composited on `background`, more than
    8 bits rounded to 8, and of several frames the first taken (of an open Pillow image: the current one).

    Args:
        source: path, bytes, binary file, Pillow image (left open), or a `Picture`, given back as it is.
        background: colour name, ``#rrggbb`` or RGB tuple (0-255).
        max_pixels: limit on width x height, checked before pixels are decoded. It replaces Pillow's own
            smaller limit, whose global setting is left alone.

    Raises:
        ImageError: with one line, when it cannot be read, is not an image, is damaged or too large.
    """
    if isinstance(source, Picture):
        _check_size(source.pixels.shape[1::-1], "the picture", max_pixels)
        return source
    colour = parse_background(background)
    if isinstance(source, Image.Image):
        with _clear_errors("the image"):
            return _picture(source, "the image", colour, max_pixels)
    name, stream = _stream(source, most_bytes(max_pixels))
    with stream, _clear_errors(name), identify(stream, name) as image:
        return _picture(image, name, colour, max_pixels)


def parse_background(background: str | Rgb) -> Rgb:
    """RGB (0-255) of a colour as Pillow names it: ``white``, ``#fff``, ``rgb(0,0,0)``, ``hsl(...)``.

    Raises:
        ImageError: it is not an opaque colour.
    """
    try:
        values = ImageColor.getrgb(background) if isinstance(background, str) else tuple(map(int, background))
    except (ValueError, TypeError):
        values = ()
    if len(values) == 4 and values[3] == 255:
        values = values[:3]
    if len(values) != 3 or not all(0 <= v <= 255 for v in values):
        raise ImageError(f"{background!r} is not an opaque colour, such as white or #336699")
    return values[0], values[1], values[2]


def _stream(source: str | Path | bytes | BinaryIO, most: int) -> tuple[str, IO[bytes]]:
    """(name for messages, seekable stream that we may close); what cannot be sought is read up to `most` bytes."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "the image", io.BytesIO(source)
    if isinstance(source, (str, Path)):
        name = "standard input" if str(source) == STDIO else str(source)
        if str(source) == STDIO or is_special(source):
            return name, io.BytesIO(read_bytes(source, ImageError, lambda stream: _whole(stream, name, most)))
        try:
            return name, open(source, "rb")
        except (OSError, ValueError) as error:
            reason = describe(error) if isinstance(error, OSError) else str(error)
            raise ImageError(f"{name} cannot be read: {reason}") from error
    if not hasattr(source, "read"):
        raise ImageError(f"a {type(source).__name__} is not an image, a path or a file")
    with _clear_errors("the image"):
        return "the image", io.BytesIO(_whole(source, "the image", most))


def _whole(stream: IO[bytes], name: str, most: int) -> bytes:
    """All of a stream that cannot be sought, once its beginning is that of a picture."""
    head = stream.read(HEAD)
    if not may_be_picture(head):
        raise ImageError(f"{name} is not an image that can be read" if head else f"{name} is empty")
    data = read_at_most(stream, most, head)
    if data is None:
        raise ImageError(f"{name} is longer than {most} bytes")
    return data


@contextmanager
def _clear_errors(name: str) -> Iterator[None]:
    """Whatever a damaged file makes Pillow raise becomes one line; see its plugins for how much that is."""
    try:
        yield
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(f"{name} does not fit into memory") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} is larger than Pillow reads in this format") from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{name} is damaged or truncated: {reason}") from error


def identify(stream: IO[bytes], name: str) -> ImageFile.ImageFile:
    """`Image.open` without its limit on pixels: that one is a global which belongs to the application.

    Raises:
        ImageError: no plug-in knows the format; whatever else a damaged head makes one raise.
    """
    prefix = stream.read(16)
    if not prefix:
        raise ImageError(f"{name} is empty")
    bounded: Any = Bounded(stream, name)
    for factory in _factories(prefix):
        try:
            stream.seek(0)
            image = factory(bounded, "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue  # how a Pillow plugin says "not mine"
        bounded.allow(image.width * image.height)
        return image
    raise ImageError(f"{name} is not an image that can be read")


def _factories(prefix: bytes) -> Iterator[Callable[[IO[bytes], str], ImageFile.ImageFile]]:
    """The plug-ins that may be meant by the first bytes of a file."""
    tried: set[str] = set()
    for load_plugins in (Image.preinit, Image.init):
        load_plugins()
        for kind in [kind for kind in Image.ID if kind in RASTER - tried]:
            tried.add(kind)
            factory, accept = Image.OPEN[kind]
            try:
                accepted = accept is None or accept(prefix)
            except (SyntaxError, IndexError, TypeError, struct.error):
                continue
            if accepted and not isinstance(accepted, str):  # a string: why it cannot read its own format
                yield factory


def may_be_picture(head: bytes) -> bool:
    """Whether a file that begins so may be a picture; some formats have no mark, and their header is tried."""
    for factory in _factories(head[:16]):
        if any(accept is not None for made, accept in Image.OPEN.values() if made is factory):
            return True
        try:
            factory(io.BytesIO(head), "")
            return True
        except Exception:  # whatever a head that is none makes it raise
            continue
    return False


def _check_size(size: tuple[int, ...], name: str, max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"{name} has no pixels ({width} x {height})")
    if above(width, height, max_pixels):
        raise ImageError(f"{name} has {size_message(width, height, max_pixels)}")


def _picture(image: Image.Image, name: str, background: Rgb, max_pixels: int) -> Picture:
    _check_size(image.size, name, max_pixels)
    check_format(image, name)
    check_tiles(image, name, max_pixels)
    depth = bit_depth(image)
    _load(image)
    _check_size(image.size, name, max_pixels)  # should a plug-in learn it only now
    converter = Converter(image, background, depth)
    pixels = converter.pixels()
    turn = _TURNS.get(_orientation(image))
    dropped = [
        "alpha" if converter.transparent else "",
        _further_frames(image),
        f"bit depth {depth}" if depth > 8 else "",
        "unusable ICC profile" if converter.broken_profile else "",
    ]
    grey = converter.grey
    return Picture(np.ascontiguousarray(turn(pixels)) if turn else pixels, grey, tuple(filter(None, dropped)))


def _load(image: Image.Image) -> None:
    """Decode the pixels. Pillow's TIFF reader repeats the global limit unless it finds its memory ready."""
    refused = image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf)
    if refused and image.format == "TIFF" and getattr(image, "_im", None) is None:
        image.im = Image.new(image.mode, getattr(image, "_tile_size", image.size)).im
    image.load()


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata is no reason to refuse the picture
        return 1


def _further_frames(image: Image.Image) -> str:
    if image.format in _LAYERED:
        return ""
    try:
        further = count_frames(image) - 1
    except Exception:  # a damaged later frame does not matter: it is dropped anyway
        return "further frames"
    more = "at least " if further == MOST_FRAMES - 1 else ""
    return "" if further < 1 else f"{more}{further} further frame{'s' if further > 1 else ''}"
