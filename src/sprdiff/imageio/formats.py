"""Which formats are opened, and what is checked before their pixels are decoded: a file may come from a
stranger.

Formats are allowed by name. Excluded are formats that contain a program (EPS, WMF) or another file of another
format (IPTC, ICO, ICNS, BLP, FPX, MIC), whose size cannot be known before, and those that an application's
stub reads (HDF5, GRIB).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import IO, Any

from PIL import Image, ImageFile, TiffImagePlugin

from ..common.files import read_at_most
from ..errors import ImageError, LargeImageError
from ..limits import above, size_message

RASTER = frozenset(
    {
        "AVIF", "BMP", "DDS", "DIB", "GIF", "HEIF", "JPEG", "JPEG2000", "JXL", "MPO", "PCX", "PNG", "PPM",
        "PSD", "QOI", "SGI", "SUN", "TGA", "TIFF", "WEBP", "XBM", "XPM",
    }
)  # fmt: skip
"""Formats, by Pillow's names, whose plug-ins only read pixels; HEIF and JXL exist if a package provides
them."""
OWN = "SPRDIFF"
"""Our own format in Pillow: an open image may have it, a picture to encode may not."""
MOST_FRAMES = 1000
"""The largest number of frames that is counted: a TIFF can chain pages of a hundred bytes, each slower to
find."""
MIN_TILE = 2**22
"""A tile of a TIFF with up to this many pixels is always accepted, because a whole tile is decoded for a
picture of any size."""


OPENING = 2**27
"""How many bytes a plug-in may read before it knows the size of the picture."""
_BYTES_PER_PIXEL = 16
"""Four channels of 32 bits, the largest size of an uncompressed pixel."""


def most_bytes(pixels: int) -> int:
    """Return how many bytes of a file are read for a picture of so many pixels."""
    return OPENING + _BYTES_PER_PIXEL * pixels


class Bounded:
    """A stream from which a plug-in may read only a limited number of bytes."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream, self._name = stream, name
        self._left = OPENING

    def allow(self, pixels: int) -> None:
        """Allow as many bytes more as the picture may need, now that its size is known."""
        self._left += most_bytes(pixels)

    def read(self, size: int = -1) -> bytes:
        """Read bytes.

        Raises:
            ImageError: more has been read than a picture can need.
        """
        if size is None or size < 0:
            return self._counted(read_at_most(self._stream, self._left))
        return self._counted(self._stream.read(min(size, self._left + 1)))

    def readline(self) -> bytes:
        """Read a line.

        Raises:
            ImageError: more has been read than a picture can need.
        """
        return self._counted(self._stream.readline(self._left + 1))

    def _counted(self, data: bytes | None) -> bytes:
        if data is None or len(data) > self._left:
            raise ImageError(f"{self._name} has more bytes than a picture of its size can need")
        self._left -= len(data)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def check_size(size: Sequence[int], name: str, max_pixels: int) -> None:
    """Refuse a picture that has no pixels, or more than allowed (see `limits.above`).

    Args:
        size: width and height in pixels.

    Raises:
        LargeImageError: it has too many.
        ImageError: it has none.
    """
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"{name} has no pixels ({width} x {height})")
    if above(width, height, max_pixels):
        raise LargeImageError(f"{name} has {size_message(width, height, max_pixels)}")


def check_format(image: Image.Image, name: str) -> None:
    """Refuse an image that a caller has opened with Pillow, if loading it could run or open another program
    or file.

    Raises:
        ImageError: its pixels have not been read yet, and its format is not in `RASTER`.
    """
    unread = isinstance(image, ImageFile.ImageFile) and getattr(image, "_im", None) is None
    if unread and image.format not in RASTER | {OWN}:
        raise ImageError(
            f"{name} is a file in the format {image.format}, which is not opened here: load it first"
        )


def check_tiles(image: Image.Image, name: str, max_pixels: int) -> None:
    """Refuse a TIFF whose tiles have more pixels than a picture may have.

    Raises:
        ImageError: they have.
    """
    tags: Any = getattr(image, "tag_v2", None)
    if image.format != "TIFF" or tags is None:
        return
    sides = [tags.get(tag, 1) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH)]
    if not all(isinstance(side, int) for side in sides):
        raise ImageError(f"{name} is damaged: its tiles have no size")
    check_tile(sides, name, max_pixels)


def check_tile(sides: Sequence[int], name: str, max_pixels: int) -> None:
    """Refuse a tile with more pixels than a picture may have.

    Args:
        sides: width and height in pixels; empty if there are no tiles.

    Raises:
        ImageError: it has more.
    """
    if math.prod(sides) > max(max_pixels, MIN_TILE):
        raise ImageError(
            f"{name} has tiles of {' x '.join(map(str, sides))} pixels, above the limit of {max_pixels}"
        )


def count_frames(image: Image.Image) -> int:
    """Return how many frames a file has; up to `MOST_FRAMES` if they have to be found one after the other."""
    seek: Callable[[int], Any]
    if image.format == "TIFF":
        seek = image.seek
    elif image.format == "GIF":
        finder: Any = image
        seek = lambda frame: finder._seek(frame, False)  # noqa: E731 (without decoding those between)
    else:
        return int(getattr(image, "n_frames", 1))
    here = image.tell()
    frames = here + 1
    try:
        while frames < MOST_FRAMES:
            seek(frames)
            frames += 1
    except EOFError:
        pass
    finally:
        image.seek(here)
    return frames
