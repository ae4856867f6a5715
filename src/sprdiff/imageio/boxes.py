"""Files made of boxes (ISO 14496-12): what AVIF, HEIF, JPEG 2000 and JPEG XL say about their colours."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

_MAX_HEAD = 2**24
"""The largest box that describes a picture, in bytes; those of cameras have some thousands."""
_MAX_BOXES = 4096
_CONTAINERS = {b"iprp": 0, b"ipco": 0, b"jp2h": 0}


@dataclass
class Described:
    """The contents of the boxes.

    Attributes:
        codes: primaries and transfer curve as codes of CICP.
        profile: an ICC profile.
        depth: bits per sample; 0 if the boxes do not say.
        gain_map: whether there is a gain map for brighter displays.
    """

    codes: tuple[int, int] | None = None
    profile: bytes | None = None
    depth: int = 0
    gain_map: bool = False


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind, the start and the end of each box in a part of some bytes, until they end or are
    damaged."""
    end = len(data) if end is None else end
    for _ in range(_MAX_BOXES):
        if start + 8 > end:
            return
        size, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if size == 1 and start + 16 <= end:
            size, head = struct.unpack_from(">Q", data, start + 8)[0], 16
        stop = end if size == 0 else start + size
        if (size and size < head) or stop > end:
            return
        yield kind, start + head, stop
        start = stop


def top_box(stream: IO[bytes], wanted: bytes) -> bytes:
    """Return the contents of the first box of a kind at the top of a file; empty if it is missing or too
    large."""
    position = stream.seek(0)
    for _ in range(_MAX_BOXES):
        stream.seek(position)
        head = stream.read(16)
        if len(head) < 8:
            return b""
        size, kind = struct.unpack_from(">I4s", head)
        skip = 8
        if size == 1 and len(head) == 16:
            size, skip = struct.unpack_from(">Q", head, 8)[0], 16
        if kind == wanted:
            stream.seek(position + skip)
            return stream.read(min(size - skip, _MAX_HEAD)) if size else stream.read(_MAX_HEAD)
        if size < skip:
            return b""
        position += size
    return b""


def describe_heif(stream: IO[bytes]) -> Described:
    """Return what AVIF and HEIF say about their main picture."""
    meta = top_box(stream, b"meta")
    found = Described(gain_map=b"tmap" in meta or b"hdrgainmap" in meta)
    with suppress(struct.error, IndexError):  # a damaged box says nothing
        _read_meta(meta, found)
    return found


def _read_meta(meta: bytes, found: Described) -> None:
    parts = {kind: (start, end) for kind, start, end in boxes(meta, 4)}  # it begins with version and flags
    if b"iprp" not in parts:
        return
    inner = list(boxes(meta, *parts[b"iprp"]))
    properties = [box for kind, start, end in inner if kind == b"ipco" for box in boxes(meta, start, end)]
    main = None
    if b"pitm" in parts:
        start = parts[b"pitm"][0]
        main = struct.unpack_from(">I" if meta[start] else ">H", meta, start + 4)[0]
    uses = [number for kind, start, _ in inner if kind == b"ipma" for number in _used_by(meta, start, main)]
    for number in uses:
        if 0 < number <= len(properties):
            _read_property(meta, *properties[number - 1], found)


def _used_by(meta: bytes, start: int, item: int | None) -> list[int]:
    """Return the properties of an item, counted from 1; those of all items if it is None."""
    version, flags = meta[start], meta[start + 3]
    count, position, found = struct.unpack_from(">I", meta, start + 4)[0], start + 8, []
    for _ in range(min(count, _MAX_BOXES)):
        owner = struct.unpack_from(">I" if version else ">H", meta, position)[0]
        position += 4 if version else 2
        many = meta[position]
        position += 1
        for _ in range(many):
            if flags & 1:
                number = struct.unpack_from(">H", meta, position)[0] & 0x7FFF
            else:
                number = meta[position] & 0x7F
            position += 2 if flags & 1 else 1
            found += [number] if item in (None, owner) else []
    return found


