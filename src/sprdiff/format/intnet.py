"""The integer networks that predict probabilities: bit-exact on every machine.

Weights have 12 fraction bits, latents and level weights 8. A layer is ``acc = W v + b``; each is computed as
a float64 matrix product of integers. Every partial sum stays below 2^53 (checked from the weights at load),
so float64 is exact in any order of summation, with any number of threads and any instruction set (Balle et
al., ICLR 2019, "Integer Networks for Data Compression with Latent-Variable Models").

      z_hat 3x3, level -> [layer] -> [layer] -> h                    HyperSynthesis, per position of z
      y_hat 3x3, h, level -> [layer] -> [layer] -> [layer] -> mu, i  ContextStep, per position of y and step
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sprdiff.errors import WeightsError
from sprdiff.format.constants import (
    FRACTION,
    HIDDEN_LIMIT,
    INDEX_SCALE,
    KNOT_SPACING,
    KNOTS,
    MEAN_LIMIT,
    SYMBOL_LIMIT,
    WEIGHT_FRACTION,
)
from sprdiff.interrupt import checkpoint

LATENT_BOUND = (SYMBOL_LIMIT << FRACTION) + MEAN_LIMIT
"""Largest magnitude of a latent, in units of 1/256."""
CHUNK = 4096
"""How many positions are computed at once, which limits the scratch memory to some 40 MB for every size of
picture."""
MAX_RATIO = 16
_INDEX_SHIFT = WEIGHT_FRACTION + FRACTION - (INDEX_SCALE.bit_length() - 1)
"""Bits by which the sums of the last layer are shifted to give table indices."""
MAX_OUTPUTS = 4096
"""Outputs of one layer; they are computed for `CHUNK` positions at once."""
MAX_FEATURES = 512
"""Features of the hyper-latent; they are kept for every position of y."""

Arrays = Mapping[str, NDArray[Any]]
Floats = NDArray[np.float64]
Ints = NDArray[np.int32]
Index = NDArray[np.int64]
Run = tuple[int, int, int]
"""Channels `start` to `stop` at an offset 0-8 of the 3x3 neighbourhood, in raster order: (offset, start,
stop)."""


def level_weights(level: int) -> Floats:
    """Return [9] integers with 8 fraction bits: the weights of the knots 0, 32 .. 256 in linear
    interpolation."""
    unit = 2**FRACTION // KNOT_SPACING
    distances = (abs(level - KNOT_SPACING * knot) for knot in range(KNOTS))
    return np.array([max(0, KNOT_SPACING - distance) * unit for distance in distances], np.float64)


def fetch(arrays: Arrays, name: str, dtype: type[np.generic], shape: tuple[int | None, ...]) -> NDArray[Any]:
    """Return a named array after checking it; None in `shape` stands for any size.

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
        """Return ``clip((W v + b + 2^11) >> 12, 0, 16383)``: the activation of a hidden layer, [n, out]."""
        acc = v @ self.weight
        acc += self.bias if bias is None else bias
        return shift_clip(acc, WEIGHT_FRACTION, 0, HIDDEN_LIMIT)


def shift_clip(acc: Floats, bits: int, low: int, high: int) -> Floats:
    """Return ``clip((acc + 2^(bits-1)) >> bits, low, high)`` in place; the scaling by a power of two is
    exact."""
    acc += 2.0 ** (bits - 1)
    acc *= 2.0**-bits
    np.floor(acc, out=acc)
    return np.clip(acc, low, high, out=acc)


def chunks(count: int) -> Iterator[slice]:
    """Yield slices of at most `CHUNK` positions; work can be interrupted before each."""
    for start in range(0, count, CHUNK):
        checkpoint()
        yield slice(start, min(start + CHUNK, count))


