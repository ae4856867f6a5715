"""Symbols to bytes and back: a range coder, fed run by run.

A block of symbols is sorted by table, the widest first, so that the beginning of a file holds the largest
symbols (stable: raster order inside a table). Each run of one table is one call of the coder, then come the
escape payloads of the run. `SymbolEncoder` and `SymbolDecoder` share that loop.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sprdiff.errors import BitstreamError
from sprdiff.format import pure
from sprdiff.format.constants import FRACTION, SYMBOL_LIMIT
from sprdiff.format.intnet import Floats, Ints
from sprdiff.format.tables import TOTAL, Tables

_FAIR = np.full(2, TOTAL // 2, np.uint32)
"""The table of a bit."""
_MOST_ZEROS = SYMBOL_LIMIT.bit_length() - 1
"""The number of leading zeros that an Exp-Golomb code may have; with more it would be a symbol beyond the
limit."""


@cache
def fastest() -> Any:
    """Return the module of the range coder to use: `native`, or `pure` where constriction is missing."""
    if importlib.util.find_spec("constriction") is None:
        return pure
    from sprdiff.format import native

    return native


class SymbolCoder(ABC):
    """A coder of blocks of symbols, in their order in the stream."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def code(self, index: NDArray[np.uint8], mu: Ints, scaled: Floats | None) -> Ints:
        """Code one block; return its symbols q, int32, in the shape of `index`.

        Args:
            index: table of each symbol.
            mu: mean of each value, 8 fraction bits.
            scaled: the values to quantise; None when decoding.
        """
        order = np.argsort(~index, axis=None, kind="stable")  # by table, descending: ~t is 255 - t
        counts = np.bincount(index.ravel(), minlength=len(self._tables)).tolist()
        q = self._symbols(mu, scaled).ravel()[order]
        start = 0
        for table in reversed(range(len(counts))):
            if counts[table]:
                end = start + counts[table]
                self._run(table, q[start:end])
                start = end
        out = np.empty_like(q)
        out[order] = q
        return out.reshape(index.shape)

    @abstractmethod
    def _symbols(self, mu: Ints, scaled: Floats | None) -> Ints:
        """Return the symbols to code, or room for those to be decoded."""

    @abstractmethod
    def _run(self, table: int, q: Ints) -> None:
        """Code symbols of one table: read them from `q`, or write them into it."""


class SymbolEncoder(SymbolCoder):
    """A coder that writes symbols. `bits` is their exact cost by the tables, escapes included."""

    def __init__(self, tables: Tables, module: Any = None) -> None:
        """Use the range coder of `module`, which is `native` or `pure`; None: the `fastest`."""
        super().__init__(tables)
        self._coder = (module or fastest()).RangeEncoder()
        self.bits = 0.0

    def _symbols(self, mu: Ints, scaled: Floats | None) -> Ints:
        assert scaled is not None
        return quantise(scaled, mu)

    def _run(self, table: int, q: Ints) -> None:
        radius = int(self._tables.radius[table])
        symbols = q + np.int32(radius)
        far = np.flatnonzero((symbols < 0) | (symbols > 2 * radius))
        symbols[far] = 2 * radius + 1
        self._coder.encode(symbols, self._tables.model(table, self._coder.model))
        self.bits += float(self._tables.cost[int(self._tables.start[table]) + symbols].sum())
        if far.size:
            payload = [bit for value in q[far].tolist() for bit in _escape_bits(value, radius)]
            self._coder.encode(np.array(payload, np.int32), self._coder.model(_FAIR))
            self.bits += len(payload)

    def finish(self) -> bytes:
        """Return the shortest stream that decodes to the symbols."""
        stream: bytes = self._coder.finish()
        return stream


