"""The ``.sprd`` file: one flat header, a check, and a range-coded stream to the end of the file.

    byte 0-2   b"SPR"
    byte 3     version (4 bits, =2) | grey (1 bit) | scale code (3 bits)
    byte 4     preset id
    byte 5-6   weights tag: the first two bytes of the weights hash H
    byte 7     level 0..255
    varint     width, then height: LEB128, minimal form, 1 .. 2^21 - 1
    2 bytes    check, big-endian: CRC-16/IBM-3740 over (H | header without the check | stream)
    rest       stream

The normative text is ``docs/bitstream.md``. Nothing here needs the weights, except `verify` and `pack_file`,
which take their hash.
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

from sprdiff.errors import BitstreamError, ModelMismatchError
from sprdiff.format.constants import LEVELS
from sprdiff.limits import above, size_message

MAGIC = b"SPR"
VERSION = 2
RESERVED = 15
"""A version that no release writes; it is kept for a format whose version needs more bits."""
MAX_SIDE = 2**21 - 1
SCALES: tuple[Fraction, ...] = tuple(Fraction(n, 2) for n in (2, 3, 4, 6, 8, 12, 16))
"""Factors by which the coded picture is smaller than the original, by scale code (7 is invalid)."""
PRESETS: dict[int, str] = {1: "tiny", 2: "sd"}
"""The names of the preset ids that this version knows, for messages."""
PRESETS_WITHOUT_GRAPHS = frozenset({2})
"""Presets whose networks run on torch only, so that they have no folder of graphs."""
STRIDES = (8, 16, 32, 64)
"""The possible numbers of pixels of the coded picture per position of the y grid, along one side; the
weights choose one."""
MAX_CHANNELS = 1024
"""The largest number of channels of y, and of z."""
MAX_SYMBOLS = 2 * MAX_CHANNELS
"""The largest number of symbols per position of the y grid: those of y, and those of z at no more
positions."""
_SYMBOL_BITS = 55
"""The largest number of bits of one symbol: 24 for the escape, a sign, and an Exp-Golomb code of up to 15
zeros (30 bits)."""
_SLACK = 64
"""Bytes for the header and for the rounding of the range coder."""
_PIECE = 2**20
HEAD = 16
"""Bytes that contain even the longest header with its check."""
_FIXED = 8
_CHECK = 2


@dataclass(frozen=True)
class Header:
    """What a file says about itself before its check.

    Attributes:
        width, height: the size of the original picture in pixels, 1 .. `MAX_SIDE`.
        level: the quality level, 0 .. 255.
        scale: the code of the coded scale, an index into `SCALES`.
        grey: whether the picture is grey; the decoder then returns one channel.
        preset_id: the preset of the networks that made the file (see `PRESETS`).
        tag: the first two bytes of the hash of their weights.

    Raises:
        BitstreamError: a field is outside its range.
    """

    width: int
    height: int
    level: int
    scale: int
    grey: bool
    preset_id: int
    tag: bytes

    def __post_init__(self) -> None:
        for name, side in (("width", self.width), ("height", self.height)):
            if not 1 <= side <= MAX_SIDE:
                raise BitstreamError(f"the {name} {side} is not between 1 and {MAX_SIDE}")
        if not 0 <= self.scale < len(SCALES):
            raise BitstreamError(f"the scale code {self.scale} is not valid")
        if not (0 <= self.level < LEVELS and 0 <= self.preset_id <= 255 and len(self.tag) == 2):
            raise BitstreamError("level and preset id take one byte each, the weights tag two")

    @property
    def quality(self) -> float:
        """The quality 0-100 of `level`, to one digit after the point."""
        return round(self.level * 100 / (LEVELS - 1), 1)

    @property
    def model(self) -> str:
        """The weights that the file was made with, such as ``tiny-1a2b``."""
        return weights_name(self.preset_id, self.tag)

    @property
    def coded_size(self) -> tuple[int, int]:
        """(height, width) of the coded picture: side / factor, half rounded up, at least 1."""
        return scaled_side(self.height, self.scale), scaled_side(self.width, self.scale)

    def latent_size(self, stride: int) -> tuple[int, int]:
        """Return (rows, columns) of the y grid, whose positions are `stride` pixels of the coded picture
        apart.

        The stride follows from the weights: `EntropyModel.stride`.
        """
        height, width = self.coded_size
        return -(-height // stride), -(-width // stride)

    def most_bytes(self, stride: int = STRIDES[0]) -> int:
        """Return the largest size of a file with this header: all symbols at their highest cost.

        Args:
            stride: the stride of the weights; if they are unknown, the smallest that is possible.
        """
        rows, columns = self.latent_size(stride)
        return _SLACK + rows * columns * MAX_SYMBOLS * _SYMBOL_BITS // 8

    def pack(self) -> bytes:
        """Return the header's bytes, without the check: 10 to 14."""
        flags = VERSION << 4 | self.grey << 3 | self.scale
        fixed = bytes((flags, self.preset_id)) + self.tag + bytes((self.level,))
        return MAGIC + fixed + _varint(self.width) + _varint(self.height)


