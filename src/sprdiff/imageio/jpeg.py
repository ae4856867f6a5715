"""Damaged JPEG files: warnings of libjpeg that Pillow hides, and files without their end.

Without the extra `jpeg` only one thing is checked: that the data do not end before the pixels do.
"""

from __future__ import annotations

import importlib
import io
import random
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile

EOI = b"\xff\xd9"
_SOS, _SOF = 0xDA, frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_ALONE = frozenset({0x01, *range(0xD0, 0xDA)})
_RANDOM = [random.Random(seed).randbytes(64).replace(b"\xff", b"\x5a") for seed in range(20)]
_TAILS = (*_RANDOM[:12], *(bytes([0xFF, 0xD0 + i]) + _RANDOM[12 + i] for i in range(8)))
"""Several continuations of data that were cut off; some begin with each of the eight restart markers."""
_GAIN_MAPS = (b"hdrgm:", b"HDRGainMap", b"urn:iso:std:iso:ts:21496:-1")


def warning_of(data: bytes) -> str:
    """Return what libjpeg says about the data of a file; empty if it says nothing or the extra `jpeg` is
    not installed."""
    try:
        simplejpeg: Any = importlib.import_module("simplejpeg")
    except ImportError:
        return ""
    try:
        *_, space, _ = simplejpeg.decode_jpeg_header(data, strict=False)
        # An eighth of the size is enough: damage shows when the codes are read, which every size needs.
        options = {"min_height": 1, "min_width": 1, "min_factor": 8, "fastdct": True, "fastupsample": True}
        simplejpeg.decode_jpeg(data, "CMYK" if space in ("CMYK", "YCCK") else "GRAY", strict=True, **options)
    except ValueError as error:
        return " ".join(str(error).split())
    return ""


def completed(data: bytes) -> bytes | None:
    """Complete a file that only lacks its last marker; return None if pixels are missing, too.

    If the pixels end before the data do, what follows does not matter: the file is decoded with several
    continuations, and all must give the same picture (of 4,500 cuts one was taken for whole, with an error of
    2 in 255). The last scans of a progressive file must be there as well.
    """
    data = data.rstrip(b"\xff")  # half of the marker
    if not _refined(data):
        return None
    try:
        want = _decoded(data)
        same = all(np.array_equal(_decoded(data + tail), want) for tail in _TAILS)
    except (OSError, SyntaxError, ValueError):
        return None
    return data + EOI if same else None


def _decoded(data: bytes) -> NDArray[np.uint8]:
    with JpegImageFile(io.BytesIO(data + EOI)) as image:
        return np.asarray(image)


def _refined(data: bytes) -> bool:
    """Whether the scans contain every coefficient of every component in full."""
    missing: dict[int, set[int]] = {}
    for marker, start, end in _segments(data):
        body = data[start:end]
        if marker in _SOF and len(body) >= 6:
            missing = {body[6 + 3 * i]: set(range(64)) for i in range(body[5]) if 6 + 3 * i < len(body)}
        elif marker == _SOS and body:
            names = [body[1 + 2 * i] for i in range(body[0]) if 1 + 2 * i < len(body)]
            if len(body) < 2 * len(names) + 4:
                return False
            first, last, bits = body[-3:]
            if not bits & 15:
                for name in names:
                    missing.get(name, set()).difference_update(range(first, last + 1))
    return bool(missing) and not any(missing.values())


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the marker, the start and the end of each segment of a file; the data of scans are skipped."""
    position = 2
    while (position := data.find(b"\xff", position)) >= 0 and position + 3 < len(data):
        marker = data[position + 1]
        if marker in (0x00, 0xFF) or marker in _ALONE:
            position += 1 if marker == 0xFF else 2
            continue
        length = struct.unpack(">H", data[position + 2 : position + 4])[0]
        yield marker, position + 4, position + 2 + length
        position += 2 + max(2, length)


def has_gain_map(image: ImageFile.ImageFile) -> bool:
    """Whether a file contains a gain map for brighter displays."""
    segments = getattr(image, "applist", None) or ()
    return any(mark in content for _, content in segments for mark in _GAIN_MAPS)


def is_adobe_rgb(exif: Image.Exif) -> bool:
    """Whether a camera says, without a profile, that the colours are Adobe RGB (DCF 2.0)."""
    detail = exif.get_ifd(0x8769)
    space = detail.get(0xA001)
    return space == 2 or (space == 0xFFFF and str(exif.get_ifd(0xA005).get(1, "")).startswith("R03"))
