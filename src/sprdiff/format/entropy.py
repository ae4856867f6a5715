"""Exact coding of the latents y and z: quantisation, prediction and range coding, in one loop for both
directions.

    y, z --gain--> scaled --quantise--> q --range coder--> stream --> q --> y_hat, the same everywhere

The stream contains z, then y in steps, each of one channel group at the positions of one pass (`schedule`).
Every step predicts a mean and a table for each symbol from what is decoded already. `docs/bitstream.md` is
the normative text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sprdiff.errors import WeightsError
from sprdiff.format.constants import FRACTION, GAIN_FRACTION, LEVELS, MEAN_LIMIT
from sprdiff.format.container import MAX_CHANNELS
from sprdiff.format.intnet import Arrays, ContextStep, Floats, Grid, HyperSynthesis, Index, Ints, fetch
from sprdiff.format.rangecoder import (
    SymbolCoder,
    SymbolCounter,
    SymbolDecoder,
    SymbolEncoder,
    SymbolPrefixDecoder,
)
from sprdiff.format.schedule import Schedule
from sprdiff.format.tables import Tables
from sprdiff.interrupt import checkpoint

T = TypeVar("T", bound=np.generic)

GAIN_ONE = 1 << GAIN_FRACTION


@dataclass(frozen=True)
class Exact:
    """What every machine knows about a picture, identical to the bit: the input of the networks after the
    exactness line.

    Attributes:
        y_hat: int32 [Cy, yh, yw], the decoded latent with 8 fraction bits, still multiplied by the gain.
        mu: int32 [Cy, yh, yw], the mean with which each value was coded, in the same unit.
        h: int16 [F, yh, yw], features of the hyper-latent with 8 fraction bits, from 0 to 16383.
    """

    y_hat: Ints
    mu: Ints
    h: NDArray[np.int16]


@dataclass(frozen=True)
class Encoded(Exact):
    """The result of `EntropyModel.encode`.

    Attributes:
        stream: the range-coded bytes.
        bits: the cost of all symbols by the integer tables, escapes included. The stream is longer by at most
            one byte and the coder's rounding (less than 0.05 %).
    """

    stream: bytes
    bits: float


@dataclass(frozen=True)
class LevelTables:
    """The parameters of `EntropyModel` at one level, by channel, float64.

    Attributes:
        y_gain, z_gain: the factors on y and z.
        z_mean: the predicted value of scaled z.
    """

    y_gain: Floats
    z_gain: Floats
    z_mean: Floats


@dataclass(frozen=True)
class Beginning(Exact):
    """The latents of the beginning of a stream; values that it does not determine are at their means, step by
    step.

    Attributes:
        known: how many symbols of z and y every file with this beginning has.
        symbols: how many symbols there are in all.
    """

    known: int
    symbols: int


@dataclass(frozen=True)
class _Latents:
    """The encoder's input: scaled z and y, float64 [positions, channels]."""

    z: Floats
    y: Floats

    def part(self, positions: Index, channels: slice) -> Floats:
        return self.y[positions, channels]