def _read_property(meta: bytes, kind: bytes, start: int, end: int, found: Described) -> None:
    if kind == b"colr":
        read_colr(meta[start:end], found)
    elif kind == b"pixi" and meta[start + 4]:
        found.depth = max(meta[start + 5 : start + 5 + meta[start + 4]])
    elif kind == b"av1C" and not found.depth:
        found.depth = (12 if meta[start + 2] & 0x20 else 10) if meta[start + 2] & 0x40 else 8


def read_colr(body: bytes, found: Described) -> None:
    """Take over a box `colr` of HEIF; a profile takes precedence over codes."""
    if body[:4] == b"nclx" and len(body) >= 8:
        found.codes = struct.unpack_from(">HH", body, 4)
    elif body[:4] in (b"prof", b"rICC"):
        found.profile = body[4:]


_JP2_PROFILES = (2, 3)  # a restricted or any other ICC profile


def describe_jpeg2000(stream: IO[bytes]) -> Described:
    """Return what JPEG 2000 says: the ICC profile in its box `colr`, and the bits per sample in its
    codestream."""
    stream.seek(0)
    start = stream.read(12)
    found = Described()
    if start[4:8] == b"jP  ":
        header = top_box(stream, b"jp2h")
        for kind, begin, end in boxes(header):
            if (
                kind == b"colr"
                and end - begin > 3
                and header[begin] in _JP2_PROFILES
                and found.profile is None
            ):
                found.profile = header[begin + 3 : end]
            elif kind == b"ihdr" and end - begin >= 14 and header[begin + 10] != 255:
                found.depth = (header[begin + 10] & 0x7F) + 1
        return found
    stream.seek(0)
    head = stream.read(64)  # a bare codestream: SOC, SIZ
    if head[:4] == b"\xff\x4f\xff\x51" and len(head) > 42:
        found.depth = (head[42] & 0x7F) + 1
    return found


@dataclass(frozen=True)
class JxlHead:
    """The head of a JPEG XL file: its sides in pixels, and its bits per sample."""

    width: int
    height: int
    depth: int


class _Bits:
    """A reader of bits in a codestream of JPEG XL, where the lowest bit of each byte comes first."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "little"), 8 * len(data)

    def take(self, count: int) -> int:
        if count > self._left:
            raise ValueError("the head ends too early")
        found = self._value & ((1 << count) - 1)
        self._value >>= count
        self._left -= count
        return found

    def choose(self, *ways: tuple[int, int]) -> int:
        """Read a number in one of four ways; each has a number of bits and an offset."""
        bits, offset = ways[self.take(2)]
        return self.take(bits) + offset


_SIZE = ((9, 1), (13, 1), (18, 1), (30, 1))
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def read_jxl_head(stream: IO[bytes]) -> JxlHead:
    """Read the head of a JPEG XL file (ISO 18181-1, annexes A.2 and A.3).

    Raises:
        ValueError: it is damaged.
    """
    stream.seek(0)
    start = stream.read(64)
    if start[:2] != b"\xff\x0a":
        start = top_box(stream, b"jxlc")[:64] or top_box(stream, b"jxlp")[4:68]
    if start[:2] != b"\xff\x0a":
        raise ValueError("there is no codestream in it")
    bits = _Bits(start[2:])
    small = bits.take(1)
    height = (bits.take(5) + 1) * 8 if small else bits.choose(*_SIZE)
    ratio = bits.take(3)
    if ratio:
        across, down = _RATIOS[ratio - 1]
        width = height * across // down
    else:
        width = (bits.take(5) + 1) * 8 if small else bits.choose(*_SIZE)
    return JxlHead(width, height, _jxl_depth(bits))


def _jxl_depth(bits: _Bits) -> int:
    if bits.take(1):  # everything has its default
        return 8
    if bits.take(1):  # more fields come before the depth
        bits.take(3)  # orientation
        if bits.take(3):  # an intrinsic size, a preview, an animation: these are rare and long to read
            return 0
    if bits.take(1):  # floats
        return bits.choose((0, 32), (0, 16), (0, 24), (6, 1))
    return bits.choose((0, 8), (0, 10), (0, 12), (6, 1))
