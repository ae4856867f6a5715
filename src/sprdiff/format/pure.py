"""The range coder of ``docs/bitstream.md``, section 6, in plain Python: for machines without constriction,
and for beginnings of files, which constriction cannot decode.

The encoder gives the same bytes as that of `native`, the decoder the same symbols; both take a microsecond a
symbol.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sprdiff.errors import BitstreamError
from sprdiff.format.constants import PRECISION
from sprdiff.format.intnet import Ints

Model = list[int]
"""A table as sums of its counts: that of all symbols before symbol k at index k, 2^24 at the end."""

_TOTAL = 1 << PRECISION
_WORD = 32
_SMALLEST = 1 << _WORD
_WORD_MASK = _SMALLEST - 1
_STATE = 64
_WIDEST = (1 << _STATE) - 1


def cumulative(counts: NDArray[np.integer[Any]]) -> Model:
    """Return the model of a table's counts."""
    return [0, *np.cumsum(counts, dtype=np.int64).tolist()]


class RangeEncoder:
    """An encoder that narrows an interval symbol by symbol; the interval's lower end grows by words, and a
    word may hold a carry."""

    model = staticmethod(cumulative)

    def __init__(self) -> None:
        self._words: list[int] = []
        self._low, self._width = 0, _WIDEST

    def encode(self, symbols: Ints, model: Model) -> None:
        """Code symbols of one table."""
        low, width = self._low, self._width
        for symbol in symbols.tolist():
            scale = width >> PRECISION
            before = model[symbol]
            low += scale * before
            width = scale * (model[symbol + 1] - before)
            if width < _SMALLEST:
                self._words.append(low >> _WORD)
                low = (low & _WORD_MASK) << _WORD
                width <<= _WORD
        self._low, self._width = low, width

    def finish(self) -> bytes:
        """Return the shortest stream that decodes to the symbols."""
        words, carry = bytearray(), 0
        for word in reversed(self._words):  # last word first, so that each carry reaches the word before
            carry, word = divmod(word + carry, _SMALLEST)
            words += word.to_bytes(4, "little")
        words.reverse()
        low = (int.from_bytes(words, "big") << _STATE) + self._low
        return shortest(low, low + self._width, len(words) + _STATE // 8)


class RangeDecoder:
    """A decoder that finds the symbols of a stream; after the end of the stream it reads zeros."""

    model = staticmethod(cumulative)

    def __init__(self, stream: bytes) -> None:
        self._words = words_of(stream, 0)
        self._at = 2
        self._width = _WIDEST
        self._offset = self._words[0] << _WORD | self._words[1]

    def decode(self, model: Model, count: int) -> Ints:
        """Return the next symbols, all of one table.

        Raises:
            BitstreamError: no encoder can have made the stream.
        """
        offset, width, at, words = self._offset, self._width, self._at, self._words
        out = []
        for _ in range(count):
            scale = width >> PRECISION
            place = offset // scale
            if place >= _TOTAL:
                raise no_symbol()
            symbol = bisect_right(model, place) - 1
            before = model[symbol]
            offset -= scale * before
            width = scale * (model[symbol + 1] - before)
            if width < _SMALLEST:
                offset = offset << _WORD | (words[at] if at < len(words) else 0)
                width <<= _WORD
                at += 1
            out.append(symbol)
        self._offset, self._width, self._at = offset, width, at
        return np.array(out, np.int32)


class PrefixDecoder:
    """A decoder that finds the symbols which the beginning of a stream determines.

    It decodes with two tails at once, one of zeros and one of ones, and ends at the first symbol in which
    they differ. Every file with this beginning lies between the two. No file lies above the last symbol of a
    table, so the upper tail does not either.
    """

    model = staticmethod(cumulative)

    def __init__(self, stream: bytes) -> None:
        self._low_words, self._high_words = words_of(stream, 0), words_of(stream, 0xFF)
        self._at = 2
        self._width = _WIDEST
        self._low = self._low_words[0] << _WORD | self._low_words[1]
        self._high = self._high_words[0] << _WORD | self._high_words[1]

    def decode(self, model: Model, count: int) -> Ints:
        """Return the next symbols, all of one table: fewer than `count` where the beginning ends, and then no
        more.

        Raises:
            BitstreamError: no encoder can have made a stream with this beginning.
        """
        out: list[int] = []
        while len(out) < count and self._width:
            scale = self._width >> PRECISION
            if self._low >= scale << PRECISION:
                raise no_symbol()
            high = min(self._high, (scale << PRECISION) - 1)
            symbol = bisect_right(model, self._low // scale) - 1
            before, after = scale * model[symbol], scale * model[symbol + 1]
            if high >= after:
                self._width = 0  # it has ended
                break
            self._low, self._high, self._width = self._low - before, high - before, after - before
            if self._width < _SMALLEST:
                self._shift()
            out.append(symbol)
        return np.array(out, np.int32)

    def _shift(self) -> None:
        inside = self._at < len(self._low_words)
        self._low = self._low << _WORD | (self._low_words[self._at] if inside else 0)
        self._high = self._high << _WORD | (self._high_words[self._at] if inside else _WORD_MASK)
        self._width <<= _WORD
        self._at += 1


def words_of(stream: bytes, tail: int) -> list[int]:
    """Return the 32-bit words of a stream, at least two; the last one is filled up with a byte."""
    padded = stream + bytes([tail]) * max(-len(stream) % 4, 8 - len(stream))
    words: list[int] = np.frombuffer(padded, ">u4").tolist()
    return words


def no_symbol() -> BitstreamError:
    """Return the error for a stream that points above every symbol."""
    return BitstreamError("the stream is damaged: it holds a code that no symbol has")


def shortest(low: int, high: int, size: int) -> bytes:
    """Return the number from `low` to below `high`, of `size` bytes, that ends in the most zero bytes; those
    are left out.

    The two are less than 2^64 apart.
    """
    cut = max(n for n in range(9) if _round_up(low, n) < high)
    return (_round_up(low, cut) >> 8 * cut).to_bytes(size - cut, "big").rstrip(b"\0")


def _round_up(value: int, count: int) -> int:
    """Return the next number whose last `count` bytes are zero."""
    return -(-value >> 8 * count) << 8 * count