class SymbolCounter(SymbolCoder):
    """A coder that writes nothing and counts: `histograms[t]` tells how often each symbol -R .. R and the
    escape came up."""

    def __init__(self, tables: Tables) -> None:
        super().__init__(tables)
        self.histograms = [np.zeros(2 * int(radius) + 2, np.int64) for radius in tables.radius]

    def _symbols(self, mu: Ints, scaled: Floats | None) -> Ints:
        assert scaled is not None
        return quantise(scaled, mu)

    def _run(self, table: int, q: Ints) -> None:
        radius = int(self._tables.radius[table])
        place = np.where(np.abs(q) > radius, 2 * radius + 1, q + radius)
        self.histograms[table] += np.bincount(place, minlength=2 * radius + 2)


class SymbolDecoder(SymbolCoder):
    """A coder that reads symbols; after the end of the stream it reads zeros."""

    def __init__(self, tables: Tables, stream: bytes, module: Any = None) -> None:
        """Use the range coder of `module`, which is `native` or `pure`; None: the `fastest`."""
        super().__init__(tables)
        self._coder = (module or fastest()).RangeDecoder(stream)
        self._fair = self._coder.model(_FAIR)

    def _symbols(self, mu: Ints, scaled: Floats | None) -> Ints:
        return np.zeros(mu.shape, np.int32)

    def _run(self, table: int, q: Ints) -> None:
        radius = int(self._tables.radius[table])
        q[:] = self._coder.decode(self._tables.model(table, self._coder.model), q.size)
        q -= radius
        for i in np.flatnonzero(q > radius).tolist():
            q[i] = self._escape(radius)

    def _escape(self, radius: int) -> int:
        negative = self._bit()
        zeros = 0
        while not self._bit():
            zeros += 1
            if zeros > _MOST_ZEROS:
                raise BitstreamError("the stream is damaged: an escaped symbol is beyond the limit")
        value = 1
        for _ in range(zeros):
            value = 2 * value + self._bit()
        size = value + radius
        if size > SYMBOL_LIMIT:
            raise BitstreamError("the stream is damaged: an escaped symbol is beyond the limit")
        return -size if negative else size

    def _bit(self) -> int:
        return int(self._coder.decode(self._fair, 1)[0])


class _Ended(Exception):  # noqa: N818
    """The beginning of a stream says no more."""


class SymbolPrefixDecoder(SymbolDecoder):
    """A coder that reads the beginning of a stream: the symbols that are certain, and 0 for all others.

    Attributes:
        known: how many symbols were certain; of an escaped one all bits must be.
    """

    def __init__(self, tables: Tables, stream: bytes) -> None:
        SymbolCoder.__init__(self, tables)
        self._coder = pure.PrefixDecoder(stream)
        self._fair = self._coder.model(_FAIR)
        self.known = 0

    def _run(self, table: int, q: Ints) -> None:
        radius = int(self._tables.radius[table])
        found = self._coder.decode(self._tables.model(table, self._coder.model), q.size)
        q[: found.size] = found - radius
        escaped = np.flatnonzero(q > radius).tolist()
        self.known += found.size - len(escaped)
        try:
            for i in escaped:
                q[i] = self._escape(radius)
                self.known += 1
        except _Ended:
            q[[place for place in escaped if place >= i]] = 0

    def _bit(self) -> int:
        bits = self._coder.decode(self._fair, 1)
        if not bits.size:
            raise _Ended
        return int(bits[0])


def quantise(scaled: Floats, mu: Ints) -> Ints:
    """Return ``floor(scaled - mu / 256 + 1/2)``, clamped to the symbol limit; NaN becomes 0."""
    residual = scaled - mu * 2.0**-FRACTION
    residual += 0.5
    np.floor(residual, out=residual)
    np.nan_to_num(residual, copy=False, nan=0.0)
    return np.clip(residual, -SYMBOL_LIMIT, SYMBOL_LIMIT, out=residual).astype(np.int32)


def _escape_bits(q: int, radius: int) -> list[int]:
    """Return the sign (1 = negative) and the Exp-Golomb code of order 0 of |q| - R - 1, highest bit first."""
    value = abs(q) - radius  # already the value plus one
    digits = [int(digit) for digit in f"{value:b}"]
    return [int(q < 0), *[0] * (len(digits) - 1), *digits]
