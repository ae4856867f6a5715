"""Pixels become Pillow images, and Pillow images become image files."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..common.files import STDIO, check_output, is_special, write_atomic
from ..errors import OutputError
from .xmp import XMP, with_xmp

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".avif": "AVIF",
    ".jp2": "JPEG2000",
    ".bmp": "BMP",
    ".tga": "TGA",
    ".ppm": "PPM",
    ".pnm": "PPM",
}
"""Output formats by extension."""
_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 90, "subsampling": "4:4:4"},
    "TIFF": {"compression": "tiff_adobe_deflate"},
}


def to_pil(pixels: NDArray[np.uint8], grey: bool = False) -> Image.Image:
    """Turn uint8 [H, W, 3] into a Pillow image: mode RGB, or L (luma) if `grey`."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return image.convert("L") if grey else image


def output_format(path: str | Path) -> str:
    """Return Pillow's name of the format for an output path; PNG for ``-``, devices and pipes.

    Raises:
        OutputError: the extension is not one of `FORMATS`, or this Pillow cannot write the format.
    """
    if str(path) == STDIO or is_special(path):
        return "PNG"
    kind = FORMATS.get(Path(path).suffix.lower())
    if kind is None:
        raise OutputError(f"{path}: no image format has this extension; use one of {' '.join(FORMATS)}")
    Image.init()
    if kind not in Image.SAVE:
        raise OutputError(f"{path}: this installation of Pillow cannot write {kind}")
    return kind


def encode_image(image: Image.Image, kind: str, text: Mapping[str, str] | None = None) -> bytes:
    """Return the bytes of an image file. An XMP packet in the image's `info` comes along, in PNG, JPEG, WebP,
    AVIF and TIFF.

    Args:
        kind: Pillow's name of the format.
        text: text chunks by keyword for PNG; other formats have none.

    Raises:
        OutputError: the format cannot contain such an image (WebP ends at 16383 pixels a side, JPEG at
            65535).
    """
    options = dict(_SAVE_OPTIONS.get(kind, {}))
    if kind == "PNG" and text:
        options["pnginfo"] = info = PngInfo()
        for key, value in text.items():
            info.add_text(key, value)
    stream = io.BytesIO()
    try:
        image.save(stream, kind, **with_xmp(options, image.info.get(XMP)))
    except (OSError, ValueError, RuntimeError, SystemError) as error:
        raise OutputError(
            f"{image.width} x {image.height} pixels cannot be written as {kind}: {error}"
        ) from error
    return stream.getvalue()


def save_image(
    path: str | Path, image: Image.Image, text: Mapping[str, str] | None = None, *, force: bool = False
) -> None:
    """Write an image atomically, in the format of the path's extension (see `output_format`, `write_atomic`).

    Raises:
        OutputError: the extension is unknown, the file exists and `force` is not given, or it cannot be
            written.
    """
    kind = output_format(path)
    check_output(path, force=force)
    write_atomic(path, encode_image(image, kind, text), force=force)
