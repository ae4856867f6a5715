"""Large pictures in pieces: overlapping tiles, and a resize that needs little memory beyond its result."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..interrupt import checkpoint

Slices = tuple[slice, slice]
STRIP_PIXELS = 2**22
"""How many pixels are processed at a time where a whole picture would need several copies of itself."""


def area(part: Slices) -> int:
    """Return the number of positions in a part of a grid."""
    rows, columns = part
    return int(rows.stop - rows.start) * int(columns.stop - columns.start)


@dataclass(frozen=True)
class Tile:
    """A tile of a picture; all fields are pairs of rows and columns.

    Attributes:
        core: the part of the picture that this tile computes; the cores cover the picture once.
        padded: the core with its halo, cut at the borders of the picture.
        inner: the position of `core` in an array of the size of `padded`.
    """

    core: Slices
    padded: Slices
    inner: Slices


def tiles(height: int, width: int, tile: int, halo: int, multiple: int) -> Iterator[Tile]:
    """Yield overlapping tiles of a picture, row by row, of about equal size.

    Args:
        height, width: the size of the picture.
        tile: the largest side of a core (rounded up to `multiple`).
        halo: how far a tile must see beyond its core (rounded up to `multiple`).
        multiple: cores and padded parts begin at multiples of this, in the unit of `height`.
    """
    rows, columns = _spans(height, tile, halo, multiple), _spans(width, tile, halo, multiple)
    for core_r, padded_r, inner_r in rows:
        for core_c, padded_c, inner_c in columns:
            yield Tile((core_r, core_c), (padded_r, padded_c), (inner_r, inner_c))


def _spans(size: int, tile: int, halo: int, multiple: int) -> list[tuple[slice, slice, slice]]:
    """Yield core, padded and inner along one axis."""
    if min(size, tile, multiple) < 1 or halo < 0:
        raise ValueError("tiles need positive sizes")
    halo = math.ceil(halo / multiple) * multiple
    tile = math.ceil(tile / multiple) * multiple
    count = math.ceil(size / tile)
    step = math.ceil(size / count / multiple) * multiple
    spans = []
    for start in range(0, size, step):
        stop = min(start + step, size)
        first, last = max(0, start - halo), min(size, stop + halo)
        spans.append((slice(start, stop), slice(first, last), slice(start - first, stop - first)))
    return spans


def resize(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize with Pillow's Lanczos filter (antialiased when shrinking), strip by strip.

    Rows come first, then columns. Pillow itself would choose the order by cost, and the rounding in between
    would depend on the strips.

    Args:
        pixels: uint8 [H, W, 3].
        size: (height, width) of the result, each at least 1.

    Returns:
        uint8 [height, width, 3]; the input itself if the size is the same.
    """
    height, width = size
    if pixels.shape[:2] == (height, width):
        return pixels
    scale = pixels.shape[0] / height
    reach = math.ceil(3 * max(1.0, scale)) + 1  # Lanczos has three lobes; one more row for the rounding
    rows = max(1, int(STRIP_PIXELS / max(width, pixels.shape[1] * scale)))
    out = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        checkpoint((bottom - top) * width)
        first = max(0, math.floor(top * scale) - reach)
        last = min(pixels.shape[0], math.ceil(bottom * scale) + reach)
        box = (0, top * scale - first, width, min(bottom * scale, pixels.shape[0]) - first)
        strip = Image.fromarray(np.ascontiguousarray(pixels[first:last]))
        strip = strip.resize((width, last - first), Image.Resampling.LANCZOS)
        out[top:bottom] = np.asarray(strip.resize((width, bottom - top), Image.Resampling.LANCZOS, box))
    return out
