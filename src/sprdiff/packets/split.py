"""A file becomes packets."""

from __future__ import annotations

import hashlib

from ..errors import PacketError
from ..format.container import parse_file
from .erasure import parity_pieces
from .packet import MOST, OVERHEAD, Packet


def to_packets(data: bytes, *, payload: int, parity: int = 0) -> list[bytes]:
    """Return the packets of a file, with numbers 0 .. n - 1: first its pieces in order, then parity.

    Pieces have nearly equal lengths, so that no packet is longer than necessary.

    Args:
        data: the bytes of an ``.sprd`` file.
        payload: the largest size of a whole packet in bytes, of which 7 are its header.
        parity: how many packets are added; any so many of all packets may be lost.

    Raises:
        BitstreamError: it does not begin with an ``.sprd`` header.
        PacketError: there would be more than 255 packets (the message states the payload that would do), the
            payload has no room for data, or the file ends in zeros that packets cannot keep.
    """
    stream = parse_file(data).stream
    if stream.endswith(b"\0"):
        raise PacketError("the file's stream ends with zero bytes, which packets do not keep: encode it anew")
    count = data_packets(len(data), payload, parity)
    size = -(-len(data) // count)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    name = stream_id(data)
    every = [*pieces, *parity_pieces(pieces, parity)]
    return [Packet(name, number, count, parity, piece).pack() for number, piece in enumerate(every)]


def data_packets(size: int, payload: int, parity: int = 0) -> int:
    """Return how many data packets a file of `size` bytes needs.

    Raises:
        PacketError: there would be more than 255 packets, or the payload has no room for data.
    """
    if not 0 <= parity < MOST:
        raise PacketError(f"there can be 0 to {MOST - 1} parity packets, not {parity}")
    if payload <= OVERHEAD:
        raise PacketError(f"a payload of {payload} has no room: {OVERHEAD} bytes of a packet are its own")
    count = -(-size // (payload - OVERHEAD))
    if count + parity > MOST:
        enough = -(-size // (MOST - parity)) + OVERHEAD
        raise PacketError(
            f"{size} bytes would take {count + parity} packets of {payload} bytes, more than {MOST}: "
            f"a payload of {enough} would do"
        )
    return count


def stream_id(data: bytes) -> int:
    """Return the first 12 bits of a file's SHA-256."""
    return int.from_bytes(hashlib.sha256(data).digest()[:2], "big") >> 4
