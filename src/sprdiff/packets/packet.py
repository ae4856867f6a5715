"""One packet: seven bytes of its own, then a piece of a file.

    byte 0-1   version (4 bits, =1) | stream id (12 bits)
    byte 2     number, from 0
    byte 3     data packets, 1 .. 255
    byte 4     parity packets, 0 .. 254; both together 255 at most
    byte 5-6   CRC-16/IBM-3740 over bytes 0-4 and the piece, big-endian
    rest       the piece, at least one byte

The normative text is ``docs/packets.md``.
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass

VERSION = 1
OVERHEAD = 7
MOST = 255
"""The largest number of packets of one stream, data and parity together."""
_FIELDS = 5


@dataclass(frozen=True)
class Packet:
    """The contents of a packet.

    Attributes:
        stream: the id of the file, 12 bits.
        number: less than `data` for a data packet, and from there on for a parity packet.
        data, parity: how many of each the stream has.
        piece: a piece of the file or of the parity, at least one byte.
    """

    stream: int
    number: int
    data: int
    parity: int
    piece: bytes

    @property
    def name(self) -> str:
        """The stream id as people read it: three hex digits."""
        return f"{self.stream:03x}"

    def pack(self) -> bytes:
        """Return the bytes of the packet."""
        fields = (VERSION << 12 | self.stream).to_bytes(2, "big") + bytes(
            (self.number, self.data, self.parity)
        )
        return fields + _crc(fields, self.piece).to_bytes(2, "big") + self.piece


def parse_packet(raw: bytes) -> Packet | None:
    """Read a packet; return None if it is damaged or something else."""
    if len(raw) <= OVERHEAD or raw[0] >> 4 != VERSION:
        return None
    fields, piece = raw[:_FIELDS], bytes(raw[OVERHEAD:])
    if _crc(fields, piece) != int.from_bytes(raw[_FIELDS:OVERHEAD], "big"):
        return None
    number, data, parity = fields[2:]
    if data < 1 or data + parity > MOST or number >= data + parity:
        return None
    return Packet(int.from_bytes(raw[:2], "big") & 0xFFF, number, data, parity, piece)


def _crc(fields: bytes, piece: bytes) -> int:
    return binascii.crc_hqx(piece, binascii.crc_hqx(fields, 0xFFFF))
