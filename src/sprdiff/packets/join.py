"""Packets in any order become files; some may be lost, damaged, or of other streams."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ..errors import BitstreamError, PacketError
from ..format.container import parse_file
from .erasure import recovered
from .packet import Packet, parse_packet
from .split import stream_id
from .text import from_line


@dataclass(frozen=True)
class Received:
    """The result of one stream.

    Attributes:
        id: the id of the stream, three hex digits.
        data: the bytes of the whole file, or of its longest beginning; empty if the first packet is lost.
        whole: whether the file is complete and has the hash that begins with the id.
        missing: the numbers of all packets that did not arrive.
        needed: how many of these, whichever, would complete the file.
        packets: how many data and parity packets the stream has.
    """

    id: str
    data: bytes
    whole: bool
    missing: tuple[int, ...]
    needed: int
    packets: tuple[int, int]


@dataclass
class _Stream:
    """The packets of one id, as long as they agree."""

    first: Packet
    pieces: dict[int, bytes] = field(default_factory=dict)
    agree: bool = True

    def add(self, packet: Packet) -> None:
        counts = (packet.data, packet.parity) == (self.first.data, self.first.parity)
        self.agree &= counts and self.pieces.setdefault(packet.number, packet.piece) == packet.piece


def from_packets(packets: Iterable[bytes | str]) -> list[Received]:
    """Return the files that packets contain, one entry for each stream, in the order of their first packets.

    Duplicates, damaged packets and other data are ignored.

    Args:
        packets: bytes as they arrived over the link, or lines of text.

    Raises:
        PacketError: packets of one id contradict each other. The message names the ids, and the error's
            attribute ``received`` holds all other streams.
    """
    streams: dict[str, _Stream] = {}
    for raw in packets:
        packet = from_line(raw) if isinstance(raw, str) else parse_packet(raw)
        if packet is not None:
            streams.setdefault(packet.name, _Stream(packet)).add(packet)
    received = {name: _joined(stream) for name, stream in streams.items()}
    good = [found for found in received.values() if found is not None]
    if bad := [name for name, found in received.items() if found is None]:
        raise PacketError(f"packets of stream {', '.join(bad)} contradict each other", good)
    return good


def _joined(stream: _Stream) -> Received | None:
    """Join the packets of a stream; return None if they do not belong together."""
    data, parity = stream.first.data, stream.first.parity
    if not stream.agree or not _fitting(stream.pieces, data):
        return None
    pieces = stream.pieces
    missing = tuple(number for number in range(data + parity) if number not in pieces)
    needed = max(0, data - len(pieces))
    if needed:
        reach = next(number for number in range(data) if number not in pieces)
        beginning = b"".join(pieces[number] for number in range(reach))
        return Received(stream.first.name, beginning, False, missing, needed, (data, parity))
    file = _whole(pieces, data, parity)
    if file is None or stream_id(file) != stream.first.stream:
        return None
    return Received(stream.first.name, file, True, missing, 0, (data, parity))


def _fitting(pieces: dict[int, bytes], data: int) -> bool:
    """Whether the pieces have one length; only the last one of data may be shorter."""
    size = max(map(len, pieces.values()))
    return all(len(piece) == size or number == data - 1 for number, piece in pieces.items())


def _whole(pieces: dict[int, bytes], data: int, parity: int) -> bytes | None:
    if all(number in pieces for number in range(data)):
        return b"".join(pieces[number] for number in range(data))
    found = recovered(pieces, data, parity)
    if found is None:
        return None
    return _stripped(b"".join(found[:-1]) + pieces.get(data - 1, found[-1]), filled=data - 1 not in pieces)


def _stripped(file: bytes, *, filled: bool) -> bytes | None:
    """Remove the zeros with which the last piece was padded; zeros of the header stay."""
    try:
        stream = parse_file(file).stream
    except BitstreamError:
        return None
    return file[: len(file) - len(stream)] + stream.rstrip(b"\0") if filled else file