class EntropyModel:
    """The exact part of one set of weights.

    Attributes:
        stride: pixels of the coded picture per position of y, along one side.
        y_channels, z_channels: Cy and Cz.
        ratio: r, the positions of y along one side of a position of z.
    """

    def __init__(self, arrays: Arrays) -> None:
        """Check and prepare the arrays of ``entropy.npz`` (names and shapes in ``docs/bitstream.md``).

        Raises:
            WeightsError: an array is missing, has a wrong shape or dtype, is out of range, or is not exact in
                float64.
        """
        self.tables = Tables(
            fetch(arrays, "tables.radius", np.int32, (None,)),
            fetch(arrays, "tables.counts", np.uint32, (None,)),
        )
        self._schedule = Schedule(arrays)
        self.stride, self.y_channels = self._schedule.stride, self._schedule.channels
        self._gain_y = fetch(arrays, "gain.y", np.uint32, (LEVELS, self.y_channels))
        self._gain_z = fetch(arrays, "gain.z", np.uint32, (LEVELS, None))
        self.z_channels = int(self._gain_z.shape[1])
        self._z_mean = fetch(arrays, "z.mean", np.int32, (LEVELS, self.z_channels))
        self._z_index = fetch(arrays, "z.index", np.uint8, (LEVELS, self.z_channels))
        self._check_ranges()
        self._hyper = HyperSynthesis(arrays, self.z_channels)
        self.ratio = self._hyper.ratio
        sizes = (self._hyper.features, len(self.tables))
        self._networks = [
            ContextStep(arrays, f"context.{s}", step, sizes) for s, step in enumerate(self._schedule.steps)
        ]

    def _check_ranges(self) -> None:
        if self._gain_y.min() < 1 or self._gain_z.min() < 1:
            raise WeightsError("the gains must be at least 1")
        if self.z_channels > MAX_CHANNELS:
            raise WeightsError(f"z has {self.z_channels} channels, more than {MAX_CHANNELS}")
        if np.abs(self._z_mean.astype(np.int64)).max() > MEAN_LIMIT:
            raise WeightsError(f"z.mean must lie between -{MEAN_LIMIT} and {MEAN_LIMIT}")
        if self._z_index.max() >= len(self.tables):
            raise WeightsError("z.index names a table that is not there")

    def z_grid(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return (rows, columns) of the z grid of a y grid."""
        return -(-shape[0] // self.ratio), -(-shape[1] // self.ratio)

    def level_tables(self, level: int) -> LevelTables:
        """Return the parameters of a level, for a search that must count what is really coded."""
        _check_level(level)
        gains = self._gain_y[level] / GAIN_ONE, self._gain_z[level] / GAIN_ONE
        return LevelTables(*gains, self._z_mean[level] / 2**FRACTION)

    def encode(self, y: NDArray[np.float32], z: NDArray[np.float32], level: int) -> Encoded:
        """Quantise and code the latents.

        Args:
            y: float32 [Cy, yh, yw], not yet scaled.
            z: float32 [Cz, ceil(yh / r), ceil(yw / r)] (see `ratio`), not yet scaled. Values that would
                quantise beyond the symbol limit of 32767 are clamped to it; NaN becomes the mean.
            level: 0 .. 255.
        """
        coder = SymbolEncoder(self.tables)
        exact = self._quantise(coder, y, z, level)
        return Encoded(exact.y_hat, exact.mu, exact.h, coder.finish(), coder.bits)

    def count(
        self, counter: SymbolCounter, y: NDArray[np.float32], z: NDArray[np.float32], level: int
    ) -> None:
        """Count the symbols that `encode` would write for the same arguments, for fitting tables."""
        self._quantise(counter, y, z, level)

    def _quantise(
        self, coder: SymbolCoder, y: NDArray[np.float32], z: NDArray[np.float32], level: int
    ) -> Exact:
        _check_level(level)
        shape = (y.shape[1], y.shape[2])
        if y.shape[0] != self.y_channels or z.shape != (self.z_channels, *self.z_grid(shape)) or 0 in y.shape:
            raise ValueError(f"y {y.shape} and z {z.shape} are not latents of one picture for these weights")
        latents = _Latents(_scaled(z, self._gain_z[level]), _scaled(y, self._gain_y[level]))
        with np.errstate(invalid="ignore", over="ignore"):
            return self._walk(coder, shape, level, latents)

    def decode(self, stream: bytes, shape: tuple[int, int], level: int) -> Exact:
        """Decode y_hat, and what else is known exactly with it, from the stream of a file.

        Time and memory are limited by `shape` and the length of `stream`, whatever its bytes are.

        Raises:
            BitstreamError: no encoder can have made this stream.
        """
        return self._read(SymbolDecoder(self.tables, stream), shape, level)

    def decode_beginning(self, stream: bytes, shape: tuple[int, int], level: int) -> Beginning:
        """Decode what the first bytes of a stream determine; there may be none. Arguments and limits are
        those of `decode`.

        Raises:
            BitstreamError: no encoder can have made a stream that begins like this.
        """
        coder = SymbolPrefixDecoder(self.tables, stream)
        exact = self._read(coder, shape, level)
        rows, columns = self.z_grid(shape)
        symbols = self.y_channels * shape[0] * shape[1] + self.z_channels * rows * columns
        return Beginning(exact.y_hat, exact.mu, exact.h, coder.known, symbols)

    def _read(self, coder: SymbolDecoder, shape: tuple[int, int], level: int) -> Exact:
        _check_level(level)
        if min(shape) < 1:
            raise ValueError(f"the grid {shape} has no positions")
        return self._walk(coder, shape, level, None)

    def dequantise(self, values: Ints, level: int) -> NDArray[np.float32]:
        """Return y_hat or mu as the networks after the exactness line take it: float32 [Cy, yh, yw],
        divided by the gain."""
        _check_level(level)
        step = (GAIN_ONE / 2**FRACTION) / self._gain_y[level].astype(np.float64)
        unscaled: NDArray[np.float32] = values.astype(np.float32) * step.astype(np.float32)[:, None, None]
        return unscaled

    def _walk(
        self, coder: SymbolCoder, shape: tuple[int, int], level: int, latents: _Latents | None
    ) -> Exact:
        """Write or read all symbols in the order of the stream."""
        h = self._hyper(self._code_z(coder, self.z_grid(shape), level, latents), level, shape)
        y_hat = Grid(*shape, self.y_channels, self._schedule.border)
        means = np.empty((shape[0] * shape[1], self.y_channels), np.int32)
        passes = self._schedule.positions(shape)
        for step, network in zip(self._schedule.steps, self._networks, strict=True):
            checkpoint()
            positions = passes[step.number]
            mu, index = network(y_hat, h, positions, level)
            scaled = None if latents is None else latents.part(positions, step.channels)
            q = coder.code(index, mu, scaled)
            y_hat.values[y_hat.inside(positions), step.channels] = (q << FRACTION) + mu
            means[positions, step.channels] = mu
        return Exact(y_hat.planes(), _planes(means, shape), _planes(h, shape))

    def _code_z(
        self, coder: SymbolCoder, shape: tuple[int, int], level: int, latents: _Latents | None
    ) -> Grid:
        z_hat = Grid(*shape, self.z_channels)
        positions = np.arange(shape[0] * shape[1])
        mu = np.broadcast_to(self._z_mean[level], (positions.size, self.z_channels))
        index = np.broadcast_to(self._z_index[level], mu.shape)
        q = coder.code(index, mu, None if latents is None else latents.z)
        z_hat.values[z_hat.inside(positions)] = (q << FRACTION) + mu
        return z_hat


def _check_level(level: int) -> None:
    if not 0 <= level < LEVELS:
        raise ValueError(f"the level {level} is not between 0 and {LEVELS - 1}")


def _planes(values: NDArray[T], shape: tuple[int, int]) -> NDArray[T]:
    """Turn [positions, channels] into [channels, rows, columns], contiguous."""
    return np.ascontiguousarray(values.T).reshape(-1, *shape)


def _scaled(latent: NDArray[np.float32], gain: NDArray[np.uint32]) -> Floats:
    """Turn [C, rows, columns] into float64 [positions, C], multiplied by the gain."""
    flat = latent.reshape(latent.shape[0], -1).T.astype(np.float64)
    flat *= gain / GAIN_ONE
    return flat