class Grid:
    """A latent on its grid with a border of zeros, int32 [(rows + 2b) * (columns + 2b), channels]; b is the
    largest distance of neighbours."""

    def __init__(self, rows: int, columns: int, channels: int, border: int = 1) -> None:
        self.rows, self.columns, self.stride, self.border = rows, columns, columns + 2 * border, border
        self.values: Ints = np.zeros(((rows + 2 * border) * self.stride, channels), np.int32)

    def inside(self, positions: Index) -> Index:
        """Return where raster positions of the grid lie in `values`."""
        row, column = np.divmod(positions, self.columns)
        return (row + self.border) * self.stride + column + self.border

    def gather(self, out: Floats, centres: Index, runs: Iterable[Run], distance: int = 1) -> int:
        """Write the runs of channels around `centres` to `out`, one beside the other; return how many values
        were written. Neighbours are `distance` rows and columns away."""
        end = 0
        for offset, start, stop in runs:
            near = centres + distance * ((offset // 3 - 1) * self.stride + offset % 3 - 1)
            begin, end = end, end + stop - start
            out[:, begin:end] = self.values[near, start:stop]
        return end

    def planes(self) -> Ints:
        """Return [channels, rows, columns], contiguous, without the border."""
        b = self.border
        cube = self.values.reshape(self.rows + 2 * b, self.stride, -1)[b:-b, b:-b]
        return np.ascontiguousarray(cube.transpose(2, 0, 1))


def context_features(arrays: Arrays) -> int:
    """Return how many features of the hyper-latent the context networks take: all inputs of the first but the
    level weights."""
    features = fetch(arrays, "context.0.0.weight", np.int16, (None, None)).shape[1] - KNOTS
    if not 1 <= features <= MAX_FEATURES:
        raise WeightsError(
            f"context.0.0 takes {features} features of the hyper-latent, not 1 to {MAX_FEATURES}"
        )
    return int(features)


class HyperSynthesis:
    """The network from z_hat to h: features of the hyper-latent, `features` channels at every position of the
    y grid.

    Attributes:
        ratio: positions of y along one side of a position of z.
    """

    def __init__(self, arrays: Arrays, z_channels: int) -> None:
        self.z_channels = z_channels
        bound = np.repeat([float(LATENT_BOUND), 256.0], [9 * z_channels, KNOTS])
        self.first = Layer(arrays, "hyper.0", bound)
        self.second = Layer(arrays, "hyper.1", np.full(self.first.outputs, float(HIDDEN_LIMIT)))
        self.features = context_features(arrays)
        self.ratio = math.isqrt(self.second.outputs // self.features)
        if not 1 <= self.ratio <= MAX_RATIO or self.second.outputs != self.ratio**2 * self.features:
            raise WeightsError(
                f"hyper.1 must have {self.features} outputs (what context.0.0 takes) times a square"
            )

    def __call__(self, z_hat: Grid, level: int, shape: tuple[int, int]) -> NDArray[np.int16]:
        """Return h, int16 [rows * columns of the y grid, features], with values 0 .. 16383."""
        rows, columns = shape
        ratio = self.ratio
        h = np.empty((ratio * z_hat.rows, ratio * z_hat.columns, self.features), np.int16)
        taps = 9 * self.z_channels
        around = [(offset, 0, self.z_channels) for offset in range(9)]
        bias = self.first.bias + level_weights(level) @ self.first.weight[taps:]
        for part in chunks(z_hat.rows * z_hat.columns):
            positions = np.arange(part.start, part.stop)
            v = np.empty((positions.size, taps))
            z_hat.gather(v, z_hat.inside(positions), around)
            acc = v @ self.first.weight[:taps]
            acc += bias
            out = self.second.hidden(shift_clip(acc, WEIGHT_FRACTION, 0, HIDDEN_LIMIT))
            row, column = np.divmod(positions, z_hat.columns)
            for block in range(ratio**2):
                i, j = divmod(block, ratio)
                h[ratio * row + i, ratio * column + j] = out[
                    :, block * self.features : (block + 1) * self.features
                ]
        return h[:rows, :columns].reshape(rows * columns, self.features)


@dataclass(frozen=True)
class Step:
    """One coding step.

    Attributes:
        number: the number of the pass whose positions it codes.
        distance: rows and columns between neighbours.
        channels: the channel group.
        depth: how many channels of the neighbourhood its network takes: n in the specification.
        known: the runs of inputs that may be decoded already at some position; all others are zero by
            definition.
    """

    number: int
    distance: int
    channels: slice
    depth: int
    known: tuple[Run, ...]


class ContextStep:
    """The network of one coding step: means and tables of a channel group at the positions of a pass.

    The inputs that are zero by definition (values not decoded yet) are left out of the product, and the level
    weights, the same at every position, are folded into the bias: the same integers with a third less work.
    """

    def __init__(self, arrays: Arrays, name: str, step: Step, sizes: tuple[int, int]) -> None:
        """Load and check the layers `name`.0 to `name`.2.

        Args:
            sizes: features of h, number of tables.
        """
        group, depth = step.channels.stop - step.channels.start, step.depth
        self._group, self._known, self._distance = group, step.known, step.distance
        features, self._tables = sizes
        bound = np.repeat([float(LATENT_BOUND), float(HIDDEN_LIMIT), 256.0], [9 * depth, features, KNOTS])
        self._first = Layer(arrays, f"{name}.0", bound)
        self._second = Layer(arrays, f"{name}.1", np.full(self._first.outputs, float(HIDDEN_LIMIT)))
        self._last = Layer(arrays, f"{name}.2", np.full(self._second.outputs, float(HIDDEN_LIMIT)), 2 * group)
        rows = [offset * depth + np.arange(start, stop) for offset, start, stop in step.known]
        rows.append(9 * depth + np.arange(features))
        self._level_weight = self._first.weight[-KNOTS:].copy()
        self._first.weight = np.ascontiguousarray(self._first.weight[np.concatenate(rows)])

    def __call__(
        self, y_hat: Grid, h: NDArray[np.int16], positions: Index, level: int
    ) -> tuple[Ints, NDArray[np.uint8]]:
        """Return the means, int32 with 8 fraction bits, and the table indices, uint8, both [positions,
        group]."""
        size = self._group
        mu = np.empty((positions.size, size), np.int32)
        index = np.empty((positions.size, size), np.uint8)
        bias = self._first.bias + level_weights(level) @ self._level_weight
        for part in chunks(positions.size):
            v = self._inputs(y_hat, h, positions[part])
            acc = self._second.hidden(self._first.hidden(v, bias)) @ self._last.weight
            acc += self._last.bias
            mu[part] = shift_clip(acc[:, :size], WEIGHT_FRACTION, -MEAN_LIMIT, MEAN_LIMIT)
            index[part] = shift_clip(acc[:, size:], _INDEX_SHIFT, 0, self._tables - 1)
        return mu, index

    def _inputs(self, y_hat: Grid, h: NDArray[np.int16], positions: Index) -> Floats:
        v = np.empty((positions.size, self._first.weight.shape[0]))
        used = y_hat.gather(v, y_hat.inside(positions), self._known, self._distance)
        v[:, used:] = h[positions]
        return v
