"""Files for the tests of opening pictures: PNG chunk by chunk, TIFF page by page, colours with a known
answer."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

Chunk = tuple[bytes, bytes]
SIZE = (48, 64)


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def ramp(channels: int = 1, height: int = 40, width: int = 50) -> NDArray[np.float64]:
    """Return shades 0-1 [height, width, channels], with another slope in each channel."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [x / (width - 1), y / (height - 1), (x + y) % width / (width - 1), x * y % width / (width - 1)]
    return np.stack(planes[:channels], -1)


def tiff(array: NDArray[Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **({"metadata": None} | options))
    return stream.getvalue()


def tiff_pages(*pages: tuple[NDArray[Any], dict[str, Any]], big: bool = False) -> bytes:
    """Make a TIFF file of several pages; what follows a page with the option ``subifds`` lies below it."""
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream, bigtiff=big) as writer:
        for array, options in pages:
            writer.write(array, **({"metadata": None, "contiguous": False} | options))
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    pixels: NDArray[Any], *before: Chunk, depth: int = 8, palette: bytes = b"", after: Sequence[Chunk] = ()
) -> bytes:
    """Make a PNG file of [H, W], [H, W, 2], [H, W, 3] or [H, W, 4], with chunks before and after the
    pixels."""
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    kind = 3 if palette else {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = pixels.reshape(height, width * channels)
    if depth >= 8:
        lines = [row.astype(">u2" if depth == 16 else np.uint8).tobytes() for row in rows]
    else:
        bits = (rows[..., None] >> np.arange(depth - 1, -1, -1)) & 1
        lines = [np.packbits(line.reshape(-1)).tobytes() for line in bits.astype(np.uint8)]
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))]
    parts += [chunk(b"PLTE", palette)] if palette else []
    parts += [chunk(*one) for one in before]
    parts += [chunk(b"IDAT", zlib.compress(b"".join(b"\0" + line for line in lines)))]
    parts += [chunk(*one) for one in after] + [chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def damaged_chunk(data: bytes, kind: bytes) -> bytes:
    """Return the file with a wrong checksum of the first chunk of a kind."""
    start = data.index(kind) - 4
    (length,) = struct.unpack(">I", data[start : start + 4])
    end = start + 8 + length
    return data[:end] + bytes(b ^ 0x55 for b in data[end : end + 4]) + data[end + 4 :]


def apart(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return the largest difference of two pictures, in steps of 255."""
    return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())


def encode_curve(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert linear light 0-1 to the shades of sRGB, 0-1 (IEC 61966-2-1)."""
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def decode_curve(shades: NDArray[np.float64]) -> NDArray[np.float64]:
    """Invert `encode_curve`."""
    return np.where(shades <= 0.04045, shades / 12.92, ((shades + 0.055) / 1.055) ** 2.4)


# From linear light of a space to that of sRGB, both of white D65; computed from the primaries in the
# standards (SMPTE EG 432-1, Adobe RGB 1998, ITU-R BT.2020) and published in many places, such as CSS Color 4.
TO_SRGB = {
    "p3": [[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]],
    "adobe": [[1.3984, -0.3984, 0.0], [0.0, 1.0, 0.0], [0.0, -0.0429, 1.0429]],
    "bt2020": [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    "srgb": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
}


def to_srgb(shades: NDArray[np.float64], space: str, gamma: float | None = None) -> NDArray[np.float64]:
    """Convert shades 0-1 of a colour space to shades 0-255 of sRGB.

    Args:
        gamma: shades are light to the power of 1/gamma; None: they follow the curve of sRGB.
    """
    light = decode_curve(shades) if gamma is None else shades**gamma
    return encode_curve(light @ np.array(TO_SRGB[space]).T) * 255


def muted(height: int = 24, width: int = 40) -> NDArray[np.float64]:
    """Return colours that lie inside sRGB in every space: shades 0-1 [height, width, 3] near grey, from dark
    to light."""
    y, x = np.mgrid[0:height, 0:width]
    grey = (x / (width - 1))[..., None]
    tint = np.stack([np.sin(y / 4), np.cos(y / 5), np.sin(y / 3 + 1)], -1)
    return np.clip(grey * (0.85 + 0.12 * tint), 0, 1)
