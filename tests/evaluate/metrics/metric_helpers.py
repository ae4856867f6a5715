"""Numbers for the references of the perceptual metrics, which are the same on every machine and with every
version.

Only the raw output of PCG64 and exact float32 arithmetic: numpy guarantees the former for good, but not its
distributions, and torch guarantees neither.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Shapes = Mapping[str, tuple[int, ...]]


def uniform(shape: tuple[int, ...], name: str, seed: int) -> Floats:
    """Return numbers in [-1, 1), multiples of 2^-23; each name has its own stream, whatever else is drawn."""
    raw = np.random.PCG64([zlib.crc32(name.encode()), seed]).random_raw(math.prod(shape))
    centred = (raw >> 40).astype(np.int64) - 2**23
    return (centred.astype(np.float32) * np.float32(2**-23)).reshape(shape)


def random_state(shapes: Shapes, seed: int) -> dict[str, Floats]:
    """Return parameters under which activations neither die nor grow; variances and weightings are
    positive."""
    state = {}
    for name, shape in shapes.items():
        values = uniform(shape, name, seed)
        if name.startswith("lin") or name in ("alpha", "beta") or name.endswith(("running_var", "bn.weight")):
            values = np.float32(0.5) + np.float32(0.375) * values
        elif len(shape) == 4:
            values = values * np.float32(math.sqrt(6.0 / math.prod(shape[1:])))
        else:
            values = values * np.float32(0.125)
        state[name] = values
    return state


def picture(height: int, width: int, seed: int) -> Bytes:
    """Make uint8 [height, width, 3] of coarse blocks and fine noise, so that every depth of a network sees
    something."""
    rows, columns = -(-height // 16), -(-width // 16)
    blocks = uniform((rows, columns, 3), "blocks", seed).repeat(16, 0).repeat(16, 1)[:height, :width]
    values = 128 + 80 * blocks + 24 * uniform((height, width, 3), "noise", seed)
    return np.clip(values, 0, 255).astype(np.uint8)


def pair(height: int, width: int, seed: int) -> tuple[Bytes, Bytes]:
    """Return a picture and a worse one, with half the contrast and another noise."""
    a = picture(height, width, seed)
    noise = (uniform((height, width, 3), "damage", seed) * 20).astype(np.int32)
    return a, np.clip(64 + a.astype(np.int32) // 2 + noise, 0, 255).astype(np.uint8)


def feature_set(rows: int, dimensions: int, name: str, seed: int) -> Floats:
    """Return features [rows, dimensions] whose dimensions are correlated, as those of networks are."""
    mixing = uniform((dimensions, dimensions), f"{name} mixing", seed)
    # float64: the sums are exact enough that no order of summation shows in the fourth digit.
    mixed = uniform((rows, dimensions), name, seed).astype(np.float64) @ mixing.astype(np.float64)
    return (mixed + 0.5).astype(np.float32)
