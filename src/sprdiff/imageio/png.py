"""PNG files beyond what Pillow reads: long texts, chunks with a wrong checksum, colour, deep transparency.

The chunks are read before Pillow sees the file. What Pillow would refuse although the pixels are fine is left
out, as libpng does: chunks that need not be understood may be missing. The rest is handed on without a copy.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_TEXT = 2**20
"""The largest size of one unpacked text in bytes; beyond this limit Pillow refuses the whole file."""
MAX_TEXTS = 2**26
"""The largest size of all texts together in bytes, which is also Pillow's limit."""
MAX_PROFILE = 2**24
"""The largest size of an unpacked ICC profile in bytes; those of printers have a few million."""
_BLOCK = 2**20
_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_PACKED = frozenset({b"zTXt", b"iCCP"})
_LEAST = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"pHYs": 9, b"acTL": 8, b"fcTL": 26, b"cICP": 4}
"""The smallest size of a chunk in bytes; Pillow refuses the whole file for a shorter one."""
_LEAST_KEY = {0: 2, 2: 6, 3: 1}
"""The smallest size of a transparent colour in bytes, by colour type: grey, RGB, palette."""
GREY_STEPS = {2: 85, 4: 17}
"""The size of one step of so many bits on the scale up to 255, to which Pillow converts."""


@dataclass
class Chunks:
    """What a walk through the chunks has found.

    Attributes:
        kept: (start, end) of the parts of the file that are handed on; all of it if nothing is left out.
        whole: whether nothing is left out.
        cicp: the four bytes of the chunk cICP.
        profile: an ICC profile that is too large for Pillow's limit.
        lost: what was left out, for the notes about the picture.
        depth, colour_type: those of the pixels according to the chunk IHDR.
        damage: which checksums are wrong; empty if none is.
    """

    kept: list[tuple[int, int]] = field(default_factory=list)
    whole: bool = True
    cicp: bytes = b""
    profile: bytes | None = None
    lost: list[str] = field(default_factory=list)
    depth: int = 0
    colour_type: int = -1
    damage: str = ""


def walk(stream: IO[bytes]) -> Chunks:
    """Read every chunk of a PNG file, up to its end or to where it is damaged. The stream is left at 0."""
    found, unpacked, start = Chunks(), 0, 0
    stream.seek(len(SIGNATURE))
    for kind, position, length in _chunks(stream):
        sound, data = _read(stream, kind, length)
        if not sound:
            found.damage = found.damage or f"bad checksum of a chunk {kind.decode('ascii')}"
        if kind == b"IHDR" and len(data) > 9:
            found.depth, found.colour_type = data[8], data[9]
        if kind in _TEXTS and sound and unpacked <= MAX_TEXTS:
            unpacked += _text_size(kind, data)
        reason = _fault(kind, data, length, sound, unpacked, found)
        if reason is not None:
            found.kept.append((start, position - 8))
            start = position + length + 4
            found.whole = False
            found.lost += [reason] if reason and reason not in found.lost else []
    found.kept.append((start, stream.seek(0, io.SEEK_END)))
    stream.seek(0)
    return found


def _fault(kind: bytes, data: bytes, length: int, sound: bool, unpacked: int, found: Chunks) -> str | None:
    """Return why a chunk is left out (empty: nothing is lost with it), or None if it stays; take over what
    Pillow ignores."""
    optional = bool(kind[0] & 0x20)
    if not optional:  # a necessary chunk stays in any case
        return None
    least = _LEAST_KEY.get(found.colour_type, 0) if kind == b"tRNS" else _LEAST.get(kind, 0)
    if not sound or length < least or (kind in _PACKED and not _is_deflate(kind, data)):
        return f"damaged chunk {kind.decode('ascii')}"
    if kind in _TEXTS and (
        unpacked > MAX_TEXTS or (_is_packed(kind, data) and _text_size(kind, data) > MAX_TEXT)
    ):
        return "text above the limits"
    if kind == b"cICP":
        found.cicp = data[:4]
    if kind == b"iCCP":
        profile = _inflate(data.partition(b"\0")[2][1:], MAX_PROFILE)
        if len(profile) > MAX_PROFILE:
            return "ICC profile above the limits"
        if len(profile) > MAX_TEXT:
            found.profile = profile
            return ""
    return None


def _is_packed(kind: bytes, data: bytes) -> bool:
    """Whether a text is compressed."""
    return kind == b"zTXt" or (kind == b"iTXt" and data.partition(b"\0")[2][:1] == b"\x01")


def _is_deflate(kind: bytes, data: bytes) -> bool:
    """Whether a compressed chunk names deflate, the only method that exists."""
    _, null, rest = data.partition(b"\0")
    return bool(null) and rest[:1] == b"\0" if kind == b"iCCP" else not rest or rest[:1] == b"\0"


def _chunks(stream: IO[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name, the position and the size of each chunk's data, where the stream stands, up to IEND
    or to the end."""
    while True:
        position = stream.tell()
        head = stream.read(8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        if not kind.isalpha() or length > 2**31 - 1:
            return
        yield kind, position + 8, length
        if kind == b"IEND" or stream.seek(position + 12 + length) != position + 12 + length:
            return


def _read(stream: IO[bytes], kind: bytes, length: int) -> tuple[bool, bytes]:
    """Return whether the checksum is right (or the file ends before it), and the data of a chunk that
    matters."""
    check, parts = zlib.crc32(kind), []
    wanted = kind in _TEXTS or kind in (b"IHDR", b"iCCP", b"cICP")
    while length:
        part = stream.read(min(length, _BLOCK))
        if not part:
            return True, b""  # the file was cut off, which the decoder reports
        check = zlib.crc32(part, check)
        parts += [part] if wanted else []
        length -= len(part)
    expected = stream.read(4)
    return len(expected) < 4 or struct.unpack(">I", expected)[0] == check, b"".join(parts)


def _text_size(kind: bytes, data: bytes) -> int:
    """Return the unpacked size of a text in bytes; the limit plus one if it is above it."""
    if kind == b"tEXt":
        return len(data)
    _, _, rest = data.partition(b"\0")
    if kind == b"zTXt":
        return len(_inflate(rest[1:], MAX_TEXT))
    if not _is_packed(kind, data):
        return len(rest)
    parts = rest[2:].split(b"\0", 2)
    return len(_inflate(parts[2], MAX_TEXT)) if len(parts) == 3 else 0


def _inflate(data: bytes, most: int) -> bytes:
    """Return unpacked data, or their first ``most + 1`` bytes; empty if they are damaged, which Pillow
    tolerates."""
    try:
        return zlib.decompressobj().decompress(data, most + 1)
    except zlib.error:
        return b""


class Parts(io.RawIOBase):
    """A file that consists of parts of another one."""

    def __init__(self, stream: IO[bytes], parts: list[tuple[int, int]]) -> None:
        self._stream, self._parts = stream, [(a, b) for a, b in parts if b > a]
        self._size = sum(b - a for a, b in self._parts)
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        before = 0
        for start, end in self._parts:
            inside = self._position - before
            if 0 <= inside < end - start:
                self._stream.seek(start + inside)
                data = self._stream.read(min(len(buffer), end - start - inside))
                buffer[: len(data)] = data
                self._position += len(data)
                return len(data)
            before += end - start
        return 0