@dataclass(frozen=True)
class ParsedFile:
    """The parts of a file: its header, its check and the range-coded stream."""

    header: Header
    check: int
    stream: bytes


def scaled_side(side: int, scale: int) -> int:
    """Return the side of the coded picture in pixels: ``max(1, round_half_up(side / SCALES[scale]))``, in
    integers."""
    factor = SCALES[scale]
    top, bottom = side * factor.denominator, factor.numerator
    return max(1, (2 * top + bottom) // (2 * bottom))


def pack_file(header: Header, stream: bytes, weights_hash: bytes) -> bytes:
    """Return the whole file. `weights_hash` is H, the `canonical_hash` of the exact part; its start must be
    the tag.

    Raises:
        ModelMismatchError: the header's tag is not that of `weights_hash`.
    """
    if header.tag != weights_hash[:2]:
        raise ModelMismatchError(
            f"the header names weights {header.tag.hex()} but those at hand are {weights_hash[:2].hex()}"
        )
    packed = header.pack()
    return packed + _crc(weights_hash, packed, stream).to_bytes(_CHECK, "big") + stream


def parse_file(data: bytes, max_pixels: int | None = None) -> ParsedFile:
    """Split a file and check everything that can be checked without the weights; nothing large is allocated.

    Args:
        data: the whole file.
        max_pixels: refuse pictures of more pixels (see `limits.above`); None: only `MAX_SIDE` is a limit.

    Raises:
        BitstreamError: the file is damaged or too large; the message says what is wrong.
    """
    if not data:
        raise BitstreamError("the file is empty")
    if data[: len(MAGIC)] != MAGIC[: len(data)]:
        raise BitstreamError("this is not an sprd file: it does not begin with the letters SPR")
    if len(data) < _FIXED:
        raise BitstreamError(f"the file is truncated: it ends after {len(data)} bytes, inside its header")
    _check_version(data[3] >> 4)
    width, end = _read_varint(data, _FIXED, "width")
    height, end = _read_varint(data, end, "height")
    if len(data) < end + _CHECK:
        raise BitstreamError(f"the file is truncated: it ends after {len(data)} bytes, inside its header")
    header = Header(width, height, data[7], data[3] & 7, bool(data[3] >> 3 & 1), data[4], bytes(data[5:7]))
    if max_pixels is not None and above(width, height, max_pixels):
        raise BitstreamError(f"the picture has {size_message(width, height, max_pixels)}")
    if len(data) > header.most_bytes():
        raise _too_long(header.most_bytes())
    check = int.from_bytes(data[end : end + _CHECK], "big")
    return ParsedFile(header, check, bytes(data[end + _CHECK :]))


def _check_version(version: int) -> None:
    if version == 1:
        raise BitstreamError("the file has format version 1, which this release of sprdiff no longer reads")
    if version == RESERVED:
        raise BitstreamError(
            f"the file has format version {RESERVED}, which is reserved: no release writes it"
        )
    if version != VERSION:
        raise BitstreamError(
            f"the file has format version {version}; this version of sprdiff reads version {VERSION}"
        )


def read_file(
    stream: BinaryIO, max_pixels: int | None = None, stride: int = STRIDES[0], head: bytes = b""
) -> bytes:
    """Read a file from the current position of a stream: first its header, and then no more bytes than that
    allows.

    Args:
        max_pixels: as in `parse_file`.
        stride: as in `Header.most_bytes`.
        head: what has been read of the file already.

    Raises:
        BitstreamError: the header is invalid, its picture is above the limit, or the file is longer than it
            can be.
    """
    data = bytearray(head or stream.read(HEAD))
    most = parse_file(bytes(data), max_pixels).header.most_bytes(stride)
    while len(data) <= most and (piece := stream.read(min(_PIECE, most + 1 - len(data)))):
        data += piece
    if len(data) > most:
        raise _too_long(most)
    return bytes(data)


def _too_long(most: int) -> BitstreamError:
    return BitstreamError(f"the file is longer than {most} bytes, which no picture of its size can be")


def verify(parsed: ParsedFile, data: bytes, weights_hash: bytes, preset_id: int | None = None) -> None:
    """Check a parsed file against the available weights, before its stream is decoded.

    Args:
        parsed: `parse_file(data)`.
        data: the whole file.
        weights_hash: H of the available weights.
        preset_id: the preset of the available weights; None: only the tag is compared.

    Raises:
        ModelMismatchError: the file needs other weights; the message names both.
        BitstreamError: the check fails: the file is damaged or was cut off.
    """
    check_weights(parsed.header, weights_hash, preset_id)
    if not is_whole(parsed, data, weights_hash):
        raise BitstreamError("the file is damaged or truncated: its check does not match its contents")


def check_weights(header: Header, weights_hash: bytes, preset_id: int | None = None) -> None:
    """Check that a file needs the available weights, the first half of `verify`.

    Raises:
        ModelMismatchError: it needs others; the message names both.
    """
    same_preset = header.preset_id in PRESETS if preset_id is None else header.preset_id == preset_id
    if not same_preset or header.tag != weights_hash[:2]:
        at_hand = weights_name(header.preset_id if preset_id is None else preset_id, weights_hash[:2])
        raise ModelMismatchError(
            f"the file was made with the weights {header.model}, "
            f"but those at hand are {at_hand} (until version 1.0 a release may end older weights' files)"
        )


def is_whole(parsed: ParsedFile, data: bytes, weights_hash: bytes) -> bool:
    """Whether the check is right, the second half of `verify`; a mere beginning of a file almost never
    passes."""
    end = len(parsed.header.pack())  # header fields have one form only, so the check begins here
    return _crc(weights_hash, data[:end], data[end + _CHECK :]) == parsed.check


def weights_name(preset_id: int, tag: bytes) -> str:
    """Return the name of weights in messages: preset and tag, such as ``tiny-1a2b``."""
    return f"{preset_name(preset_id)}-{tag.hex()}"


def preset_name(preset_id: int) -> str:
    """Return the name of a preset, or its number if this version does not know it."""
    return PRESETS.get(preset_id, f"preset {preset_id}")


def _crc(*parts: bytes) -> int:
    """Return CRC-16/IBM-3740 (also CCITT-FALSE: polynomial 0x1021, initial value 0xFFFF, not reflected)."""
    value = 0xFFFF
    for part in parts:
        value = binascii.crc_hqx(part, value)
    return value


def _varint(value: int) -> bytes:
    """Return a LEB128: seven bits a byte, lowest first; the top bit is set on all bytes but the last."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def _read_varint(data: bytes, start: int, name: str) -> tuple[int, int]:
    """Read a LEB128 of at most three bytes in minimal form; return its value and the offset after it."""
    value = 0
    for count in range(3):
        if start + count >= len(data):
            raise BitstreamError(f"the file is truncated: it ends after {len(data)} bytes, inside its header")
        byte = data[start + count]
        value |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            if byte == 0 and count:
                raise BitstreamError(f"the {name} is not written in its shortest form")
            return value, start + count + 1
    raise BitstreamError(f"the {name} is above {MAX_SIDE}")
