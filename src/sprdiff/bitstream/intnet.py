"""The integer networks that predict probabilities: bit-exact on every machine.

Weights have 12 fraction bits, latents and hats 8. A layer is ``acc = W v + b``; each is computed as a float64
matrix product of integers. Every partial sum stays below 2^53 (checked from the weights at load), so float64
is exact in any order of summation, with any number of threads and any instruction set (Balle et al., ICLR
2019, "Integer Networks for Data Compression with Latent-Variable Models").

      z_hat 3x3, hats -> [layer] -> [layer] -> h                    HyperSynthesis, per position of z
      y_hat 3x3, h, hats -> [layer] -> [layer] -> [layer] -> mu, i  ContextStep, per position of y and step
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sprdiff.errors import WeightsError
from sprdiff.limits import checkpoint

FRACTION = 8
"""Fraction bits of latents, means and hats."""
SYMBOL_LIMIT = 32767
"""Largest |symbol| and largest |mean| (in 1/256)."""
LATENT_BOUND = (SYMBOL_LIMIT << FRACTION) + SYMBOL_LIMIT
HIDDEN_LIMIT = 16383
HATS = 9
LEVELS = 256
CHUNK = 4096
"""Positions computed at once: bounds the scratch memory to some 40 MB whatever the size of the picture."""
SAME_PASS = (0, 2, 4, 6, 8)
"""Offsets of the 3x3 neighbourhood (row-major) that have the parity of its centre."""
OTHER_PASS = (1, 3, 5, 7)
MAX_RATIO = 16
MAX_OUTPUTS = 4096
"""Outputs of one layer: they are computed for `CHUNK` positions at once."""
MAX_FEATURES = 512
"""Features of the hyper-latent, which are kept for every position of y."""

Arrays = Mapping[str, NDArray[Any]]
Floats = NDArray[np.float64]
Ints = NDArray[np.int32]
Index = NDArray[np.int64]


def hats(level: int) -> Floats:
    """[9] integers with 8 fraction bits: linear interpolation weights of the level between 0, 32, .. 256."""
    return np.array([max(0, 32 - abs(level - 32 * j)) * 8 for j in range(HATS)], np.float64)


def fetch(arrays: Arrays, name: str, dtype: type[np.generic], shape: tuple[int | None, ...]) -> NDArray[Any]:
    """The array of that name, checked; None in `shape` stands for any size.

    Raises:
        WeightsError: missing, or of another dtype or shape.
    """
    if name not in arrays:
        raise WeightsError(f"the weights lack the array {name}")
    array = arrays[name]
    fits = array.ndim == len(shape) and all(b in (None, a) for a, b in zip(array.shape, shape, strict=False))
    if not fits or 0 in array.shape or array.dtype != np.dtype(dtype):
        wanted = "x".join("any" if n is None else str(n) for n in shape)
        raise WeightsError(f"{name} must be {np.dtype(dtype)} {wanted}, not {array.dtype} {array.shape}")
    return array


class Layer:
    """One dense integer layer, ready for ``v @ weight + bias``."""

    def __init__(self, arrays: Arrays, name: str, bound: Floats, outputs: int | None = None) -> None:
        """Load and check the layer `name` (".weight" int16 [out, in], ".bias" int64 [out]).

        Args:
            bound: [in], the largest magnitude of each input.
            outputs: the number of outputs wanted, None for any.

        Raises:
            WeightsError: also when a partial sum could reach 2^53.
        """
        weight = fetch(arrays, f"{name}.weight", np.int16, (outputs, bound.size))
        if weight.shape[0] > MAX_OUTPUTS:
            raise WeightsError(f"{name} has {weight.shape[0]} outputs, above the limit of {MAX_OUTPUTS}")
        bias = fetch(arrays, f"{name}.bias", np.int64, (weight.shape[0],))
        # 2^16 covers the rounding terms. Floats round the bias, but far below the margin to 2^53.
        worst = np.abs(weight.astype(np.float64)) @ bound + np.abs(bias.astype(np.float64)) + 2.0**16
        if worst.max() >= 2.0**53:
            raise WeightsError(f"{name} is not exact: its sums can reach 2^53")
        self.weight: Floats = np.ascontiguousarray(weight.T, dtype=np.float64)
        self.bias: Floats = bias.astype(np.float64)
        self.outputs: int = weight.shape[0]

    def hidden(self, v: Floats, bias: Floats | None = None) -> Floats:
        """``clip((W v + b + 2^11) >> 12, 0, 16383)``: the activation of a hidden layer, [n, out]."""
        acc = v @ self.weight
        acc += self.bias if bias is None else bias
        return shift_clip(acc, 12, 0, HIDDEN_LIMIT)


def shift_clip(acc: Floats, bits: int, low: int, high: int) -> Floats:
    """``clip((acc + 2^(bits-1)) >> bits, low, high)`` in place; the scaling by a power of two is exact."""
    acc += 2.0 ** (bits - 1)
    acc *= 2.0**-bits
    np.floor(acc, out=acc)
    return np.clip(acc, low, high, out=acc)


def chunks(count: int) -> Iterator[slice]:
    """Slices of at most `CHUNK` positions; work can be stopped between them."""
    for start in range(0, count, CHUNK):
        checkpoint()
        yield slice(start, min(start + CHUNK, count))


class Grid:
    """A latent on its grid with a border of zeros, int32 [(rows + 2) * (columns + 2), channels]."""

    def __init__(self, rows: int, columns: int, channels: int) -> None:
        self.rows, self.columns, self.stride = rows, columns, columns + 2
        self.values: Ints = np.zeros(((rows + 2) * self.stride, channels), np.int32)

    def inside(self, positions: Index) -> Index:
        """Where raster positions of the grid lie in `values`."""
        row, column = np.divmod(positions, self.columns)
        return (row + 1) * self.stride + column + 1

    def gather(self, out: Floats, centres: Index, offsets: tuple[int, ...], channels: int) -> int:
        """Write the first `channels` at each offset around `centres` to `out`; returns how many."""
        for i, k in enumerate(offsets):
            near = centres + ((k // 3 - 1) * self.stride + k % 3 - 1)
            out[:, i * channels : (i + 1) * channels] = self.values[near, :channels]
        return len(offsets) * channels

    def planes(self) -> Ints:
        """[channels, rows, columns], contiguous, without the border."""
        cube = self.values.reshape(self.rows + 2, self.stride, -1)[1:-1, 1:-1]
        return np.ascontiguousarray(cube.transpose(2, 0, 1))


def context_features(arrays: Arrays) -> int:
    """How many features of the hyper-latent the context networks take: all inputs of the first but the hats."""
    features = fetch(arrays, "context.0.0.weight", np.int16, (None, None)).shape[1] - HATS
    if not 1 <= features <= MAX_FEATURES:
        raise WeightsError(f"context.0.0 takes {features} features of the hyper-latent, not 1 to {MAX_FEATURES}")
    return int(features)


class HyperSynthesis:
    """z_hat -> h: features of the hyper-latent, `features` channels at every position of the y grid.

    Attributes:
        ratio: positions of y along one side of a position of z.
    """

    def __init__(self, arrays: Arrays, z_channels: int) -> None:
        self.z_channels = z_channels
        bound = np.repeat([float(LATENT_BOUND), 256.0], [9 * z_channels, HATS])
        self.first = Layer(arrays, "hyper.0", bound)
        self.second = Layer(arrays, "hyper.1", np.full(self.first.outputs, float(HIDDEN_LIMIT)))
        self.features = context_features(arrays)
        self.ratio = math.isqrt(self.second.outputs // self.features)
        if not 1 <= self.ratio <= MAX_RATIO or self.second.outputs != self.ratio**2 * self.features:
            raise WeightsError(f"hyper.1 must have {self.features} outputs (what context.0.0 takes) times a square")

    def __call__(self, z_hat: Grid, level: int, shape: tuple[int, int]) -> NDArray[np.int16]:
        """h, int16 [rows * columns of the y grid, features], values 0 .. 16383."""
        rows, columns = shape
        ratio = self.ratio
        h = np.empty((ratio * z_hat.rows, ratio * z_hat.columns, self.features), np.int16)
        taps = 9 * self.z_channels
        bias = self.first.bias + hats(level) @ self.first.weight[taps:]
        for part in chunks(z_hat.rows * z_hat.columns):
            positions = np.arange(part.start, part.stop)
            v = np.empty((positions.size, taps))
            z_hat.gather(v, z_hat.inside(positions), tuple(range(9)), self.z_channels)
            acc = v @ self.first.weight[:taps]
            acc += bias
            out = self.second.hidden(shift_clip(acc, 12, 0, HIDDEN_LIMIT))
            row, column = np.divmod(positions, z_hat.columns)
            for block in range(ratio**2):
                i, j = divmod(block, ratio)
                h[ratio * row + i, ratio * column + j] = out[:, block * self.features : (block + 1) * self.features]
        return h[:rows, :columns].reshape(rows * columns, self.features)


class ContextStep:
    """One coding step: a channel group in one pass of the checkerboard.

    The inputs that are zero by definition (neighbours not decoded yet) are left out of the product, and the
    hats, the same at every position, are folded into the bias: the same integers with a third less work.

    Attributes:
        parity: which pass: positions with (row + column) % 2 == parity.
        channels: the channel group.
    """

    def __init__(self, arrays: Arrays, name: str, parity: int, channels: slice, sizes: tuple[int, int, int]) -> None:
        """`sizes`: channels of y, features of h, number of tables."""
        self.parity, self.channels = parity, channels
        self.y_channels, self.features, self.tables = sizes
        depth = self.y_channels if parity else channels.start  # n_s of the specification
        bound = np.repeat([float(LATENT_BOUND), float(HIDDEN_LIMIT), 256.0], [9 * depth, self.features, HATS])
        self.first = Layer(arrays, f"{name}.0", bound)
        self.second = Layer(arrays, f"{name}.1", np.full(self.first.outputs, float(HIDDEN_LIMIT)))
        size = channels.stop - channels.start
        self.last = Layer(arrays, f"{name}.2", np.full(self.second.outputs, float(HIDDEN_LIMIT)), 2 * size)
        rows = [k * depth + np.arange(channels.start) for k in SAME_PASS]
        if parity:
            rows += [k * depth + np.arange(self.y_channels) for k in OTHER_PASS]
        rows.append(9 * depth + np.arange(self.features))
        self.hat_weight = self.first.weight[-HATS:].copy()
        self.first.weight = np.ascontiguousarray(self.first.weight[np.concatenate(rows)])

    def __call__(
        self, y_hat: Grid, h: NDArray[np.int16], positions: Index, level: int
    ) -> tuple[Ints, NDArray[np.uint8]]:
        """Means int32 (8 fraction bits) and table indices uint8, both [positions, group]."""
        size = self.channels.stop - self.channels.start
        mu = np.empty((positions.size, size), np.int32)
        index = np.empty((positions.size, size), np.uint8)
        bias = self.first.bias + hats(level) @ self.hat_weight
        for part in chunks(positions.size):
            v = self._inputs(y_hat, h, positions[part])
            acc = self.second.hidden(self.first.hidden(v, bias)) @ self.last.weight
            acc += self.last.bias
            mu[part] = shift_clip(acc[:, :size], 12, -SYMBOL_LIMIT, SYMBOL_LIMIT)
            index[part] = shift_clip(acc[:, size:], 16, 0, self.tables - 1)
        return mu, index

    def _inputs(self, y_hat: Grid, h: NDArray[np.int16], positions: Index) -> Floats:
        v = np.empty((positions.size, self.first.weight.shape[0]))
        centres = y_hat.inside(positions)
        used = y_hat.gather(v, centres, SAME_PASS, self.channels.start)
        if self.parity:
            used += y_hat.gather(v[:, used:], centres, OTHER_PASS, self.y_channels)
        v[:, used:] = h[positions]
        return v
