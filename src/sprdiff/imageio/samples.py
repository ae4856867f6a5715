"""Samples that are not plain 8-bit levels: signed, floating-point, inverted, or in the other byte order."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError

Values = NDArray[Any]
WIDE_MODES = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
"""Pillow's modes of samples that are not bytes."""


@dataclass(frozen=True)
class Samples:
    """How the numbers of a file are read.

    Attributes:
        dtype: their type; None: the type in which they were read.
        swapped: whether they were read in the wrong byte order.
        inverted: whether 0 is white.
        depth: the bits of each number; the largest one is white, if this type of number has a white.
    """

    dtype: np.dtype[Any] | None = None
    swapped: bool = False
    inverted: bool = False
    depth: int = 32

    def of(self, values: Values) -> Values:
        """Return the numbers of an image as the file means them."""
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        wanted = values.dtype if self.dtype is None else self.dtype
        if wanted.itemsize != values.dtype.itemsize:  # 16 bits that were read into 32, with a sign
            if self.swapped:
                return values.astype(wanted).byteswap()
            return values.astype(wanted)
        return (values.byteswap() if self.swapped else values).view(wanted)


def value_range(strips: Iterable[Values], depth: int, name: str = "") -> tuple[float, float]:
    """Return the numbers of black and of white.

    Unsigned whole numbers of up to 16 bits have a white, their largest number, and so have signed ones,
    though a number below zero is no level. Numbers of 32 bits and floats have no defined range. It is the
    narrowest of 0-1 (floats), 0-255 (which Pillow's own conversions assume) and 0-65535 that contains them
    all, or else their own extremes.

    Args:
        strips: all numbers.
        depth: the bits of each.
        name: the picture's name in the message; empty: signed numbers are accepted as they are.

    Raises:
        ImageError: signed numbers of a file are below zero.
    """
    low, high, kind = math.inf, -math.inf, "i"
    for values in strips:
        kind = values.dtype.kind
        finite = values[np.isfinite(values)] if kind == "f" else values
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if name and kind == "i" and low < 0:
        raise ImageError(f"{name} holds numbers below zero, which are no shade of grey")
    if kind == "u" and depth <= 16:
        return 0.0, float(2**depth - 1)
    if name and kind == "i" and depth <= 16:
        return 0.0, float(2 ** (depth - 1) - 1)
    for limit in (1.0, 255.0, 65535.0) if kind == "f" else (255.0, 65535.0):
        if low >= 0 and high <= limit:
            return 0.0, limit
    return (low, high) if low < high else (min(low, 0.0), max(high, 255.0))
