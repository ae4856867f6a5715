"""The tiles of graphs: their inputs, and where their outputs belong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import WeightsError
from ..imageio.resize import Slices, Tile, tiles

Floats = NDArray[np.float32]

ENCODER_TILE, DECODER_TILE = 2048, 1536
"""The largest sides of a tile without its halo, in pixels. Both take some 500 MB."""
Y_STRIDE, Z_STRIDE = 32, 64
"""How many pixels one position of the grids of y and of z stands for."""


def cut(rows: int, columns: int, stride: int, side: int, halo: int) -> Iterator[tuple[Tile, bool]]:
    """Yield the tiles of a grid whose positions are `stride` pixels apart, and whether there are several.

    A halo ends at the border of the picture, so that a graph sees zeros exactly where it would see them in
    the whole picture.

    Args:
        side: the largest side of a tile without its halo, in pixels.
        halo: the halo in pixels.
    """
    tile = max(1, side // stride)
    large = max(rows, columns) > tile
    return ((part, large) for part in tiles(rows, columns, tile, -(-halo // stride), 1))


def times(part: Slices, factor: int) -> Slices:
    """Return the same part on a grid that is `factor` times finer."""
    rows, columns = part
    return (
        slice(rows.start * factor, rows.stop * factor),
        slice(columns.start * factor, columns.stop * factor),
    )


def patch(pixels: NDArray[Any], part: Slices) -> Floats:
    """Return a part of a picture, uint8 or float32 in 0-1, as float32 [1, 3, h, w] in 0-1; edges are
    repeated beyond the border."""
    found = pixels[part]
    missing = [(0, s.stop - s.start - n) for s, n in zip(part, found.shape, strict=False)]
    if any(after for _, after in missing):
        found = np.pad(found, [*missing, (0, 0)], "edge")
    image = found.transpose(2, 0, 1)[None].astype(np.float32, order="C")
    if pixels.dtype == np.uint8:
        image *= np.float32(1 / 255)
    return image


def inner(value: Floats, tile: Tile, scale: int) -> Floats:
    """Return the core of a graph's output [1, C, h, w], on a grid `scale` times finer than the tile's.

    Raises:
        WeightsError: the output has a wrong size.
    """
    expected = tuple((s.stop - s.start) * scale for s in tile.padded)
    if value.ndim != 4 or value.shape[2:] != expected:
        raise WeightsError(f"a graph gives an output of shape {value.shape}, not {expected}")
    return value[0, :, *times(tile.inner, scale)]


def store(whole: NDArray[Any], value: Floats, tile: Tile, scale: int) -> None:
    """Copy the core of a graph's output (see `inner`) into an array of the whole grid [C, rows, columns].

    Raises:
        WeightsError: the output has a wrong size or number of channels.
    """
    core = inner(value, tile, scale)
    if len(core) != len(whole):
        raise WeightsError(f"a graph gives {len(core)} channels, not {len(whole)}")
    with np.errstate(over="ignore"):  # damaged latents may exceed the range of half precision
        whole[:, *times(tile.core, scale)] = core
