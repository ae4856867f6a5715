"""Parity packets and how they replace lost ones: Reed-Solomon over bytes (GF(2^8), 0x11D, roots 2^0 ..
2^(K-1)).

Byte j of all packets of a stream together is one codeword: first those of the data packets, then of the
parity packets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reedsolo import ReedSolomonError, RSCodec


def parity_pieces(pieces: Sequence[bytes], parity: int) -> list[bytes]:
    """Return `parity` pieces as long as the longest of the given ones; shorter ones count as padded with
    zeros."""
    if not parity:
        return []
    size = max(map(len, pieces))
    padded = [piece.ljust(size, b"\0") for piece in pieces]
    coder = RSCodec(parity, nsize=len(pieces) + parity)
    columns = [coder.encode(bytes(column))[len(pieces) :] for column in zip(*padded, strict=True)]
    return [bytes(row) for row in zip(*columns, strict=True)]


def recovered(pieces: Mapping[int, bytes], data: int, parity: int) -> list[bytes] | None:
    """Return all data pieces, padded with zeros to one length, from any `data` pieces of a stream.

    Args:
        pieces: at least `data` pieces by their numbers.

    Returns:
        The pieces; None if the given ones are no codeword, because they do not belong together.
    """
    size = max(map(len, pieces.values()))
    lost = [number for number in range(data + parity) if number not in pieces]
    padded = [pieces.get(number, b"").ljust(size, b"\0") for number in range(data + parity)]
    coder = RSCodec(parity, nsize=data + parity)
    try:
        columns = [bytes(coder.decode(bytes(c), erase_pos=lost)[0]) for c in zip(*padded, strict=True)]
    except ReedSolomonError:
        return None
    return [bytes(row) for row in zip(*columns, strict=True)]
