"""Overlapping tiles with smooth weights, for networks that see the whole picture at once.

Group normalisation and global attention make a tile depend on where it was cut, so no halo makes tiles agree.
Where tiles overlap, the weight of each falls along half a cosine from one to zero. Differences in mean colour
between tiles are corrected afterwards, from the coarse picture (`match_colours`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..imageio.resize import Slices

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """A tile: its rows and columns, and its weights along both, above 0 and at most 1."""

    place: Slices
    rows: Floats
    columns: Floats

    @property
    def weight(self) -> Floats:
        """The weights, [rows, columns]."""
        return self.rows[:, None] * self.columns[None, :]


def parts(height: int, width: int, tile: int, overlap: int, multiple: int) -> Iterator[Part]:
    """Yield tiles of one size, row by row; neighbours share at least ``overlap - multiple`` positions.

    Args:
        height, width: the size of the grid, multiples of `multiple`.
        tile: the largest side of a tile, a multiple of `multiple`; a side that is not larger is not cut.
        overlap: how many positions neighbours share, less than `tile`.
        multiple: tiles begin and end at multiples of this.
    """
    rows, columns = _spans(height, tile, overlap, multiple), _spans(width, tile, overlap, multiple)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            yield Part((row, column), _ramps(rows, i), _ramps(columns, j))


def _spans(size: int, tile: int, overlap: int, multiple: int) -> list[slice]:
    if min(size, multiple) < 1 or tile % multiple or size % multiple or not 0 <= overlap < tile:
        raise ValueError(f"no tiles of {tile} with an overlap of {overlap} in {size}, in steps of {multiple}")
    if size <= tile:
        return [slice(0, size)]
    count = -(-(size - overlap) // (tile - overlap))
    # Not larger than so many tiles have to be: 1088 rows in tiles of 1024 would be computed twice.
    tile = -(-(size + (count - 1) * overlap) // (count * multiple)) * multiple
    free = (size - tile) // multiple
    starts = [round(free * i / (count - 1)) * multiple for i in range(count)]
    return [slice(start, start + tile) for start in starts]


def _ramps(spans: list[slice], index: int) -> Floats:
    span = spans[index]
    weights = np.ones(span.stop - span.start)
    if index > 0 and (shared := spans[index - 1].stop - span.start) > 0:
        weights[:shared] *= _rise(shared)
    if index + 1 < len(spans) and (shared := span.stop - spans[index + 1].start) > 0:
        weights[-shared:] *= _rise(shared)[::-1]
    return weights.astype(np.float32)


def _rise(count: int) -> NDArray[np.float64]:
    """Return weights that rise from above 0 to below 1; together with their reverse they sum to 1."""
    values: NDArray[np.float64] = 0.5 - 0.5 * np.cos(np.pi * (np.arange(count) + 0.5) / count)
    return values


def cell_means(picture: Floats, cell: int) -> Floats:
    """Return the mean of each cell: [3, H, W], sides multiples of `cell` -> [3, H / cell, W / cell]."""
    channels, height, width = picture.shape
    cells = picture.reshape(channels, height // cell, cell, width // cell, cell)
    means: Floats = cells.mean((2, 4), dtype=np.float64).astype(np.float32)
    return means


def match_colours(picture: Floats, wanted: Floats, cell: int) -> None:
    """Move the low frequencies of a picture, [3, H, W], to those of another, in place.

    The difference of the cells' means is added, linear between the centres of cells and constant beyond the
    outer ones. It has no edges, and does not change details finer than a cell.

    Args:
        wanted: the means of the cells of the other picture, [3, H / cell, W / cell].
        cell: the side of a cell in pixels.
    """
    difference = wanted - cell_means(picture, cell)
    height, width = picture.shape[1:]
    left, right, across = _between(width, cell)
    lines = difference[:, :, left] * (1 - across) + difference[:, :, right] * across
    upper, lower, down = _between(height, cell)
    for row in range(height):  # one row at a time, without a second array of the size of the picture
        picture[:, row] += lines[:, upper[row]] * (1 - down[row]) + lines[:, lower[row]] * down[row]


def _between(size: int, cell: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Return for each position the cells before and after it, by their centres, and the weight of the
    second."""
    place = ((np.arange(size) + 0.5) / cell - 0.5).clip(0, size // cell - 1)
    before = np.floor(place).astype(np.int64)
    after = np.minimum(before + 1, size // cell - 1)
    return before, after, (place - before).astype(np.float32)
