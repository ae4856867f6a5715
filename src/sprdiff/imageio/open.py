"""Opening pictures: everything that Pillow opens safely becomes upright 8-bit sRGB."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import IO, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from ..common.files import STDIO, describe, is_special, read_at_most, read_bytes
from ..errors import ImageError
from ..limits import MAX_PIXELS
from .colour import Converter, Rgb, parse_background
from .formats import check_format, check_size, check_tiles, most_bytes
from .gather import further_frames, gather, orientation_of, prepare
from .identify import Found, identify, may_be_picture
from .jpeg import completed, warning_of
from .kinds import HEAD, failure, refusal
from .tiff import is_misread, is_unusual, read_by_extra

_LAYERED = frozenset({"PSD"})  # its "frames" are layers, which the picture already combines
_TURNS = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}
"""The transposition that turns stored rows upright, by EXIF orientation."""

Source = str | Path | bytes | BinaryIO | Image.Image


@dataclass(frozen=True)
class Picture:
    """A picture as the codec sees it.

    Attributes:
        pixels: uint8 [H, W, 3], sRGB, upright, opaque.
        grey: whether the source had one channel, so that all three are equal.
        dropped: what the source had and `pixels` has not, such as ``"alpha"`` or ``"3 further frames"``.
        damage: what is wrong with the file although its pixels could be read; empty if nothing was found.
    """

    pixels: NDArray[np.uint8]
    grey: bool
    dropped: tuple[str, ...] = ()
    damage: str = ""

    @property
    def lost(self) -> str:
        """What was lost and what is damaged, with commas between; empty if nothing."""
        return ", ".join([*self.dropped, *([f"damaged: {self.damage}"] if self.damage else [])])

    @property
    def warning(self) -> str:
        """A warning about what was lost and what is damaged; empty if nothing."""
        lost = f"dropped {', '.join(self.dropped)}" if self.dropped else ""
        return "; ".join(filter(None, [f"damaged, but read: {self.damage}" if self.damage else "", lost]))


def open_rgb(
    source: Source | Picture,
    *,
    background: str | Rgb = "white",
    max_pixels: int = MAX_PIXELS,
    strict: bool = False,
    name: str | None = None,
) -> Picture:
    """Open everything that Pillow and the extras heif, jxl and tiff read as upright 8-bit sRGB.

    The EXIF orientation is applied. Colours are converted (from an ICC profile, or what the file names in its
    place), transparency is composited on `background`, and more than 8 bits are rounded to 8. Of several
    frames the first is taken (of an open Pillow image: the current one), and of a TIFF file that begins with
    a thumbnail the picture itself.

    Args:
        source: a path, bytes, a binary file, a Pillow image (which stays open), or a `Picture` (which is
            returned).
        background: the name of a colour, ``#rrggbb`` or an RGB tuple (0-255).
        max_pixels: the limit on width x height, checked before pixels are decoded. It replaces Pillow's own
            smaller limit, whose global setting does not change.
        strict: refuse a damaged file even if its pixels can be read.
        name: the picture's name in messages; None: its path, or ``the image``.

    Raises:
        UnsupportedImageError: nothing here reads a file of this kind.
        LargeImageError: it has too many pixels.
        ImageError: it cannot be read, or is damaged.
    """
    if isinstance(source, Picture):
        check_size(source.pixels.shape[1::-1], "the picture", max_pixels)
        return source
    colour = parse_background(background)
    if isinstance(source, Image.Image):
        return picture_of(source, background=colour, max_pixels=max_pixels)
    found_name, stream = _stream(source, most_bytes(max_pixels))
    name = name or found_name
    with stream, _clear_errors(name), identify(stream, name, max_pixels) as found:
        picture = _picture(found, name, colour, max_pixels)
    if strict and picture.damage:
        raise ImageError(f"{name} is damaged: {picture.damage}")
    return picture


def picture_of(
    image: Image.Image,
    *,
    background: Rgb = (255, 255, 255),
    max_pixels: int = MAX_PIXELS,
    orientation: int | None = None,
    profile: bytes | EllipsisType | None = ...,
) -> Picture:
    """Return the picture of a Pillow image, which stays open.

    Args:
        orientation: the EXIF orientation, in place of what the image says.
        profile: an ICC profile, or None for sRGB, in place of what the image says.

    Raises:
        ImageError: it has no pixels or too many, or they cannot be decoded.
    """
    with _clear_errors("the image"):
        if is_misread(image):
            raise ImageError("the image is of a kind of TIFF that Pillow reads wrong: give the file itself")
        facts = gather(image)
        facts.orientation = orientation
        if not isinstance(profile, EllipsisType):
            facts.profile = profile
        return _picture(Found(image.size, image, facts), "the image", background, max_pixels)


def _stream(source: str | Path | bytes | BinaryIO, most: int) -> tuple[str, IO[bytes]]:
    """Return a name for messages and a stream that can seek and that we may close; others are read up to
    `most` bytes."""
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


def read_whole(stream: IO[bytes], name: str, max_pixels: int, head: bytes = b"") -> bytes:
    """Read a file completely, if its beginning is that of a picture.

    Args:
        head: what has been read of the stream already.

    Raises:
        UnsupportedImageError: it is no picture.
        ImageError: it is longer than a file of so many pixels may be.
    """
    return _whole(stream, name, most_bytes(max_pixels), head)


def _whole(stream: IO[bytes], name: str, most: int, head: bytes = b"") -> bytes:
    """Read a stream that cannot seek completely, if its beginning is that of a picture."""
    head = head or stream.read(HEAD)
    if not may_be_picture(head):
        raise refusal(name, head)
    data = read_at_most(stream, most, head)
    if data is None:
        raise ImageError(f"{name} is longer than {most} bytes")
    return data


@contextmanager
def _clear_errors(name: str) -> Iterator[None]:
    """Turn everything that Pillow raises for a damaged file into an error of one line; its plug-ins raise
    many things."""
    try:
        yield
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(f"{name} does not fit into memory") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} is larger than Pillow reads in this format") from error
    except Exception as error:
        raise failure(name, error) from error


def _picture(found: Found, name: str, background: Rgb, max_pixels: int) -> Picture:
    check_size(found.size, name, max_pixels)
    if found.image is not None:
        check_format(found.image, name)
        check_tiles(found.image, name, max_pixels)
    image = _loaded(found, name, max_pixels)
    check_size(image.size, name, max_pixels)  # a plug-in may know its size only now
    facts = found.facts
    converter = Converter(image, background, facts, name)
    pixels = converter.pixels()
    turn = _TURNS.get(orientation_of(image, facts))
    dropped = [
        "alpha" if converter.transparent else "",
        "" if image.format in _LAYERED else further_frames(image, facts),
        f"bit depth {facts.depth}" if facts.depth > 8 else "",
        "unusable ICC profile" if converter.broken_profile else "",
        *facts.dropped,
    ]
    upright = np.ascontiguousarray(turn(pixels)) if turn else pixels
    return Picture(upright, converter.grey, tuple(filter(None, dropped)), facts.damage)


def _loaded(found: Found, name: str, max_pixels: int) -> Image.Image:
    """Return the image with its pixels decoded; if Pillow fails and the file is good enough, by other
    means."""
    image, tiff = found.image, found.tiff
    if image is None:
        assert tiff is not None  # without an image only the extra is left
        image, found.facts = read_by_extra(tiff, name, max_pixels)
        return image
    prepare(image, found.facts)
    jpeg = found.stream is not None and image.format in ("JPEG", "MPO")
    try:
        _load_by_pillow(image)
    except OSError:
        if tiff is not None and is_unusual(image):
            image, found.facts = read_by_extra(tiff, name, max_pixels)
            return image
        whole = completed(_all_of(found.stream)) if jpeg else None
        if whole is None:
            raise
        found.facts.damage = "its end is missing, but no pixel is"
        image = JpegImageFile(io.BytesIO(whole), "")
        image.load()
    if jpeg and not found.facts.damage:
        found.facts.damage = warning_of(_all_of(found.stream))
    return image


def _all_of(stream: IO[bytes] | None) -> bytes:
    assert stream is not None
    stream.seek(0)
    return stream.read()


def _load_by_pillow(image: Image.Image) -> None:
    """Load an image; Pillow's TIFF reader applies the global limit again unless its memory is ready."""
    refused = image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf)
    if refused and image.format == "TIFF" and getattr(image, "_im", None) is None:
        image.im = Image.new(image.mode, getattr(image, "_tile_size", image.size)).im
    image.load()
