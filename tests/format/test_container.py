"""Tests of the header, its check and its limits: every wrong file is refused with one clear sentence."""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sprdiff.errors import BitstreamError, ModelMismatchError, SprdiffError
from sprdiff.format.container import MAX_SIDE, SCALES, Header, pack_file, parse_file, scaled_side, verify

HASH = bytes(range(0xA0, 0xC0))
HEADER = Header(768, 512, 100, 0, False, 1, HASH[:2])
STREAM = bytes(range(40))
FILE = pack_file(HEADER, STREAM, HASH)

sides = st.one_of(
    st.integers(1, 300), st.integers(1, MAX_SIDE), st.sampled_from([127, 128, 16383, 16384, MAX_SIDE])
)
headers = st.builds(
    Header,
    sides,
    sides,
    st.integers(0, 255),
    st.integers(0, 6),
    st.booleans(),
    st.integers(1, 2),
    st.just(HASH[:2]),
)
bounded = settings(derandomize=True, deadline=None, max_examples=200)


def rewritten(start: int, new: bytes, data: bytes = FILE) -> bytes:
    return data[:start] + new + data[start + len(new) :]


def test_the_bytes_of_a_header() -> None:
    assert HEADER.pack() == b"SPR" + bytes([0x20, 1, 0xA0, 0xA1, 100, 0x80, 0x06, 0x80, 0x04])
    grey = replace(HEADER, grey=True, scale=6, width=1, height=127)
    assert grey.pack() == b"SPR" + bytes([0x2E, 1, 0xA0, 0xA1, 100, 1, 127])


@bounded
@given(headers, st.binary(max_size=50))
def test_round_trip(header: Header, stream: bytes) -> None:
    data = pack_file(header, stream, HASH)
    parsed = parse_file(data)
    verify(parsed, data, HASH, header.preset_id)
    assert (parsed.header, parsed.stream) == (header, stream)


def test_the_header_takes_at_most_14_bytes_up_to_16383_and_16_always() -> None:
    def size(side: int) -> int:
        return len(pack_file(replace(HEADER, width=side, height=side), b"", HASH))

    assert (size(127), size(16383), size(MAX_SIDE)) == (12, 14, 16)


def test_the_check_is_crc_16_ibm_3740_over_hash_header_and_stream() -> None:
    def crc(data: bytes) -> int:
        value = 0xFFFF
        for bit in (byte >> k & 1 for byte in data for k in range(7, -1, -1)):
            value = (value << 1 & 0xFFFF) ^ (0x1021 if value >> 15 ^ bit else 0)
        return value

    assert crc(b"123456789") == 0x29B1
    assert parse_file(FILE).check == crc(HASH + HEADER.pack() + STREAM)


@bounded
@given(sides, st.integers(0, 6))
def test_coded_side_rounds_half_up(side: int, scale: int) -> None:
    assert scaled_side(side, scale) == max(1, math.floor(side / SCALES[scale] + Fraction(1, 2)))


def test_sizes() -> None:
    assert [float(factor) for factor in SCALES] == [1, 1.5, 2, 3, 4, 6, 8]
    header = replace(HEADER, width=769, height=3, scale=2)
    assert (header.coded_size, header.latent_size(32)) == ((2, 385), (1, 13))
    assert [HEADER.latent_size(stride) for stride in (8, 16, 32, 64)] == [
        (64, 96),
        (32, 48),
        (16, 24),
        (8, 12),
    ]
    assert replace(HEADER, width=1, height=1, scale=6).coded_size == (1, 1)


