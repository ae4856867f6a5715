"""The range coder of ``docs/bitstream.md``, section 6, by constriction. Without constriction, `pure` does
the same."""

from __future__ import annotations

from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from sprdiff.format.intnet import Ints
from sprdiff.format.pure import no_symbol, shortest


def categorical(counts: NDArray[np.integer[Any]]) -> Any:
    """Return constriction's model of a table.

    `Categorical` gives every symbol one count and shares out the rest in proportion to the weights;
    integer weights (counts - 1) that sum to exactly that rest come out unchanged (tested).
    """
    return constriction.stream.model.Categorical(counts - 1.0, perfect=False)


class RangeEncoder:
    """An encoder that narrows an interval symbol by symbol."""

    model = staticmethod(categorical)

    def __init__(self) -> None:
        self._coder = constriction.stream.queue.RangeEncoder()

    def encode(self, symbols: Ints, model: Any) -> None:
        """Code symbols of one table."""
        self._coder.encode(symbols, model)

    def finish(self) -> bytes:
        """Return the shortest stream that decodes to the symbols.

        constriction seals with whole words. Its state gives the interval [low, low + range) itself, as a
        number of all words written and 64 bits more. A sealed stream lies inside it, which settles a carry.
        """
        words, (low, span) = self._coder.pos()
        sealed = self._coder.get_compressed()
        size = 4 * words + 8
        point = int.from_bytes(sealed.astype(">u4").tobytes().ljust(size, b"\0"), "big")
        low = point - (point - int(low)) % 2**64
        return shortest(low, low + int(span), size)


class RangeDecoder:
    """A decoder that finds the symbols of a stream; after the end of the stream it reads zeros."""

    model = staticmethod(categorical)

    def __init__(self, stream: bytes) -> None:
        padded = stream + bytes(-len(stream) % 4)
        self._coder = constriction.stream.queue.RangeDecoder(np.frombuffer(padded, ">u4").astype(np.uint32))

    def decode(self, model: Any, count: int) -> Ints:
        """Return the next symbols, all of one table.

        Raises:
            BitstreamError: no encoder can have made the stream.
        """
        try:
            symbols: Ints = self._coder.decode(model, count)
        except AssertionError as error:  # constriction raises this where no encoder can have made the stream
            raise no_symbol() from error
        return symbols
