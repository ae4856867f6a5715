"""The noise from which a flow starts: a pure function of seed and position.

The value at (row, column, channel) of the latent comes from Philox 4x64-10 (Salmon et al., SC 2011), as
in `numpy.random.Philox`: the key is the seed, and the counter is (0, row, 0, 0) before the first word of a
row. Columns and, inside them, channels take one 64-bit word w each. With u = (w >> 32) + 1/2 and v = w mod
2^32, both over 2^32, the value is sqrt(-2 ln u) cos(2 pi v) (Box-Muller), in float64, rounded to float32.
Tiles, threads and machines therefore agree as far as their logarithms and cosines do.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def normal_noise(seed: int, rows: slice, columns: slice, channels: int) -> NDArray[np.float32]:
    """Return standard normal noise, float32 [channels, rows, columns], of one part of the latent.

    Args:
        seed: 0 .. 2^64 - 1.
        rows, columns: the part, in absolute positions of the grid.
    """
    first, last = columns.start * channels, columns.stop * channels
    words = np.empty((rows.stop - rows.start, last - first), np.uint64)
    for i, row in enumerate(range(rows.start, rows.stop)):
        generator = np.random.Philox(key=seed, counter=np.array([0, row, 0, 0], np.uint64))
        words[i] = generator.random_raw(last)[first:]
    # Half a unit keeps the logarithm finite.
    radius = np.sqrt(-2 * np.log(((words >> np.uint64(32)) + 0.5) * 2.0**-32))
    angle = (words & np.uint64(0xFFFFFFFF)) * (2 * np.pi * 2.0**-32)
    normal = (radius * np.cos(angle)).astype(np.float32)
    return np.ascontiguousarray(normal.reshape(len(words), -1, channels).transpose(2, 0, 1))