BAD = {
    "empty": (b"", "empty"),
    "another magic": (rewritten(0, b"PNG"), "not an sprd file"),
    "a text file": (b"hello world, this is text", "not an sprd file"),
    "a future version": (
        rewritten(3, b"\x30"),
        "has format version 3; this version of sprdiff reads version 2",
    ),
    "the version before": (rewritten(3, b"\x10"), "version 1, which this release of sprdiff no longer reads"),
    "the reserved version": (rewritten(3, b"\xf0"), "version 15, which is reserved"),
    "version zero": (rewritten(3, b"\x00"), "version 0"),
    "the scale code 7": (rewritten(3, b"\x27"), "scale code 7"),
    "width zero": (rewritten(8, b"\x00"), "width 0"),
    "height zero": (FILE[:10] + b"\x00" + FILE[12:], "height 0"),
    "an overlong width": (rewritten(8, b"\x80\x00"), "width is not written in its shortest form"),
    "an overlong height": (
        FILE[:10] + b"\x81\x80\x00" + FILE[12:],
        "height is not written in its shortest form",
    ),
    "a width of four bytes": (rewritten(8, b"\xff\xff\xff\x01"), f"width is above {MAX_SIDE}"),
    "a height of endless bytes": (FILE[:10] + b"\xff" * 50, f"height is above {MAX_SIDE}"),
}


@pytest.mark.parametrize(("data", "message"), BAD.values(), ids=BAD.keys())
def test_bad_files_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(BitstreamError, match=message) as caught:
        parse_file(data)
    assert "\n" not in str(caught.value)


def test_truncation_at_every_byte_is_found() -> None:
    for length in range(len(FILE)):
        data = FILE[:length]
        with pytest.raises(BitstreamError, match="empty" if length == 0 else "truncated"):
            verify(parse_file(data), data, HASH)


def test_appended_bytes_are_found() -> None:
    with pytest.raises(BitstreamError, match="damaged"):
        verify(parse_file(FILE + b"\0"), FILE + b"\0", HASH)


def test_every_single_bit_flip_is_found() -> None:
    for bit in range(8 * len(FILE)):
        data = rewritten(bit // 8, bytes([FILE[bit // 8] ^ 1 << bit % 8]))
        with pytest.raises(SprdiffError):
            verify(parse_file(data), data, HASH)


def test_pixel_limit() -> None:
    assert parse_file(FILE, max_pixels=768 * 512).header == HEADER
    with pytest.raises(BitstreamError, match="768 x 512 pixels, above the limit of 393215"):
        parse_file(FILE, max_pixels=768 * 512 - 1)
    huge = pack_file(replace(HEADER, width=MAX_SIDE, height=MAX_SIDE), b"", HASH)
    with pytest.raises(BitstreamError, match="above the limit"):
        parse_file(huge, max_pixels=2**28)


def test_other_weights_are_named() -> None:
    with pytest.raises(ModelMismatchError, match=r"tiny-a0a1.* tiny-0000 "):
        verify(parse_file(FILE), FILE, bytes(32))
    with pytest.raises(ModelMismatchError, match=r"tiny-a0a1.* sd-a0a1 "):
        verify(parse_file(FILE), FILE, HASH, preset_id=2)
    unknown = pack_file(replace(HEADER, preset_id=9), STREAM, HASH)
    with pytest.raises(ModelMismatchError, match=r"preset 9-a0a1.* tiny-a0a1 "):
        verify(parse_file(unknown), unknown, HASH, preset_id=1)


def test_weights_whose_tags_collide_are_caught_by_the_check() -> None:
    with pytest.raises(BitstreamError, match="check"):
        verify(parse_file(FILE), FILE, HASH[:2] + bytes(30))


@pytest.mark.parametrize(
    "change",
    [{"width": 0}, {"height": MAX_SIDE + 1}, {"scale": 7}, {"level": 256}, {"preset_id": -1}, {"tag": b"x"}],
)
def test_a_header_that_cannot_be_written_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(BitstreamError):
        replace(HEADER, **change)  # type: ignore[arg-type]


def test_packing_with_the_wrong_weights_is_refused() -> None:
    with pytest.raises(ModelMismatchError):
        pack_file(HEADER, STREAM, bytes(32))


@bounded
@given(st.binary(max_size=30))
def test_arbitrary_bytes_give_a_header_or_a_bitstream_error(tail: bytes) -> None:
    for data in (tail, b"SPR" + tail, b"SPR\x20" + tail):
        with contextlib.suppress(BitstreamError):
            header = parse_file(data).header.pack()
            assert data.startswith(header)
